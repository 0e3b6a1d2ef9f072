"""What the loop asks of an objective, whatever the loss is, and what the losses share.

Shapes: N sequences of a batch, P pairs (N = 2P: chosen and rejected in turn), L label tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from danlu.data.pack import EncodedExample
from danlu.training.batch import PackedBatch

NllFunction = Callable[[nn.Module, PackedBatch], Tensor]
"""Negative log-likelihood in nats of each label token of a batch [L]."""


class Objective(Protocol):
    """One loss. It is a sum over sequences divided by totals of the whole step, so that micro batches never change it."""

    group_size: ClassVar[int]
    has_reference: ClassVar[bool]
    weighs_rows: ClassVar[bool]

    def totals(self, sequences: Sequence[EncodedExample]) -> dict[str, float]:
        """What the loss is divided by, counted over all sequences of the step (on every device)."""

    def loss(self, model: nn.Module, batch: PackedBatch, totals: Mapping[str, float], nll: NllFunction) -> tuple[Tensor, dict[str, Tensor]]:
        """The batch's part of the loss of the step, and its part of every other number that is logged."""


class MeasuringObjective(Objective, Protocol):
    """An objective whose loss depends on a number of the whole step that only the model can tell (kto: its drift)."""

    def split(self, group: Sequence[EncodedExample]) -> tuple[list[EncodedExample], list[EncodedExample]]:
        """The sequences of a group that are trained on, and those that are only measured."""

    def measure(self, model: nn.Module, batch: PackedBatch, nll: NllFunction) -> dict[str, Tensor]:
        """The batch's part of the totals, from sequences that are only measured; called without gradient, before the loss."""


def num_label_tokens(sequences: Sequence[EncodedExample]) -> int:
    """Tokens that are predicted and trained on; a sequence's first token is predicted from nothing."""
    return sum(int(sequence.mask[1:].sum()) for sequence in sequences)


def weight_of_labels(sequences: Sequence[EncodedExample]) -> float:
    """Label tokens, each counted with its weight."""
    return sum(float(s.mask[1:].sum() if s.weights is None else s.weights[1:][s.mask[1:]].sum(dtype="float64")) for s in sequences)


def log_likelihoods(nll_L: Tensor, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """Log-likelihood in nats of each sequence's label tokens, summed in float64, and their number, both [N]; differentiable."""
    sums = torch.zeros(len(batch.lengths), dtype=torch.float64, device=nll_L.device)
    sums = sums.index_add(0, batch.row_example_L, -nll_L.double())
    return sums, torch.bincount(batch.row_example_L, minlength=len(batch.lengths)).clamp_min(1)


def in_pairs(values_N: Tensor) -> tuple[Tensor, Tensor]:
    """What belongs to the chosen and to the rejected sequences, both [P]."""
    return values_N[0::2], values_N[1::2]


def encode_pairs(examples: Sequence[dict[str, Any]], renderer: Any) -> list[list[EncodedExample]]:
    """Chosen and rejected sequence of each preference example; only tokens after the shared prompt are trained on."""
    chats = [renderer.render_completion(e["messages"], e[key], e.get("tools")) for e in examples for key in ("chosen", "rejected")]
    encoded = renderer.encode(chats)
    return [list(pair) for pair in zip(encoded[0::2], encoded[1::2], strict=True)]


def reward_numbers(chosen_P: Tensor, rejected_P: Tensor, num_pairs: float) -> dict[str, Tensor]:
    """The numbers that are logged of the (implicit) rewards of pairs, as parts of the step's means."""
    chosen_P, rejected_P = chosen_P.detach(), rejected_P.detach()
    return {
        "reward_accuracy": (chosen_P > rejected_P).double().sum() / num_pairs,
        "reward_margin": (chosen_P - rejected_P).sum() / num_pairs,
        "reward_chosen": chosen_P.sum() / num_pairs,
        "reward_rejected": rejected_P.sum() / num_pairs,
    }
