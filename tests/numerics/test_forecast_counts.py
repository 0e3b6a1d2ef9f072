"""What the forecast counts is what is there: parameters of every family, trained weights of every method, constants of the kernels."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from danlu.models import generate, memory
from danlu.models.memory import micro_batches
from danlu.models.shape import ModelShape
from danlu.models.trained import trained_by
from danlu.recipe.recipe import Recipe
from danlu.training.kernels import attention, cross_entropy, gemm

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-tied": {"model_type": "llama", "tie_word_embeddings": True},
    "mistral": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8},
    "phi": {"num_key_value_heads": 4},
    "phi3": {"pad_token_id": 0},
    "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": 3, "n_positions": 64, "n_inner": 80},
    "gpt_neox": {"num_key_value_heads": 4},
}


def build(family: str) -> tuple[nn.Module, ModelShape]:
    values = SIZES | FAMILIES[family]
    kind = values.pop("model_type", family)
    if kind == "gpt2":
        values = {key: value for key, value in values.items() if key.startswith("n_") or key == "vocab_size"}
    config = AutoConfig.for_model(kind, **values)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32), ModelShape.from_config(config.to_dict())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_alone_tells_how_many_parameters_a_model_has(family: str) -> None:
    model, shape = build(family)

    assert shape.num_parameters == sum(p.numel() for p in model.parameters())


METHODS: dict[str, dict[str, Any]] = {
    "full": {"type": "full"},
    "lora": {"type": "lora", "rank": 4},
    "lora q,v": {"type": "lora", "rank": 4, "target_modules": ["q_proj", "v_proj"]},
    "lora upper layers": {"type": "lora", "rank": 4, "layers": [1, -1]},
    "lora rank pattern": {"type": "lora", "rank": 4, "rank_pattern": {"down_proj": 8}},
    "dora": {"type": "lora", "rank": 4, "use_dora": True},
    "freeze": {"type": "freeze", "num_layers": 1},
    "freeze head": {"type": "freeze", "num_layers": 1, "train_head": True},
    "freeze embeddings": {"type": "freeze", "num_layers": 2, "train_embeddings": True},
    "ia3": {"type": "ia3"},
    "prompt_tuning": {"type": "prompt_tuning", "num_virtual_tokens": 5, "init": "random"},
    "p_tuning_v2": {"type": "p_tuning_v2", "num_virtual_tokens": 5},
    "p_tuning": {"type": "p_tuning", "num_virtual_tokens": 5},
    "lora_plus_full": {"type": "lora_plus_full", "rank": 4, "modules_to_save": ["lm_head"]},
}


@pytest.mark.parametrize("name", METHODS)
def test_the_trained_weights_of_every_method_are_counted(name: str) -> None:
    model, shape = build("llama")
    recipe = Recipe.model_validate({"base_model": "b", "dataset": "d", "method": METHODS[name]})
    applied: Any = recipe.method.apply(model, fused=False)  # type: ignore[attr-defined]
    trained = sum(p.numel() for p in applied.parameters() if p.requires_grad)

    assert trained_by(recipe, shape).num_parameters == pytest.approx(trained, abs=2 * shape.hidden)  # a last norm more or less


def test_the_constants_are_those_of_the_kernels() -> None:
    assert (memory.CHUNK_BYTES, memory.MIN_CHUNK_ROWS) == (cross_entropy.CHUNK_BYTES, cross_entropy.MIN_ROWS)
    assert attention.BLOCK_ROWS == memory.BLOCK_ROWS
    assert memory.uses_onednn() == gemm.has_fast_onednn()
    sizes = [memory.filled_rows(n) for n in range(1, 5000)]
    assert all(n <= size < n + memory.MOST_FILL for n, size in enumerate(sizes, 1)) and all(size <= 1.125 * n for n, size in enumerate(sizes, 1) if n >= 128)
    assert len({size for size in sizes if size <= 1024}) == 32 and [memory.filled_rows(size) for size in sizes] == sizes
    assert (memory.MAX_CACHE_BYTES, memory.MAX_ROWS) == (generate.MAX_CACHE_BYTES, generate.MAX_ROWS)


def kept_bytes(shape: ModelShape, recipe: Recipe, model: nn.Module) -> tuple[int, int]:
    """(forecast, measured) bytes that the layers keep for the backward pass of one micro batch."""
    import numpy as np

    from danlu.data.pack import EncodedExample
    from danlu.training.batch import PackedBatch
    from danlu.training.forward import fast_nll

    examples = [EncodedExample(np.arange(first, first + 40, dtype=np.uint32), np.arange(40) >= 20) for first in (3, 23, 43)]
    storages: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        fast_nll(model, PackedBatch.from_examples(examples)).sum()
    [batch] = micro_batches(recipe, [40] * 3, [20] * 3, 4096)
    plan = memory.Plan.of(shape, recipe, batch, is_accumulated=False)
    return sum(plan.saved_bytes(layer) for layer in range(plan.trained.first_layer, shape.layers)), sum(storages.values())


@pytest.mark.parametrize("name", ["full", "lora", "lora q,v", "lora upper layers", "prompt_tuning", "p_tuning"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_the_activations_are_those_that_autograd_keeps(family: str, name: str) -> None:
    """Counted from the storages that autograd saves; the head's share (a few rows) is the difference allowed."""
    model, shape = build(family)
    optim = {"global_batch_size": 4, "micro_batch_tokens": 4096, "num_epochs": 1.0, "learning_rate": 1e-3}
    recipe = Recipe.model_validate(
        {"base_model": "b", "dataset": "d", "method": METHODS[name], "optim": optim, "training": {"dtype": "float32"}},
    )
    applied: Any = recipe.method.apply(model.train(), fused=True)  # type: ignore[attr-defined]
    forecast, measured = kept_bytes(shape, recipe, applied)

    assert forecast == pytest.approx(measured, rel=0.12)
