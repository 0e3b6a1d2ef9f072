"""What every system trains on: one random model on disk, and one file of conversations or of pairs."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from danlu.services.bench import SHAPES as BENCH_SHAPES

USUAL: dict[str, Any] = {"tie_word_embeddings": True, "max_position_embeddings": 2048, "head_dim": 64}
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": BENCH_SHAPES["30M"]
    | USUAL
    | {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"num_key_value_heads": 1, "vocab_size": 8192},
    "30m": BENCH_SHAPES["30M"] | USUAL,
    "108m": BENCH_SHAPES["108M"] | USUAL,
    "300m": USUAL
    | {"vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16, "num_key_value_heads": 8},
}
"""Qwen3 models; `tiny` is for trying the bench itself."""
MAX_SEQ_LEN = 1024
LABEL_SHARE = 0.4
PEAK = [sys.executable, "-m", "danlu.training.benchmark", json.dumps({"system": "peak", "device": "cpu", "repeats": 8})]
"""Measures the machine's matrix peak."""


def make_model(folder: Path, shape: dict[str, Any]) -> None:
    """Write the model with the tokenizer of danlu/tiny; its 8,000 ids are a part of the vocabulary."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config

    from danlu.bundled import FOLDER

    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "tiny")
    torch.manual_seed(0)
    # A wide initialisation puts the first loss well off ln(vocabulary), so that comparing losses says something.
    config = Qwen3Config(**shape, initializer_range=0.05, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_data(file: Path, in_order: Path, model: Path, *, num_examples: int, is_pairs: bool) -> None:
    """Write conversations of 40 to 1,000 tokens, made of the bundled texts, about 40 % of them answer.

    `file` has them such that Danlu's first epoch visits them in the order of `in_order`, which other systems read from its
    beginning: both see the same batches. A pair has two answers, each about a quarter of the length.
    """
    from transformers import AutoTokenizer

    from danlu.bundled import FOLDER
    from danlu.data.pack import epoch_order

    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = [m["content"] for line in (FOLDER / "general.jsonl").read_text("utf-8").splitlines() for m in json.loads(line)["messages"]]
    stream = tokenizer(" ".join(texts), add_special_tokens=False)["input_ids"]
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(5.9, 0.6, num_examples), 40, 1000).astype(int) - 12  # the template adds about twelve tokens

    def text(length: int) -> str:
        start = int(generator.integers(0, len(stream) - length))
        return str(tokenizer.decode(stream[start : start + length]))

    rows: list[dict[str, Any]] = []
    for length in lengths:
        prompt = [{"role": "user", "content": text(int(length * (1 - LABEL_SHARE)))}]
        if is_pairs:
            first, second = ([{"role": "assistant", "content": text(max(4, length // 4))}] for _ in range(2))
            rows.append({"prompt": prompt, "chosen": first, "rejected": second})
        else:
            rows.append({"messages": [*prompt, {"role": "assistant", "content": text(max(4, int(length * LABEL_SHARE)))}]})
    placed: list[dict[str, Any]] = [{}] * num_examples
    for position, index in enumerate(epoch_order(num_examples, seed=0, epoch=0)):
        placed[int(index)] = rows[position]
    for path, content in ((file, placed), (in_order, rows)):
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content), "utf-8")


def encode(data: Path, model: Path, *, is_pairs: bool) -> list[Any]:
    """The sequences of a file as Danlu trains on them; of a pair the chosen one, then the rejected one."""
    from danlu.data.chat import ChatRenderer
    from danlu.models.load import load_tokenizer

    renderer = ChatRenderer(load_tokenizer(model))
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    if is_pairs:
        return list(renderer.encode([renderer.render_completion(row["prompt"], row[key]) for row in rows for key in ("chosen", "rejected")]))
    return list(renderer.encode([renderer.render(row["messages"]) for row in rows]))
