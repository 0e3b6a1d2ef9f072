"""What the loop asks of an objective, whatever the loss is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol

from torch import Tensor, nn

from danlu.data.pack import EncodedExample
from danlu.training.batch import PackedBatch

NllFunction = Callable[[nn.Module, PackedBatch], Tensor]
"""Negative log-likelihood in nats of each label token of a batch [L]."""


class Objective(Protocol):
    """One loss. It is a sum over sequences divided by totals of the whole step, so that micro batches never change it."""

    group_size: ClassVar[int]
    has_reference: ClassVar[bool]

    def totals(self, sequences: Sequence[EncodedExample]) -> dict[str, float]:
        """What the loss is divided by, counted over all sequences of the step (on every device)."""

    def loss(self, model: nn.Module, batch: PackedBatch, totals: Mapping[str, float], nll: NllFunction) -> tuple[Tensor, dict[str, Tensor]]:
        """The batch's part of the loss of the step, and its part of every other number that is logged."""


def num_label_tokens(sequences: Sequence[EncodedExample]) -> int:
    """Tokens that are predicted and trained on; a sequence's first token is predicted from nothing."""
    return sum(int(sequence.mask[1:].sum()) for sequence in sequences)
