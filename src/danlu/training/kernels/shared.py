"""Several adapters over one frozen linear layer in one pass, for architectures whose layers are not fused as a whole (projection.py does that).

The base product is computed once over all rows, where small batches of single runs would leave it waiting for the weights;
the low-rank products are computed per stretch, with its own matrices, rank and scale, which may be of another type.

Shapes: T rows of all adapters, S rows of one stretch, K input width, N output width, R rank of one adapter.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from danlu.training.kernels import gemm
from danlu.training.kernels.lora import FusedLoraLinear
from danlu.training.kernels.projection import stretches


class SharedLoraLinear(FusedLoraLinear):
    """PEFT's LoRA layer with several adapters, each of which sees its own rows only (inside `rows_of`)."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """W x + b, and s_k B_k A_k x in the rows of adapter k."""
        of_batch = stretches()
        if of_batch is None:
            return super().forward(x, *args, **kwargs)
        own = [stretch for stretch in of_batch if stretch[0] in self.lora_A]
        spans = tuple((start, stop, float(self.scaling[name])) for name, start, stop in own)
        pairs = [layer[name].weight for name, _, _ in own for layer in (self.lora_A, self.lora_B)]
        base = self.base_layer
        y_TN = _SharedProjection.apply(x.reshape(-1, x.shape[-1]), base.weight, base.bias, spans, *pairs)
        return y_TN.view(*x.shape[:-1], -1)


class _SharedProjection(torch.autograd.Function):
    """Keeps x once and x A^T per stretch; the base weight is frozen and costs no gradient."""

    @staticmethod
    def forward(ctx: Any, x_TK: Tensor, weight_NK: Tensor, bias_N: Tensor | None, spans: tuple[tuple[int, int, float], ...], *pairs: Tensor) -> Tensor:
        y_TN = gemm.nt(x_TK, weight_NK, bias_N)
        kept = []
        for (start, stop, scale), a_RK, b_NR in zip(spans, pairs[::2], pairs[1::2], strict=True):
            xa_SR = gemm.nt(x_TK[start:stop].to(a_RK.dtype), a_RK)
            if y_TN.dtype == b_NR.dtype:
                y_TN[start:stop].addmm_(xa_SR, b_NR.T, alpha=scale)
            else:
                y_TN[start:stop] += (xa_SR @ b_NR.T).mul_(scale).to(y_TN.dtype)
            kept.append(xa_SR)
        ctx.spans = spans
        ctx.save_for_backward(x_TK, weight_NK, *pairs, *kept)
        return y_TN

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        (dy_TN,) = grad_outputs
        x_TK, weight_NK, *rest = ctx.saved_tensors
        count = len(ctx.spans)
        pairs, kept = rest[: 2 * count], rest[2 * count :]
        dx_TK = gemm.nn(dy_TN, weight_NK) if ctx.needs_input_grad[0] else None
        grads: list[Tensor | None] = []
        for number, ((start, stop, scale), xa_SR) in enumerate(zip(ctx.spans, kept, strict=True)):
            a_RK, b_NR = pairs[2 * number : 2 * number + 2]
            dy_SN, x_SK = dy_TN[start:stop].to(b_NR.dtype), x_TK[start:stop].to(a_RK.dtype)
            d_xa_SR = gemm.nn(dy_SN, b_NR).mul_(scale)
            if dx_TK is not None and dx_TK.dtype == a_RK.dtype:
                dx_TK[start:stop].addmm_(d_xa_SR, a_RK)
            elif dx_TK is not None:
                dx_TK[start:stop] += (d_xa_SR @ a_RK).to(dx_TK.dtype)
            needs_a, needs_b = ctx.needs_input_grad[4 + 2 * number : 6 + 2 * number]
            grads.append(gemm.tn(d_xa_SR, x_SK) if needs_a else None)
            grads.append(gemm.tn(dy_SN, xa_SR).mul_(scale) if needs_b else None)
        return dx_TK, None, None, None, *grads
