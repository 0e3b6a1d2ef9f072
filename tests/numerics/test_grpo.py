"""GRPO: what is drawn, how it is judged, what the loss makes of it."""

from collections.abc import Callable
from dataclasses import replace
from math import exp
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from danlu.data.chat import ChatRenderer
from danlu.data.pack import EncodedExample
from danlu.models.generate import Drawing, generate
from danlu.models.load import load_model, load_tokenizer
from danlu.recipe.base import OBJECTIVES
from danlu.training.batch import PackedBatch

LENGTHS, PROMPTS = (7, 5, 8, 6), (3, 3, 4, 4)
ADVANTAGES = (0.8, -1.2, 0.3, -0.5)


def rollouts(old: Tensor | None, reference: Tensor | None) -> list[EncodedExample]:
    draw = np.random.default_rng(0)
    counts = [n - p for n, p in zip(LENGTHS, PROMPTS, strict=True)]
    parts = [x.split(counts) if x is not None else [None] * 4 for x in (old, reference)]
    found = []
    for i, (n, p, advantage) in enumerate(zip(LENGTHS, PROMPTS, ADVANTAGES, strict=True)):
        sequence = EncodedExample(draw.integers(0, 50, n).astype(np.uint32), np.arange(n) >= p, tag=advantage)
        old_i, reference_i = (None if part[i] is None else part[i].numpy() for part in parts)
        found.append(replace(sequence, old_nats=old_i, reference_nats=reference_i))
    return found


def draws(count: int = 3) -> list[Tensor]:
    torch.manual_seed(0)
    first = torch.rand(sum(LENGTHS) - sum(PROMPTS)) * 2 + 0.2
    return [first + 0.4 * torch.randn(len(first)) for _ in range(count)]


def loss_of(objective: Any, sequences: list[EncodedExample], nll: Tensor) -> Tensor:
    loss, _ = objective.loss(nn.Identity(), PackedBatch.from_examples(sequences), objective.totals(sequences), lambda model, batch: nll)
    return loss


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
@pytest.mark.parametrize(("steps", "beta"), [(1, 0.0), (1, 0.1), (2, 0.0), (2, 0.1)])
def test_the_loss_equals_the_papers_and_trl(loss_type: str, steps: int, beta: float) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    from trl.trainer.grpo_trainer import GRPOTrainer

    new, old, reference = draws()
    nll = new.double().requires_grad_()
    high = {} if steps == 1 else {"epsilon_high": 0.28}
    objective: Any = OBJECTIVES.parse(
        {
            "type": "grpo",
            "loss_type": loss_type,
            "beta": beta,
            "num_iterations": steps,
            "epsilon": 0.1,
            "max_completion_tokens": 10,
            **high,
        }
    )
    ours = loss_of(objective, rollouts(old if steps > 1 else None, reference if beta else None), nll)

    counts = [n - p for n, p in zip(LENGTHS, PROMPTS, strict=True)]
    by_token = []
    for advantage, a, b, c in zip(ADVANTAGES, *(x.detach().double().split(counts) for x in (nll, old, reference)), strict=True):
        row = []
        for new_nats, old_nats, reference_nats in zip(a.tolist(), b.tolist(), c.tolist(), strict=True):
            ratio = exp(old_nats - new_nats) if steps > 1 else 1.0
            d = new_nats - reference_nats
            row.append(-min(ratio * advantage, min(max(ratio, 0.9), 1.28 if high else 1.1) * advantage) + beta * (exp(d) - d - 1))
        by_token.append(row)
    expected = {
        "grpo": sum(sum(row) / len(row) for row in by_token) / 4,
        "dapo": sum(map(sum, by_token)) / sum(counts),
        "dr_grpo": sum(map(sum, by_token)) / (4 * 10),
    }[loss_type]
    assert ours.item() == pytest.approx(expected, rel=1e-6)

    width = max(counts)
    mask = torch.tensor([[1] * n + [0] * (width - n) for n in counts])

    def padded(x: Tensor) -> Tensor:
        return torch.stack([torch.cat([-part, part.new_zeros(width - len(part))]) for part in x.split(counts)])

    trainer = MagicMock()
    trainer.accelerator.gather = lambda x: x
    trainer.accelerator.num_processes = 1
    fields: dict[str, Any] = {
        "top_entropy_quantile": 1.0, "off_policy_mask_threshold": None, "importance_sampling_level": "token", "beta": beta, "loss_type": loss_type,
        "epsilon_low": 0.1, "epsilon_high": 0.28 if high else 0.1, "use_vllm": False, "max_completion_length": 10, "current_gradient_accumulation_steps": 1,
        "aux_loss_enabled": False, "_entropy_bonus_enabled": False, "model": SimpleNamespace(training=True),
        "args": SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
    }  # fmt: skip
    for name, value in fields.items():
        setattr(trainer, name, value)
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (padded(nll), torch.zeros(4, width), None)
    inputs = {
        "prompt_ids": torch.zeros(4, 2, dtype=torch.long), "prompt_mask": torch.ones(4, 2), "completion_ids": torch.zeros(4, width, dtype=torch.long),
        "completion_mask": mask, "advantages": torch.tensor(ADVANTAGES), "old_per_token_logps": padded(old) if steps > 1 else None,
        "ref_per_token_logps": padded(reference), "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    theirs = GRPOTrainer._compute_loss(trainer, MagicMock(training=True), inputs)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    torch.testing.assert_close(torch.autograd.grad(ours, nll)[0], torch.autograd.grad(theirs, nll)[0].double(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("scale", "expected"), [("none", 1.0), ("group", 1.0), ("batch", (5 / 2) ** 0.5)])
def test_advantages_are_distances_from_the_mean_of_the_group(scale: str, expected: float) -> None:
    objective: Any = OBJECTIVES.parse({"type": "grpo", "scale_rewards": scale, "rewards": ["length"]})

    found = objective.advantages(np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]]))

    assert found == pytest.approx(np.array([[-expected, 0, expected], [0, 0, 0]]), rel=1e-3)


