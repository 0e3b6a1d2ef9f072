"""Which rows the fused decoder computes: every token of a packed batch, but a beginning that several examples share only once.

The hidden states of a beginning depend on nothing behind it, so the two answers to one prompt, or conversations under one
system message, can read the same ones: exact, with less work. Gradients of all readers add up in the shared rows.

Shapes: T rows, L label tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from danlu.training.batch import PackedBatch
from danlu.training.kernels import sizes
from danlu.training.kernels.attention import Span, spans_of

MIN_SHARED = 32
"""A common beginning of fewer tokens is computed again: more and smaller products of attention would cost as much."""


@dataclass(frozen=True)
class Layout:
    """Rows, and what each of them sees."""

    ids_T: Tensor
    positions_T: Tensor
    spans: tuple[Span, ...]
    rows_L: Tensor
    """Rows whose next token is trained on, none twice, and behind them the last row (which nobody reads) as often as it takes."""
    places_L: Tensor | None = None
    """Which of `rows_L` belongs to each label; None where there is one for each."""

    def filled(self) -> Layout:
        """The same with rows behind it that nobody reads, in numbers that come again."""
        num_tokens, num_labels, device = len(self.ids_T), len(self.rows_L), self.ids_T.device
        if sizes.filled(num_tokens, device) == num_tokens and sizes.filled(num_labels, device) == num_labels:
            return self
        count = sizes.filled(num_tokens + 1, device)
        fill = self.rows_L.new_full((sizes.filled(num_labels, device) - num_labels,), count - 1)
        places = torch.arange(num_labels) if self.places_L is None else self.places_L
        return Layout(sizes.with_rows(self.ids_T, count), sizes.with_rows(self.positions_T, count), self.spans, torch.cat([self.rows_L, fill]), places)


def layout_of(batch: PackedBatch, *, may_share: bool = True) -> Layout:
    """The rows of `batch`, common beginnings once unless that is forbidden."""
    shared = _Shared(batch) if may_share and not batch.has_own_rows and len(batch.lengths) > 1 else None
    if shared is None or shared.num_rows == len(batch.ids_T):
        return Layout(batch.ids_T, batch.positions_T, spans_of(batch.lengths), batch.label_rows_L).filled()
    kept = torch.from_numpy(np.concatenate(shared.kept))
    row_of = torch.from_numpy(shared.row_of)
    rows, places = torch.unique(row_of[batch.label_rows_L], return_inverse=True)
    return Layout(batch.ids_T[kept], batch.positions_T[kept], tuple(shared.spans), rows, places).filled()


@dataclass
class _Shared:
    """A tree of common beginnings, laid out from its root."""

    batch: PackedBatch
    num_rows: int = 0
    kept: list[np.ndarray] = field(default_factory=list)
    """Tokens of the batch that get a row, in the order of the rows."""
    spans: list[Span] = field(default_factory=list)

    def __post_init__(self) -> None:
        ids = self.batch.ids_T.numpy()
        self.row_of = np.zeros(len(ids), np.int64)
        """The row of each token of the batch."""
        ends = np.cumsum(self.batch.lengths)
        starts = ends - self.batch.lengths
        texts = [ids[start:end] for start, end in zip(starts, ends, strict=True)]
        # As big-endian bytes texts sort by their tokens, so that those with the same beginning are neighbours.
        order = sorted(range(len(texts)), key=lambda i: texts[i].astype(">u8").tobytes())
        self.lengths = [len(texts[i]) for i in order]
        self.starts = [int(starts[i]) for i in order]
        self.common = [_num_common(texts[one], texts[other]) for one, other in pairwise(order)]
        self._lay(0, len(order), 0, ())

    def _lay(self, first: int, last: int, depth: int, before: tuple[tuple[int, int], ...]) -> None:
        """Lay out texts `first` to `last - 1`, whose first `depth` tokens stand in the rows `before`."""
        least = self.lengths[first] if last - first == 1 else min(self.common[first : last - 1])
        if last - first == 1 or least - depth >= MIN_SHARED:
            before = self._add(range(first, last), depth, least, before)
            depth = least
        if last - first == 1:
            return
        cuts = [first, *(i + 1 for i in range(first, last - 1) if self.common[i] == least), last]
        for begin, end in pairwise(cuts):
            self._lay(begin, end, depth, before)

    def _add(self, texts: Sequence[int], begin: int, end: int, before: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        """Give tokens `begin` to `end - 1` of the texts, which are the same, rows; return what stands before the next ones."""
        if begin == end:
            return before
        own = (self.num_rows, self.num_rows + end - begin)
        self.spans.append(Span(*own, before))
        self.num_rows = own[1]
        for number, text in enumerate(texts):
            tokens = np.arange(self.starts[text] + begin, self.starts[text] + end)
            self.row_of[tokens] = np.arange(*own)
            if number == 0:
                self.kept.append(tokens)
        return (*before, own)


def _num_common(one: np.ndarray, other: np.ndarray) -> int:
    """Tokens at the beginning that are the same."""
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length
