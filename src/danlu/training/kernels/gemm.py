"""Matrix products of the fast path, on the faster of the two libraries inside PyTorch.

On AMD processors MKL takes its AVX2 code even where AVX-512 is at hand, and oneDNN does not: there the same float32
product takes half the time (docs/performance.md). Which library is used is a function of the machine and the operand
types alone, never of a measurement, so that a resumed run computes bitwise what it would have computed.

Shapes: M rows, K summed over, N columns.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor


@cache
def has_fast_onednn() -> bool:
    """Whether oneDNN is the faster float32 library here: an AVX-512 processor that MKL does not take for one."""
    try:
        is_amd = "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        is_amd = False
    return is_amd and has_onednn() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def has_onednn() -> bool:
    """Whether PyTorch was built with oneDNN's linear product."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _takes_onednn(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu" and x.shape[0] > 0 and has_fast_onednn()


def nt(x_MK: Tensor, w_NK: Tensor, bias_N: Tensor | None = None, add_MN: Tensor | None = None) -> Tensor:
    """x w^T (+ bias) (+ add), a new tensor [M, N]."""
    if _takes_onednn(x_MK):
        if add_MN is None:
            return torch.ops.mkldnn._linear_pointwise(x_MK, w_NK, bias_N, "none", [], "")
        return torch.ops.mkldnn._linear_pointwise.binary(x_MK, add_MN, w_NK, bias_N, "add")
    if add_MN is None:
        return torch.nn.functional.linear(x_MK, w_NK, bias_N)
    y_MN = torch.addmm(add_MN, x_MK, w_NK.T)
    return y_MN if bias_N is None else y_MN.add_(bias_N)


def nn(x_MN: Tensor, w_NK: Tensor, add_MK: Tensor | None = None) -> Tensor:
    """x w (+ add), a new tensor [M, K]."""
    return nt(x_MN, w_NK.T, None, add_MK)


def tn(x_MN: Tensor, y_MK: Tensor) -> Tensor:
    """x^T y, a new contiguous tensor [N, K]: what weight gradients are made of. The narrower operand is copied."""
    if not _takes_onednn(x_MN):
        return torch.mm(x_MN.T, y_MK)
    # For columns cut out of a wider matrix oneDNN has only its reference code, a thousand times slower.
    x_MN, y_MK = x_MN.contiguous(), y_MK.contiguous()
    if x_MN.shape[1] <= y_MK.shape[1]:
        return nt(x_MN.T.contiguous(), y_MK.T)
    return nt(y_MK.T.contiguous(), x_MN.T).T.contiguous()
