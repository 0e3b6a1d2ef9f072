"""Each objective against its paper's formula computed by hand, and against TRL on the same batch.

The model is taken out: the tests give the negative log-likelihoods of the label tokens themselves.
"""

from collections.abc import Callable
from math import exp, log, log1p
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from danlu.data.pack import EncodedExample
from danlu.recipe.base import OBJECTIVES
from danlu.training.batch import PackedBatch

LENGTHS = (9, 7, 5, 12, 8, 8)
PROMPTS = (4, 4, 2, 2, 3, 3)
PAIRS = [(0, 1), (2, 3), (4, 5)]
MODEL = nn.Identity()


def sequences(tags: tuple[float, ...] = (0.0,) * 6) -> list[EncodedExample]:
    draw = np.random.default_rng(0)
    return [
        EncodedExample(draw.integers(0, 50, n).astype(np.uint32), np.arange(n) >= p, tag=tag, reference=float(draw.uniform(1.6, 2.6) * (n - p)))
        for n, p, tag in zip(LENGTHS, PROMPTS, tags, strict=True)
    ]


def nats(seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return (torch.rand(sum(LENGTHS) - sum(PROMPTS), dtype=torch.float64) * 3 + 0.05).requires_grad_()


def by_sequence(nll: Tensor) -> list[list[float]]:
    """Log-probabilities of the label tokens of each sequence."""
    return [[-float(x) for x in part] for part in nll.detach().split([n - p for n, p in zip(LENGTHS, PROMPTS, strict=True)])]


def loss_of(objective: Any, examples: list[EncodedExample], nll: Tensor, **totals: float) -> tuple[Tensor, dict[str, float]]:
    loss, numbers = objective.loss(MODEL, PackedBatch.from_examples(examples), objective.totals(examples) | totals, lambda model, batch: nll)
    return loss, {name: float(value) for name, value in numbers.items()}


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def dpo_by_hand(beta: float, kind: str, smoothing: float) -> Callable[[list[list[float]], list[float]], float]:
    def mean_loss(log_p: list[list[float]], reference: list[float]) -> float:
        total = 0.0
        for w, r in PAIRS:
            ratio_w, ratio_r = sum(log_p[w]) + reference[w], sum(log_p[r]) + reference[r]
            h = ratio_w - ratio_r
            if kind == "ipo":
                total += (ratio_w / len(log_p[w]) - ratio_r / len(log_p[r]) - 1 / (2 * beta)) ** 2
            elif kind == "hinge":
                total += max(0.0, 1 - beta * h)
            elif kind == "robust":
                total += (-(1 - smoothing) * log(sigmoid(beta * h)) + smoothing * log(sigmoid(-beta * h))) / (1 - 2 * smoothing)
            else:
                total += -(1 - smoothing) * log(sigmoid(beta * h)) - smoothing * log(sigmoid(-beta * h))
        return total / len(PAIRS)

    return mean_loss


@pytest.mark.parametrize(("kind", "smoothing"), [("sigmoid", 0.0), ("sigmoid", 0.2), ("ipo", 0.0), ("hinge", 0.0), ("robust", 0.1)])
def test_dpo_equals_the_papers(kind: str, smoothing: float) -> None:
    objective = OBJECTIVES.parse({"type": "dpo", "loss_type": kind, "label_smoothing": smoothing, "beta": 0.3})
    examples, nll = sequences(), nats()

    loss, numbers = loss_of(objective, examples, nll)

    log_p, reference = by_sequence(nll), [e.reference for e in examples]
    assert loss.item() == pytest.approx(dpo_by_hand(0.3, kind, smoothing)(log_p, reference), rel=1e-12)
    margins = [sum(log_p[w]) + reference[w] - sum(log_p[r]) - reference[r] for w, r in PAIRS]
    if kind != "ipo":
        assert numbers["reward_accuracy"] == pytest.approx(sum(m > 0 for m in margins) / 3)
        assert numbers["reward_margin"] == pytest.approx(0.3 * sum(margins) / 3)


def test_simpo_equals_the_paper() -> None:
    nll = nats()
    loss, _ = loss_of(OBJECTIVES.parse({"type": "simpo", "beta": 2.5, "gamma": 0.7}), sequences(), nll)

    log_p = by_sequence(nll)
    mean = [sum(p) / len(p) for p in log_p]
    assert loss.item() == pytest.approx(sum(-log(sigmoid(2.5 * mean[w] - 2.5 * mean[r] - 0.7)) for w, r in PAIRS) / 3, rel=1e-12)


def test_orpo_equals_the_paper() -> None:
    nll = nats()
    loss, _ = loss_of(OBJECTIVES.parse({"type": "orpo", "weight": 0.4}), sequences(), nll)

    log_p = by_sequence(nll)
    odds = [exp(sum(p) / len(p)) / (1 - exp(sum(p) / len(p))) for p in log_p]
    likelihood = -sum(sum(log_p[w]) for w, _ in PAIRS) / sum(len(log_p[w]) for w, _ in PAIRS)
    assert loss.item() == pytest.approx(likelihood + 0.4 * sum(-log(sigmoid(log(odds[w] / odds[r]))) for w, r in PAIRS) / 3, rel=1e-12)


@pytest.mark.parametrize("mean", [-1e-15, -1e-9, -0.1, -0.7, -5.0, -80.0])
def test_the_odds_of_orpo_are_exact_at_both_ends(mean: float) -> None:
    from danlu.training.objectives.orpo import _log_of_one_minus_exp

    x = torch.tensor(mean, dtype=torch.float64, requires_grad=True)
    value = _log_of_one_minus_exp(x)
    value.backward()

    expected = log(-np.expm1(min(mean, -1e-12))) if mean > -0.5 else log1p(-exp(mean))
    assert value.item() == pytest.approx(expected, rel=1e-12)
    assert x.grad is not None and bool(torch.isfinite(x.grad))


def test_kto_equals_the_paper() -> None:
    tags = (1.0, -1.0, 1.0, 1.0, -1.0, -1.0)
    objective = OBJECTIVES.parse({"type": "kto", "beta": 0.2, "desirable_weight": 1.5, "undesirable_weight": 0.8})
    examples, nll, drifting = sequences(tags), nats(), nats(7)
    totals = objective.totals(examples)
    for name, value in objective.measure(MODEL, PackedBatch.from_examples(sequences()), lambda model, batch: drifting).items():
        totals[name] = value.item()

    loss, numbers = loss_of(objective, examples, nll, **totals)

    ratios = [sum(p) + e.reference for p, e in zip(by_sequence(nll), examples, strict=True)]
    z0 = max(0.0, sum(sum(p) + e.reference for p, e in zip(by_sequence(drifting), examples, strict=True)) / 6)
    values = [1.5 * (1 - sigmoid(0.2 * (r - z0))) if tag > 0 else 0.8 * (1 - sigmoid(0.2 * (z0 - r))) for r, tag in zip(ratios, tags, strict=True)]
    assert loss.item() == pytest.approx(sum(values) / 6, rel=1e-12)
    assert numbers["kl"] == pytest.approx(z0) and z0 > 0


def test_the_reward_loss_equals_the_papers() -> None:
    scores = torch.tensor([0.3, -0.2, 1.5, 1.7, -0.4, 0.9], dtype=torch.float64, requires_grad=True)

    loss, numbers = loss_of(OBJECTIVES.parse({"type": "reward", "margin": 0.5, "centring": 0.01}), sequences(), scores)

    s = scores.tolist()
    assert loss.item() == pytest.approx(sum(-log(sigmoid(s[w] - s[r] - 0.5)) + 0.01 * (s[w] + s[r]) ** 2 for w, r in PAIRS) / 3, rel=1e-12)
    assert numbers["reward_accuracy"] == pytest.approx(1 / 3)


def trl_batch(examples: list[EncodedExample], nll: Tensor, order: list[int]) -> tuple[dict[str, Tensor], Any]:
    """Padded ids and masks in the order given, and a model that answers with the log-probabilities of our tokens."""
    width = max(LENGTHS)
    ids, mask, is_label = (torch.zeros(len(order), width, dtype=torch.long) for _ in range(3))
    log_p = torch.zeros(len(order), width - 1, dtype=torch.float64)
    parts = (-nll).split([n - p for n, p in zip(LENGTHS, PROMPTS, strict=True)])
    for row, i in enumerate(order):
        ids[row, : LENGTHS[i]] = torch.from_numpy(examples[i].ids.astype(np.int64))
        mask[row, : LENGTHS[i]] = 1
        is_label[row, PROMPTS[i] : LENGTHS[i]] = 1
        log_p[row, PROMPTS[i] - 1 : LENGTHS[i] - 1] = parts[i]
    fields = {
        "log_probs": log_p,
        "entropy": torch.zeros_like(log_p),
        "mean_logits": torch.zeros_like(log_p),
        "is_top1": torch.zeros_like(log_p, dtype=torch.bool),
        "log_sum_sq_probs": log_p,
        "loss": torch.tensor(0.0),
    }
    return {"input_ids": ids, "attention_mask": mask, "completion_mask": is_label}, MagicMock(return_value=MagicMock(**fields), training=True)


def trainer_with(**fields: Any) -> Any:
    """The parts of a TRL trainer that its loss reads; numbers it logs go nowhere."""
    trainer = MagicMock()
    trainer.accelerator.gather_for_metrics = trainer.accelerator.gather = lambda x: x
    trainer.accelerator.num_processes, trainer.accelerator.device = 1, torch.device("cpu")
    for name, value in fields.items():
        setattr(trainer, name, value)
    return trainer


def same_loss_and_gradient(ours: Tensor, theirs: Tensor, nll: Tensor, *, rel: float = 1e-6) -> None:
    assert ours.item() == pytest.approx(theirs.item(), rel=rel)
    mine, other = torch.autograd.grad(ours, nll, retain_graph=True)[0], torch.autograd.grad(theirs, nll)[0]
    torch.testing.assert_close(mine, other, rtol=rel, atol=1e-9)


trl = pytest.importorskip("trl", reason="TRL is not installed: losses are compared with the papers only")


@pytest.mark.parametrize(("kind", "smoothing"), [("sigmoid", 0.0), ("ipo", 0.0), ("hinge", 0.0), ("robust", 0.1)])
def test_dpo_equals_trl(kind: str, smoothing: float) -> None:
    from trl.trainer.dpo_trainer import DPOTrainer

    examples, nll = sequences(), nats()
    order = [w for w, _ in PAIRS] + [r for _, r in PAIRS]
    inputs, model = trl_batch(examples, nll, order)
    reference = torch.tensor([-examples[i].reference for i in order], dtype=torch.float64)
    inputs |= {"ref_chosen_logps": reference[:3], "ref_rejected_logps": reference[3:]}
    trainer = trainer_with(
        loss_types=[kind], loss_weights=[1.0], beta=0.3, label_smoothing=smoothing, ld_alpha=None, precompute_ref_logps=True, aux_loss_enabled=False,
        f_divergence_type="reverse_kl", use_weighting=False,
    )  # fmt: skip

    theirs = DPOTrainer._compute_loss(trainer, model, inputs, return_outputs=False)

    ours, _ = loss_of(OBJECTIVES.parse({"type": "dpo", "loss_type": kind, "label_smoothing": smoothing, "beta": 0.3}), examples, nll)
    same_loss_and_gradient(ours, theirs, nll)


def test_kto_equals_trl_but_for_the_batch_its_drift_is_taken_over() -> None:
    from trl.trainer.kto_trainer import KTOTrainer

    tags = (1.0, -1.0, 1.0, 1.0, -1.0, -1.0)
    examples, nll, drifting = sequences(tags), nats(), nats(7)
    inputs, model = trl_batch(examples, nll, list(range(6)))
    references = torch.tensor([-e.reference for e in examples], dtype=torch.float64)
    inputs |= {"label": torch.tensor([t > 0 for t in tags]), "ref_logps": references, "ref_KL_logps": references}
    drifts = torch.tensor([sum(p) for p in by_sequence(drifting)], dtype=torch.float64)
    trainer = trainer_with(
        calculate_KL=True, loss_type="kto", beta=0.2, desirable_weight=1.5, undesirable_weight=0.8, aux_loss_enabled=False, precompute_ref_logps=True
    )
    trainer._compute_kl_logps = lambda model, batch: drifts

    theirs = KTOTrainer._compute_loss(trainer, model, inputs, return_outputs=False)

    objective = OBJECTIVES.parse({"type": "kto", "beta": 0.2, "desirable_weight": 1.5, "undesirable_weight": 0.8})
    measured = objective.measure(MODEL, PackedBatch.from_examples(sequences()), lambda model, batch: drifting)
    ours, _ = loss_of(objective, examples, nll, **{name: value.item() for name, value in measured.items()})
    same_loss_and_gradient(ours, theirs, nll)


def test_simpo_equals_trl() -> None:
    pytest.importorskip("trl.experimental.cpo", reason="this TRL has no CPO trainer")
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

    nll = nats()
    means = torch.stack([-part.mean() for part in nll.split([n - p for n, p in zip(LENGTHS, PROMPTS, strict=True)])])
    trainer = SimpleNamespace(alpha=0.0, accelerator=SimpleNamespace(device="cpu"), loss_type="simpo", simpo_gamma=0.7, beta=2.5, label_smoothing=0.0)

    theirs = CPOTrainer.cpo_loss(trainer, means[0::2], means[1::2])[0].mean()

    ours, _ = loss_of(OBJECTIVES.parse({"type": "simpo", "beta": 2.5, "gamma": 0.7}), sequences(), nll)
    same_loss_and_gradient(ours, theirs, nll)


def test_orpo_equals_trl_but_for_the_prompt_in_its_likelihood() -> None:
    """TRL's likelihood term is over prompt and answer; ours, as in the paper, over the answer. The odds ratio is the same."""
    pytest.importorskip("trl.experimental.orpo", reason="this TRL has no ORPO trainer")
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    nll = nats()
    parts = nll.split([n - p for n, p in zip(LENGTHS, PROMPTS, strict=True)])
    means = torch.stack([-part.mean() for part in parts])
    likelihood = sum(part.sum() for part in parts[0::2]) / sum(len(part) for part in parts[0::2])

    theirs = likelihood - ORPOTrainer.odds_ratio_loss(SimpleNamespace(beta=0.4, accelerator=SimpleNamespace(device="cpu")), means[0::2], means[1::2])[0].mean()

    ours, _ = loss_of(OBJECTIVES.parse({"type": "orpo", "weight": 0.4}), sequences(), nll)
    same_loss_and_gradient(ours, theirs, nll, rel=1e-5)  # TRL computes this in float32


@pytest.mark.parametrize(("margin", "centring"), [(0.0, 0.0), (0.5, 0.01)])
def test_the_reward_loss_equals_trl(margin: float, centring: float) -> None:
    from trl.trainer.reward_trainer import RewardTrainer

    scores = torch.tensor([0.3, -0.2, 1.5, 1.7, -0.4, 0.9], dtype=torch.float64, requires_grad=True)
    model = MagicMock(return_value=SimpleNamespace(logits=torch.cat([scores[0::2], scores[1::2]])[:, None]), training=True)
    inputs = {"attention_mask": torch.ones(6, 3, dtype=torch.long)} | ({"margin": torch.full((3,), margin)} if margin else {})
    trainer = trainer_with(args=SimpleNamespace(center_rewards_coefficient=centring or None))

    theirs = RewardTrainer.compute_loss(trainer, model, inputs)

    ours, _ = loss_of(OBJECTIVES.parse({"type": "reward", "margin": margin, "centring": centring}), sequences(), scores)
    same_loss_and_gradient(ours, theirs, scores)
