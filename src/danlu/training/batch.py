"""Micro batches: what one forward pass gets.

Shapes: N examples, T tokens of all examples laid end to end, L label rows (positions whose next token is trained on).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from danlu.data.pack import EncodedExample


@dataclass(frozen=True)
class PackedBatch:
    """Examples laid end to end, without padding."""

    ids_T: Tensor
    positions_T: Tensor
    """Position inside the own example: attention never crosses examples."""
    lengths: tuple[int, ...]
    """Tokens of each example; they sum to T."""
    label_rows_L: Tensor
    """Rows t whose next token t+1 is trained on."""
    labels_L: Tensor
    """The token to predict at each label row."""
    row_example_L: Tensor
    """Which example (0..N-1) each label row belongs to."""
    tags_N: Tensor
    references_N: Tensor
    """Tag and reference nats of each example (`EncodedExample`), float64."""
    weights_L: Tensor | None = None
    """How much each label token counts, float32; None when all count the same."""
    old_nats_L: Tensor | None = None
    reference_nats_L: Tensor | None = None
    """Nats of each label token when it was written, and under the reference model (`EncodedExample`), float32."""
    has_own_rows: bool = False
    """Whether each example is computed by itself even where it begins like another one (layout.py): their rows differ."""

    @classmethod
    def from_examples(cls, examples: Sequence[EncodedExample], device: torch.device | str = "cpu") -> PackedBatch:
        """Lay `examples` end to end."""
        lengths = tuple(len(e.ids) for e in examples)
        ids = np.concatenate([e.ids for e in examples]).astype(np.int64)
        positions = np.concatenate([np.arange(n) for n in lengths])
        mask = np.concatenate([np.asarray(e.mask) for e in examples])
        predicted = mask & (positions > 0)  # the first token of an example is predicted from nothing
        targets = np.flatnonzero(predicted)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        tensors = [torch.from_numpy(a).to(device) for a in (ids, positions, targets - 1, ids[targets], owner[targets])]
        tags, references = (torch.tensor(values, dtype=torch.float64, device=device) for values in ([e.tag for e in examples], [e.reference for e in examples]))
        weights = None
        if any(e.weights is not None for e in examples):
            every = np.concatenate([np.ones(len(e.ids), np.float32) if e.weights is None else e.weights for e in examples])
            weights = torch.from_numpy(every[targets]).to(device)
        old, reference = (_joined(parts, device) for parts in ([e.old_nats for e in examples], [e.reference_nats for e in examples]))
        return cls(tensors[0], tensors[1], lengths, tensors[2], tensors[3], tensors[4], tags, references, weights, old, reference)

    @property
    def num_label_tokens(self) -> int:
        """Trained tokens in the batch (L)."""
        return int(self.labels_L.numel())

    def padded(self, pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
        """The same batch as (ids, attention mask, labels), each [N, longest]; labels are -100 where not trained on."""
        width = max(self.lengths)
        ids = self.ids_T.new_full((len(self.lengths), width), pad_id)
        attention = torch.zeros_like(ids)
        labels = torch.full_like(ids, -100)
        flat = torch.full_like(self.ids_T, -100)
        flat[self.label_rows_L + 1] = self.labels_L
        start = 0
        for row, length in enumerate(self.lengths):
            ids[row, :length] = self.ids_T[start : start + length]
            attention[row, :length] = 1
            labels[row, :length] = flat[start : start + length]
            start += length
        return ids, attention, labels


def _joined(parts: Sequence[np.ndarray | None], device: torch.device | str) -> Tensor | None:
    """Values of the label tokens of all examples, or None when any example has none."""
    known = [part for part in parts if part is not None]
    return torch.from_numpy(np.concatenate(known).astype(np.float32)).to(device) if len(known) == len(parts) else None
