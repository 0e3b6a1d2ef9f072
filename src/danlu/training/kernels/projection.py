"""A linear layer with or without a low-rank adapter, as plain functions: forward, and backward with the least work.

Forward: y = x W^T + b + s (x A^T) B^T. Backward keeps x A^T (rank wide) and nothing else of its own; x belongs to the
caller, who shares it between layers that read the same input. A frozen weight costs no gradient.

Shapes: T tokens, K input width, N output width, R rank.
Reference: Hu et al. 2021, arXiv:2106.09685, eq. 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from danlu.training.kernels import gemm

NUM_TENSORS = 4
Needs = Sequence[bool]
"""Which of (weight, bias, A, B) want a gradient."""


@dataclass(frozen=True)
class Projection:
    """The tensors of one linear layer."""

    weight_NK: Tensor
    bias_N: Tensor | None
    a_RK: Tensor | None = None
    b_NR: Tensor | None = None
    scale: float = 1.0

    @classmethod
    def of(cls, tensors: Sequence[Tensor | None], scale: float) -> Projection:
        """The inverse of `tensors`."""
        weight_NK, bias_N, a_RK, b_NR = tensors
        assert weight_NK is not None
        return cls(weight_NK, bias_N, a_RK, b_NR, scale)

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """The tensors in the order autograd sees them."""
        return (self.weight_NK, self.bias_N, self.a_RK, self.b_NR)


def projection_of(module: nn.Module) -> Projection | None:
    """The tensors of `module`, or None when it computes something that this kernel does not (then use its forward)."""
    if type(module) is nn.Linear:
        return Projection(module.weight, module.bias)
    from peft.tuners.lora import Linear as LoraLinear

    base = getattr(module, "base_layer", None)
    if not isinstance(module, LoraLinear) or type(base) is not nn.Linear or module.merged:
        return None
    active = [] if module.disable_adapters else [name for name in module.active_adapters if name in module.lora_A]
    if not active:
        return Projection(base.weight, base.bias)
    name = active[0]
    dropout = module.lora_dropout[name]
    is_plain = len(active) == 1 and name not in module.lora_variant and not module.lora_bias[name]
    is_plain = is_plain and (isinstance(dropout, nn.Identity) or not module.training or getattr(dropout, "p", 1.0) == 0.0)
    a_RK, b_NR = module.lora_A[name].weight, module.lora_B[name].weight
    if not is_plain or not a_RK.dtype == b_NR.dtype == base.weight.dtype:
        return None
    return Projection(base.weight, base.bias, a_RK, b_NR, float(module.scaling[name]))


def project(x_TK: Tensor, projection: Projection, add_TN: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Return y (+ add) [T, N] and x A^T [T, R]."""
    y_TN = gemm.nt(x_TK, projection.weight_NK, projection.bias_N, add_TN)
    if projection.a_RK is None or projection.b_NR is None:
        return y_TN, None
    xa_TR = gemm.nt(x_TK, projection.a_RK)
    y_TN.addmm_(xa_TR, projection.b_NR.T, alpha=projection.scale)
    return y_TN, xa_TR


def project_backward(
    dy_TN: Tensor, x_TK: Tensor, xa_TR: Tensor | None, projection: Projection, needs: Needs, *, needs_dx: bool, add_TK: Tensor | None = None
) -> tuple[Tensor | None, tuple[Tensor | None, ...]]:
    """Return dx (+ add) [T, K], None when not wanted, and the gradients of (weight, bias, A, B)."""
    dx_TK = gemm.nn(dy_TN, projection.weight_NK, add_TK) if needs_dx else None
    d_weight = gemm.tn(dy_TN, x_TK) if needs[0] else None
    d_bias = dy_TN.sum(0) if needs[1] else None
    d_a = d_b = None
    if projection.a_RK is not None and projection.b_NR is not None and xa_TR is not None:
        if needs_dx or needs[2]:
            d_xa_TR = gemm.nn(dy_TN, projection.b_NR).mul_(projection.scale)
            d_a = gemm.tn(d_xa_TR, x_TK) if needs[2] else None
            if dx_TK is not None:
                dx_TK.addmm_(d_xa_TR, projection.a_RK)
        d_b = gemm.tn(dy_TN, xa_TR).mul_(projection.scale) if needs[3] else None
    return dx_TK, (d_weight, d_bias, d_a, d_b)


def split_needs(flags: Sequence[bool], index: int) -> Needs:
    """The flags of projection `index` in a flat row of flags."""
    return flags[index * NUM_TENSORS : (index + 1) * NUM_TENSORS]


def rebuild(tensors: Sequence[Tensor | None], scales: Sequence[float]) -> list[Projection]:
    """Projections from the flat row of tensors that autograd handed over."""
    groups = [tensors[i * NUM_TENSORS : (i + 1) * NUM_TENSORS] for i in range(len(scales))]
    return [Projection.of(group, scale) for group, scale in zip(groups, scales, strict=True)]


class ProjectionFunction(torch.autograd.Function):
    """One projection for architectures whose layers are not fused as a whole."""

    @staticmethod
    def forward(ctx: Any, x_TK: Tensor, scale: float, *tensors: Tensor | None) -> Tensor:
        projection = Projection.of(tensors, scale)
        y_TN, xa_TR = project(x_TK, projection)
        ctx.scale = scale
        ctx.save_for_backward(x_TK, xa_TR, *tensors)
        return y_TN

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (dy_TN,) = grad_outputs
        x_TK, xa_TR, *tensors = ctx.saved_tensors
        needs = ctx.needs_input_grad
        dx_TK, gradients = project_backward(dy_TN, x_TK, xa_TR, Projection.of(tensors, ctx.scale), needs[2:], needs_dx=needs[0])
        return dx_TK, None, *gradients
