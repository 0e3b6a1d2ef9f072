"""A linear layer with or without a low-rank adapter, as plain functions: forward, and backward with the least work.

Forward: y = x W^T + b + s (x A^T) B^T. Backward keeps x A^T (rank wide) and nothing else of its own; x belongs to the
caller, who shares it between layers that read the same input. A frozen weight costs no gradient, and may be one that
is multiplied in 8-bit integers (int8.py): then `weight_NK` is None.

Several adapters can share one pass over the frozen weight (`rows_of`): the rows of the batch belong to them stretch by stretch, the
frozen product is computed once over all rows, and the low-rank products per stretch, with its own matrices, rank and scale.

Shapes: T tokens, K input width, N output width, R rank, S sum of the ranks of layers that read the same input.
Reference: Hu et al. 2021, arXiv:2106.09685, eq. 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from danlu.training.kernels import gemm, int8

NUM_TENSORS = 4
Needs = Sequence[bool]
"""Which of (weight, bias, A, B) want a gradient."""
Stretch = tuple[str, int, int]
"""(adapter, first row, last row + 1)."""
_stretches: ContextVar[tuple[Stretch, ...] | None] = ContextVar("danlu_stretches", default=None)


@contextmanager
def rows_of(stretches: Sequence[Stretch]) -> Iterator[None]:
    """Say which adapter the rows of the batch belong to, while the context lasts (in this thread)."""
    token = _stretches.set(tuple(stretches))
    try:
        yield
    finally:
        _stretches.reset(token)


def stretches() -> tuple[Stretch, ...] | None:
    """What `rows_of` says, None outside of it."""
    return _stretches.get()


@dataclass(frozen=True)
class Share:
    """The rows of one of several adapters, and where its matrices lie in the stacked ones."""

    start: int
    stop: int
    ranks: slice
    scale: float


@dataclass(frozen=True)
class Projection:
    """The tensors of one linear layer."""

    weight_NK: Tensor | None
    bias_N: Tensor | None
    a_RK: Tensor | None = None
    b_NR: Tensor | None = None
    scale: float = 1.0
    rounded: int8.Int8Weight | None = None
    shares: tuple[Share, ...] = ()
    """Where several adapters share the layer: `a_RK` holds the A matrices of all below each other, `b_NR` their B matrices side by side."""

    def with_tensors(self, tensors: Sequence[Tensor | None]) -> Projection:
        """The same layer with the tensors that autograd handed over."""
        weight_NK, bias_N, a_RK, b_NR = tensors
        return Projection(weight_NK, bias_N, a_RK, b_NR, self.scale, self.rounded, self.shares)

    def at_rows(self, rows_L: Tensor) -> Projection:
        """The same layer for a batch of which only these rows are left, in rising order."""
        if not self.shares:
            return self
        bounds = torch.tensor([(share.start, share.stop) for share in self.shares], device=rows_L.device)
        places = torch.searchsorted(rows_L, bounds).tolist()
        return replace(self, shares=tuple(replace(share, start=start, stop=stop) for share, (start, stop) in zip(self.shares, places, strict=True)))

    def of_share(self, share: Share | None) -> Projection:
        """The layer as one of its adapters sees it; without an adapter where there is no share."""
        if share is None or self.a_RK is None or self.b_NR is None:
            return replace(self, a_RK=None, b_NR=None, shares=())
        # Copied: for columns cut out of a wider matrix oneDNN has only its reference code.
        return replace(self, a_RK=self.a_RK[share.ranks], b_NR=self.b_NR[:, share.ranks].contiguous(), scale=share.scale, shares=())

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
    if _stretches.get() is not None:
        return _shared(module, base, _stretches.get() or ())
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


def _shared(module: Any, base: Projection, stretches: Sequence[Stretch]) -> Projection | None:
    """The layer with every adapter of the batch that it has; None where the matrices are kept in another type."""
    own = [stretch for stretch in stretches if stretch[0] in module.lora_A]
    if not own:
        return base
    a_matrices, b_matrices = ([layers[name].weight for name, _, _ in own] for layers in (module.lora_A, module.lora_B))
    if base.weight_NK is None or any(matrix.dtype != base.weight_NK.dtype for matrix in (*a_matrices, *b_matrices)):
        return None
    ends = list(accumulate(len(matrix) for matrix in a_matrices))
    shares = [
        Share(start, stop, slice(end - len(a_RK), end), float(module.scaling[name]))
        for (name, start, stop), a_RK, end in zip(own, a_matrices, ends, strict=True)
    ]
    return replace(base, a_RK=torch.cat(a_matrices), b_NR=torch.cat(b_matrices, 1), shares=tuple(shares))


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
    kept_TS = None
    for rows, own in _adapters(projections):
        stacked_SK = _stacked(own)
        if stacked_SK is None:
            continue
        xa_TS = gemm.nt(x_TK[rows], stacked_SK)
        for y_TN, projection, xa_TR in zip(outputs, own, _parts(xa_TS, own), strict=True):
            if xa_TR is not None and projection.b_NR is not None:
                y_TN[rows].addmm_(xa_TR, projection.b_NR.T, alpha=projection.scale)
        if own is projections:
            kept_TS = xa_TS
        else:
            kept_TS = xa_TS.new_empty(len(x_TK), _num_ranks(projections)) if kept_TS is None else kept_TS
            kept_TS[rows, : xa_TS.shape[1]] = xa_TS
    return outputs, kept_TS


def _adapters(projections: Sequence[Projection]) -> Iterator[tuple[slice, Sequence[Projection]]]:
    """Each adapter's rows and the layers as it sees them; the layers themselves, with all rows, where there is no more than one."""
    by_rows: dict[tuple[int, int], list[Share | None]] = {}
    for index, projection in enumerate(projections):
        for share in projection.shares:
            by_rows.setdefault((share.start, share.stop), [None] * len(projections))[index] = share
    if not by_rows:
        yield slice(None), projections
    for (start, stop), shares in by_rows.items():
        if stop > start:
            yield slice(start, stop), [projection.of_share(share) for projection, share in zip(projections, shares, strict=True)]


