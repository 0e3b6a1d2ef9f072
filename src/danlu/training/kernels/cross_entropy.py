"""Output head and cross-entropy at label rows, chunk by chunk, without ever holding all logits.

The gradient is computed in the forward pass, while the chunk's logits are at hand: the head runs once, and the
backward pass only scales what is stored.

Shapes: L label rows, D width, V vocabulary.
Reference: the same arithmetic as torch.nn.functional.cross_entropy on float32 logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from danlu.training.kernels import gemm

CHUNK_BYTES = 16 * 2**20
"""Most memory of one chunk of float32 logits: half of a usual last-level cache."""
MIN_ROWS = 32
"""Fewer rows per chunk than this would leave the matrix product waiting for the head's weights."""


def linear_cross_entropy(
    hidden_LD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, labels_L: Tensor, *, scale: float = 1.0, softcap: float | None = None
) -> Tensor:
    """Negative log-likelihood in nats of each label [L].

    Differentiable in `hidden_LD`, and in `weight_VD` and `bias_V` where they are trained. Gradients of weight and bias
    are kept summed over the rows, so they exist only for a sum or mean over the rows: the backward pass raises
    RuntimeError when they are wanted and the rows' upstream gradients differ.
    """
    return _LinearCrossEntropy.apply(hidden_LD, weight_VD, bias_V, labels_L, scale, softcap)


class _LinearCrossEntropy(torch.autograd.Function):
    """Gradients are stored for an upstream gradient of one per row and scaled in backward."""

    @staticmethod
    def forward(ctx: Any, hidden_LD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, labels_L: Tensor, scale: float, softcap: float | None) -> Tensor:
        nll_L = torch.empty(len(labels_L), dtype=torch.float32, device=hidden_LD.device)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden_LD) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VD) if needs_weight else None
        grad_bias = torch.zeros_like(bias_V) if needs_bias and bias_V is not None else None
        rows = max(MIN_ROWS, CHUNK_BYTES // (4 * weight_VD.shape[0]))
        for start in range(0, len(labels_L), rows):
            hidden, labels = hidden_LD[start : start + rows], labels_L[start : start + rows, None]
            logits = gemm.nt(hidden, weight_VD, bias_V).float()
            if scale != 1.0:
                logits.mul_(scale)
            if softcap is not None:
                logits.div_(softcap).tanh_()
                slope = logits.square().neg_().add_(1.0)
                logits.mul_(softcap)
            torch.log_softmax(logits, -1, out=logits)
            nll_L[start : start + rows] = logits.gather(1, labels)[:, 0].neg_()
            if not any((needs_hidden, needs_weight, needs_bias)):
                continue
            gradient = logits.exp_()
            gradient.scatter_add_(1, labels, gradient.new_full(labels.shape, -1.0))
            if softcap is not None:
                gradient.mul_(slope)
            if scale != 1.0:
                gradient.mul_(scale)
            gradient = gradient.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[start : start + rows] = gemm.nn(gradient, weight_VD)
            if grad_weight is not None:
                grad_weight += gemm.tn(gradient, hidden)
            if grad_bias is not None:
                grad_bias += gradient.sum(0)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return nll_L

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (upstream_L,) = grad_outputs
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        factor = upstream_L[0] if len(upstream_L) else upstream_L.new_ones(())
        if (grad_weight is not None or grad_bias is not None) and not bool((upstream_L == factor).all()):
            raise RuntimeError("linear_cross_entropy keeps the head's gradient summed over rows: take a sum or a mean of its result")
        return (
            None if grad_hidden is None else grad_hidden * upstream_L[:, None].to(grad_hidden.dtype),
            None if grad_weight is None else grad_weight * factor.to(grad_weight.dtype),
            None if grad_bias is None else grad_bias * factor.to(grad_bias.dtype),
            None,
            None,
            None,
        )
