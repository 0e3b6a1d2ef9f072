"""Root-mean-square norm and rotary positions, forward and backward, with as few passes over memory as PyTorch allows.

Shapes: any leading axes, D last; for rotations T tokens, H heads, C head width, c = C / 2.
Reference: Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4; Su et al. 2021, arXiv:2104.09864, eq. 34 (halves layout).
"""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the normed x and 1 / rms [..., 1], which the backward pass wants."""
    inverse_rms = inverse_rms_of(x, eps)
    return rms_norm_again(x, weight_D, inverse_rms), inverse_rms


def inverse_rms_of(x: Tensor, eps: float) -> Tensor:
    """1 / rms of each row [..., 1]."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def rms_norm_again(x: Tensor, weight_D: Tensor, inverse_rms: Tensor) -> Tensor:
    """The normed x, from the 1 / rms kept of the first time."""
    return (x * inverse_rms).mul_(weight_D)


def rms_norm_backward(dy: Tensor, x: Tensor, weight_D: Tensor, inverse_rms: Tensor, *, needs_weight: bool) -> tuple[Tensor, Tensor | None]:
    """Return dx, made in the memory of `dy`, and the weight's gradient [D]."""
    d_weight = (dy * x).mul_(inverse_rms).reshape(-1, x.shape[-1]).sum(0) if needs_weight else None
    dy.mul_(weight_D)
    along = (dy * x).mean(-1, keepdim=True).mul_(inverse_rms).mul_(inverse_rms).mul_(inverse_rms)
    return dy.mul_(inverse_rms).addcmul_(x, along, value=-1), d_weight


def rotate(x_THC: Tensor, cos_T1c: Tensor, sin_T1c: Tensor) -> Tensor:
    """Rotate each pair (x[i], x[i + c]) by its angle; with -sin this is the backward pass. A new contiguous tensor."""
    out_THC = torch.empty_like(x_THC, memory_format=torch.contiguous_format)
    (x1, x2), (out1, out2) = x_THC.chunk(2, -1), out_THC.chunk(2, -1)
    torch.mul(x1, cos_T1c, out=out1).addcmul_(x2, sin_T1c, value=-1)
    torch.mul(x2, cos_T1c, out=out2).addcmul_(x1, sin_T1c)
    return out_THC
