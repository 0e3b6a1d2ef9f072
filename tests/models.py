"""Small random models on disk, with the real tokenizer of danlu/tiny, and recipes that take seconds."""

from pathlib import Path
from typing import Any

from danlu.bundled import FOLDER

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def write_model(folder: Path, *, seed: int = 0, **changes: object) -> Path:
    """Write a 2-layer Qwen3 model of width 64 with random weights."""
    import shutil

    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copy(FOLDER / "tiny" / name, folder / name)
    options: dict[str, object] = {
        "vocab_size": 8000,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "bos_token_id": None,
        "initializer_range": 0.05,
    }
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(Qwen3Config(**(options | changes))).save_pretrained(folder)
    return folder


def recipe_values(model: Path, dataset: Path, **values: Any) -> dict[str, Any]:
    """A recipe that takes seconds."""
    few = {
        "base_model": str(model),
        "dataset": str(dataset),
        "method": {"type": "lora", "rank": 4},
        "optim": {"max_steps": 8, "global_batch_size": 4, "learning_rate": 0.01},
        "evaluation": {"max_generations": 3, "max_new_tokens": 8},
    }
    return few | values