@pytest.fixture(scope="module")
def writer(small_model: Path) -> Callable[..., Any]:
    model, renderer = load_model(small_model).eval(), ChatRenderer(load_tokenizer(small_model))

    def write(texts: list[str], uniform: np.ndarray, *, temperature: float = 1.0, top_p: float = 1.0) -> list[tuple[int, ...]]:
        prompts = [renderer.prompt_ids([{"role": "user", "content": text}]) for text in texts]
        found: dict[int, Any] = {}
        for batch in generate(model, renderer, prompts, max_new_tokens=uniform.shape[1], drawing=Drawing(uniform, temperature, top_p)):
            found |= batch
        return [found[i].ids for i in range(len(texts))]

    return write


def test_a_drawn_answer_depends_on_no_other_row(writer: Callable[..., Any]) -> None:
    texts = ["a", "a much longer question than the first", "b"]
    uniform = np.random.default_rng(1).random((3, 6))

    together = writer(texts, uniform)

    assert together == [writer([text], uniform[i : i + 1])[0] for i, text in enumerate(texts)]
    assert len(set(together)) == 3 and writer(texts, uniform, temperature=0.01) != together


def test_tokens_are_drawn_as_often_as_they_are_likely(small_model: Path, writer: Callable[..., Any]) -> None:
    from collections import Counter

    model, renderer = load_model(small_model).eval(), ChatRenderer(load_tokenizer(small_model))
    prompt = renderer.prompt_ids([{"role": "user", "content": "a"}])
    with torch.no_grad():
        probability = torch.softmax(model(input_ids=torch.tensor([prompt])).logits[0, -1].double() / 0.3, -1)
    likeliest = int(probability.argmax())

    drawn = Counter(ids[0] for ids in writer(["a"] * 512, np.random.default_rng(2).random((512, 1)), temperature=0.3))
    narrow = {ids[0] for ids in writer(["a"] * 64, np.random.default_rng(2).random((64, 1)), temperature=0.3, top_p=0.2)}

    assert drawn[likeliest] / 512 == pytest.approx(float(probability[likeliest]), abs=0.06)
    inside = probability.sort(descending=True)
    assert narrow <= set(inside.indices[: int((inside.values.cumsum(0) - inside.values < 0.2).sum())].tolist())
