"""Every objective on the fast path equals itself on the reference path: loss and every gradient, adapters and whole models."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from danlu.data.pack import EncodedExample
from danlu.recipe.base import METHODS, OBJECTIVES
from danlu.training.batch import PackedBatch
from danlu.training.forward import fast_nll, reference_nll
from danlu.training.kernels import attention

OBJECTIVE_NAMES = [name for name in OBJECTIVES if OBJECTIVES[name].needs != "prompt" and name != "reward"]
TOLERANCE = 1e-5


def make_model(*, tied: bool, path: str) -> Any:
    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=48, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        max_position_embeddings=64, tie_word_embeddings=tied, initializer_range=0.1,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    model.set_attn_implementation(attention.NAME if path == "fast" else "sdpa")
    return model


def batch_of() -> list[EncodedExample]:
    draw = np.random.default_rng(5)
    tags = (1.0, -1.0, -1.0, 1.0)
    found = []
    for length, prompt, tag in zip((11, 7, 9, 14), (4, 4, 3, 3), tags, strict=True):
        weights = np.where(np.arange(length) % 3 == 0, 0.5, 1.0).astype(np.float32)
        found.append(EncodedExample(draw.integers(0, 48, length).astype(np.uint32), np.arange(length) >= prompt, tag, float(4 * (length - prompt)), weights))
    return found


def loss_and_gradients(objective: Any, method: str, *, tied: bool, path: str) -> tuple[float, dict[str, torch.Tensor]]:
    torch.manual_seed(2)
    config: Any = METHODS.parse({"type": method, "rank": 4} if method == "lora" else method)
    model = config.apply(make_model(tied=tied, path=path), fused=path == "fast").train()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    sequences = batch_of()
    loss, _ = objective.loss(model, PackedBatch.from_examples(sequences), objective.totals(sequences), fast_nll if path == "fast" else reference_nll)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
@pytest.mark.parametrize(("method", "tied"), [("lora", False), ("full", False), ("full", True)])
def test_the_fast_path_equals_the_reference(objective: str, method: str, tied: bool) -> None:
    config = OBJECTIVES.parse(objective)
    expected_loss, expected = loss_and_gradients(config, method, tied=tied, path="reference")

    loss, gradients = loss_and_gradients(config, method, tied=tied, path="fast")

    assert loss == pytest.approx(expected_loss, rel=TOLERANCE)
    assert gradients.keys() == expected.keys() and len(expected) > 10
    for name, value in expected.items():
        error = float((gradients[name].double() - value.double()).norm() / value.double().norm().clamp_min(1e-8))
        assert error <= TOLERANCE, (name, error)
