"""Room for a prompt before each example of a packed batch.

Shapes: V virtual tokens, T tokens of all examples, N examples, D width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from danlu.training.batch import PackedBatch


def with_room(batch: PackedBatch, num_virtual: int) -> PackedBatch:
    """The batch with `num_virtual` rows (of token 0) before each example."""
    lengths = tuple(length + num_virtual for length in batch.lengths)
    device = batch.ids_T.device
    positions_T = torch.cat([torch.arange(length, device=device) for length in lengths])
    ids_T = torch.zeros_like(positions_T)
    ids_T[positions_T >= num_virtual] = batch.ids_T
    return replace(batch, ids_T=ids_T, positions_T=positions_T, lengths=lengths, label_rows_L=batch.label_rows_L + num_virtual * (batch.row_example_L + 1))


def put_before(prompt_VD: Tensor, tokens_TD: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Lay the prompt before each example [T + N V, D]."""
    prompt_VD = prompt_VD.to(tokens_TD.dtype)
    return torch.cat([piece for example in tokens_TD.split(lengths) for piece in (prompt_VD, example)])
