"""A linear layer with or without a low-rank adapter, as plain functions: forward, and backward with the least work.

Forward: y = x W^T + b + s (x A^T) B^T. Backward keeps x A^T (rank wide) and nothing else of its own; x belongs to the
caller, who shares it between layers that read the same input. A frozen weight costs no gradient, and may be one that
is multiplied in 8-bit integers (int8.py): then `weight_NK` is None.

Shapes: T tokens, K input width, N output width, R rank, S sum of the ranks of layers that read the same input.
Reference: Hu et al. 2021, arXiv:2106.09685, eq. 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from danlu.training.kernels import gemm, int8

NUM_TENSORS = 4
Needs = Sequence[bool]
"""Which of (weight, bias, A, B) want a gradient."""


@dataclass(frozen=True)
class Projection:
    """The tensors of one linear layer."""

    weight_NK: Tensor | None
    bias_N: Tensor | None
    a_RK: Tensor | None = None
    b_NR: Tensor | None = None
    scale: float = 1.0
    rounded: int8.Int8Weight | None = None

    def with_tensors(self, tensors: Sequence[Tensor | None]) -> Projection:
        """The same layer with the tensors that autograd handed over."""
        weight_NK, bias_N, a_RK, b_NR = tensors
        return Projection(weight_NK, bias_N, a_RK, b_NR, self.scale, self.rounded)

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """The tensors in the order autograd sees them."""
        return (self.weight_NK, self.bias_N, self.a_RK, self.b_NR)


def projection_of(module: nn.Module) -> Projection | None:
    """The tensors of `module`, or None when it computes something that this kernel does not (then use its forward)."""
    plain = _plain(module)
    if plain is not None:
        return plain
    from peft.tuners.lora import Linear as LoraLinear

    base = _plain(getattr(module, "base_layer", None))
    if not isinstance(module, LoraLinear) or base is None or module.merged:
        return None
    active = [] if module.disable_adapters else [name for name in module.active_adapters if name in module.lora_A]
    if not active:
        return base
    name = active[0]
    dropout = module.lora_dropout[name]
    is_plain = len(active) == 1 and name not in module.lora_variant and not module.lora_bias[name]
    is_plain = is_plain and (isinstance(dropout, nn.Identity) or not module.training or getattr(dropout, "p", 1.0) == 0.0)
    a_RK, b_NR = module.lora_A[name].weight, module.lora_B[name].weight
    dtype = torch.float32 if base.weight_NK is None else base.weight_NK.dtype
    if not is_plain or not a_RK.dtype == b_NR.dtype == dtype:
        return None
    return replace(base, a_RK=a_RK, b_NR=b_NR, scale=float(module.scaling[name]))


def _plain(module: Any) -> Projection | None:
    """A linear layer without adapter, or None for anything else."""
    if type(module) is nn.Linear:
        return Projection(module.weight, module.bias)
    if type(module) is int8.Int8Linear:
        return Projection(None, module.bias, rounded=module.weight_int8)
    return None


def project(x_TK: Tensor, projection: Projection, add_TN: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Return y (+ add) [T, N] and x A^T [T, R]."""
    (y_TN,), xa_TR = project_all(x_TK, (projection,), add_TN)
    return y_TN, xa_TR


def project_all(x_TK: Tensor, projections: Sequence[Projection], add_TN: Tensor | None = None) -> tuple[list[Tensor], Tensor | None]:
    """Return y (+ add) of each layer that reads x, and x A^T of all of them side by side [T, S], None without adapters."""
    rounded = int8.quantise_rows(x_TK) if any(p.rounded is not None for p in projections) else None
    outputs = [_frozen(x_TK, rounded, projection, add_TN) for projection in projections]
    stacked_SK = _stacked(projections)
    if stacked_SK is None:
        return outputs, None
    xa_TS = gemm.nt(x_TK, stacked_SK)
    for y_TN, projection, xa_TR in zip(outputs, projections, _parts(xa_TS, projections), strict=True):
        if xa_TR is not None and projection.b_NR is not None:
            y_TN.addmm_(xa_TR, projection.b_NR.T, alpha=projection.scale)
    return outputs, xa_TS


def _frozen(x_TK: Tensor, rounded: int8.Rounded | None, projection: Projection, add_TN: Tensor | None) -> Tensor:
    """x W^T + b (+ add) [T, N]."""
    if projection.rounded is not None:
        assert rounded is not None
        return int8.nt(rounded, projection.rounded, projection.bias_N, add_TN)
    assert projection.weight_NK is not None
    return gemm.nt(x_TK, projection.weight_NK, projection.bias_N, add_TN)


