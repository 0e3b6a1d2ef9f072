"""Sizes that come again.

oneDNN compiles a matrix product for every new shape: half a millisecond or more, and 0.44 MB that it keeps. Packed batches
bring new numbers of rows all the time, so rows of zeros fill them up to a few sizes; freed memory then fits the next batch, too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from danlu.training.kernels import gemm

LEAST, MOST = 16, 64
"""Rows are filled up to a multiple of these, and of a sixteenth of their number between them."""


def step(count: int) -> int:
    """What `count` rows are filled up to a multiple of: at most an eighth of the larger numbers."""
    return min(MOST, max(LEAST, 1 << max(0, count.bit_length() - 4)))


def filled(count: int) -> int:
    """The size that stands for `count` rows; `count` itself where shapes cost nothing."""
    return -(-count // step(count)) * step(count) if gemm.has_fast_onednn() else count


def with_rows(x: Tensor, count: int) -> Tensor:
    """`x` with rows of zeros behind it, `count` in all."""
    return x if len(x) == count else torch.cat([x, x.new_zeros(count - len(x), *x.shape[1:])])