def _num_ranks(projections: Sequence[Projection]) -> int:
    """The ranks of all layers together, of whichever adapter has most; no more than those of all adapters."""
    return sum(max((share.ranks.stop - share.ranks.start for share in projection.shares), default=0) for projection in projections)


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
    return [part if width else None for part, width in zip(xa_TS[:, : sum(widths)].split(widths, 1), widths, strict=True)]


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
    if xa_TS is None:
        return dx_TK, gradients
    for index, projection in enumerate(projections):
        if projection.shares:  # each adapter fills its own part; every part belongs to one
            _, _, of_a, of_b = split_needs(needs, index)
            gradients[index * NUM_TENSORS + 2] = torch.zeros_like(projection.a_RK) if of_a else None  # type: ignore[arg-type]
            gradients[index * NUM_TENSORS + 3] = torch.zeros_like(projection.b_NR) if of_b else None  # type: ignore[arg-type]
    for rows, own in _adapters(projections):
        dx_rows = dx_TK if dx_TK is None else dx_TK[rows]
        found = _low_rank_backward([dy_TN[rows] for dy_TN in dys], x_TK[rows], xa_TS[rows], own, needs, dx_rows)
        for index, (d_a, d_b) in found.items():
            place = index * NUM_TENSORS
            if own is projections:
                gradients[place + 2 : place + 4] = d_a, d_b
                continue
            ranks = next(share.ranks for share in projections[index].shares if share.start == rows.start and share.stop == rows.stop)
            for whole, part, where in ((gradients[place + 2], d_a, (ranks,)), (gradients[place + 3], d_b, (slice(None), ranks))):
                if whole is not None and part is not None:
                    whole[where] = part
    return dx_TK, gradients


def _low_rank_backward(
    dys: Sequence[Tensor], x_TK: Tensor, xa_TS: Tensor, projections: Sequence[Projection], needs: Needs, dx_TK: Tensor | None
) -> dict[int, tuple[Tensor | None, Tensor | None]]:
    """Add what one adapter contributes to dx; return the gradients of its A and B by the number of the layer."""
    adapted = [(index, p, part) for index, (p, part) in enumerate(zip(projections, _parts(xa_TS, projections), strict=True)) if part is not None]
    of_a: dict[int, Tensor] = {}
    if dx_TK is not None or any(split_needs(needs, index)[2] for index, _, _ in adapted):
        columns = [gemm.nn(dys[index], p.b_NR).mul_(p.scale) for index, p, _ in adapted]  # type: ignore[arg-type]
        d_xa_TS = columns[0] if len(columns) == 1 else torch.cat(columns, 1)
        rows_SK = gemm.tn(d_xa_TS, x_TK).split([column.shape[1] for column in columns])
        of_a = {index: rows_RK for (index, _, _), rows_RK in zip(adapted, rows_SK, strict=True) if split_needs(needs, index)[2]}
        if dx_TK is not None:
            dx_TK.addmm_(d_xa_TS, _stacked(projections))  # type: ignore[arg-type]
    return {index: (of_a.get(index), gemm.tn(dys[index], part).mul_(p.scale) if split_needs(needs, index)[3] else None) for index, p, part in adapted}


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
