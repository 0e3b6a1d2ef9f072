"""Sizes that come again.

oneDNN compiles a matrix product for every new shape, which takes up to a millisecond and half a megabyte that it keeps. Packed
batches bring new numbers of rows all the time, so rows of zeros fill them up to a few sizes. What one batch has freed then
fits the next one, too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from danlu.models.memory import filled_rows
from danlu.training.kernels import gemm


def filled(count: int, device: torch.device) -> int:
    """The size that stands for `count` rows; `count` itself where shapes cost nothing."""
    return filled_rows(count) if device.type == "cpu" and gemm.has_fast_onednn() else count


def with_rows(x: Tensor, count: int) -> Tensor:
    """`x` with rows of zeros behind it, `count` in all."""
    return x if len(x) == count else torch.cat([x, x.new_zeros(count - len(x), *x.shape[1:])])