def _stacked(projections: Sequence[Projection]) -> Tensor | None:
    """All A matrices below each other [S, K]: one product in place of several narrow ones."""
    matrices = [p.a_RK for p in projections if p.a_RK is not None]
    return None if not matrices else matrices[0] if len(matrices) == 1 else torch.cat(matrices)


def _parts(xa_TS: Tensor, projections: Sequence[Projection]) -> list[Tensor | None]:
    """The columns of each projection, None for those without an adapter."""
    widths = [0 if p.a_RK is None else len(p.a_RK) for p in projections]
    return [part if width else None for part, width in zip(xa_TS.split(widths, 1), widths, strict=True)]


def project_backward(
    dy_TN: Tensor, x_TK: Tensor, xa_TR: Tensor | None, projection: Projection, needs: Needs, *, needs_dx: bool
) -> tuple[Tensor | None, tuple[Tensor | None, ...]]:
    """Return dx [T, K], None when not wanted, and the gradients of (weight, bias, A, B)."""
    dx_TK, gradients = project_all_backward((dy_TN,), x_TK, xa_TR, (projection,), needs, needs_dx=needs_dx)
    return dx_TK, tuple(gradients)


def project_all_backward(
    dys: Sequence[Tensor], x_TK: Tensor, xa_TS: Tensor | None, projections: Sequence[Projection], needs: Needs, *, needs_dx: bool
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Return dx [T, K], summed over the layers, and the flat row of their gradients; `needs` is a flat row too."""
    dx_TK = None
    if needs_dx:
        for dy_TN, projection in zip(dys, projections, strict=True):
            dx_TK = _input_gradient(dy_TN, projection, dx_TK)
    gradients: list[Tensor | None] = []
    for index, dy_TN in enumerate(dys):
        of_weight, of_bias = split_needs(needs, index)[:2]
        gradients += [gemm.tn(dy_TN, x_TK) if of_weight else None, dy_TN.sum(0) if of_bias else None, None, None]
    stacked_SK = _stacked(projections)
    if stacked_SK is None or xa_TS is None:
        return dx_TK, gradients
    adapted = [(index, p, part) for index, (p, part) in enumerate(zip(projections, _parts(xa_TS, projections), strict=True)) if part is not None]
    if needs_dx or any(split_needs(needs, index)[2] for index, _, _ in adapted):
        columns = [gemm.nn(dys[index], p.b_NR).mul_(p.scale) for index, p, _ in adapted]  # type: ignore[arg-type]
        d_xa_TS = columns[0] if len(columns) == 1 else torch.cat(columns, 1)
        rows_SK = gemm.tn(d_xa_TS, x_TK).split([column.shape[1] for column in columns])
        for (index, _, _), rows_RK in zip(adapted, rows_SK, strict=True):
            gradients[index * NUM_TENSORS + 2] = rows_RK if split_needs(needs, index)[2] else None
        if dx_TK is not None:
            dx_TK.addmm_(d_xa_TS, stacked_SK)
    for index, p, part in adapted:
        gradients[index * NUM_TENSORS + 3] = gemm.tn(dys[index], part).mul_(p.scale) if split_needs(needs, index)[3] else None
    return dx_TK, gradients


def _input_gradient(dy_TN: Tensor, projection: Projection, add_TK: Tensor | None) -> Tensor:
    """dy W (+ add) [T, K]."""
    if projection.rounded is not None:
        return int8.nn(dy_TN, projection.rounded, add_TK)
    assert projection.weight_NK is not None
    return gemm.nn(dy_TN, projection.weight_NK, add_TK)


def split_needs(flags: Sequence[bool], index: int) -> Needs:
    """The flags of projection `index` in a flat row of flags."""
    return flags[index * NUM_TENSORS : (index + 1) * NUM_TENSORS]


def rebuild(tensors: Sequence[Tensor | None], projections: Sequence[Projection]) -> list[Projection]:
    """`projections` with the flat row of tensors that autograd handed over."""
    return [p.with_tensors(tensors[i * NUM_TENSORS : (i + 1) * NUM_TENSORS]) for i, p in enumerate(projections)]


class ProjectionFunction(torch.autograd.Function):
    """One projection for architectures whose layers are not fused as a whole."""

    @staticmethod
    def forward(ctx: Any, x_TK: Tensor, projection: Projection, *tensors: Tensor | None) -> Tensor:
        y_TN, xa_TR = project(x_TK, projection.with_tensors(tensors))
        ctx.projection = projection
        ctx.save_for_backward(x_TK, xa_TR, *tensors)
        return y_TN

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (dy_TN,) = grad_outputs
        x_TK, xa_TR, *tensors = ctx.saved_tensors
        needs = ctx.needs_input_grad
        dx_TK, gradients = project_backward(dy_TN, x_TK, xa_TR, ctx.projection.with_tensors(tensors), needs[2:], needs_dx=needs[0])
        return dx_TK, None, *gradients
