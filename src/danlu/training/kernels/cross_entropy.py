"""Output head and cross-entropy at label rows, chunk by chunk, without ever holding all logits.

The gradient is computed in the forward pass, while the chunk's logits are at hand: the head runs once, and the
backward pass only scales what is stored. Only where the head itself is trained and the label rows count differently
(preference objectives) does the backward pass compute the chunks' logits again: its gradient cannot be scaled afterwards.

Shapes: L label rows, D width, V vocabulary.
Reference: the same arithmetic as torch.nn.functional.cross_entropy on float32 logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from danlu.training.kernels import gemm, int8, sizes

CHUNK_BYTES = 16 * 2**20
"""Most memory of one chunk of float32 logits: half of a usual last-level cache."""
MIN_ROWS = 32
"""Fewer rows per chunk than this would leave the matrix product waiting for the head's weights."""


def linear_cross_entropy(
    hidden_LD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    labels_L: Tensor,
    *,
    scale: float = 1.0,
    softcap: float | None = None,
    weighs_rows: bool = False,
    rounded: int8.Int8Weight | None = None,
) -> Tensor:
    """Negative log-likelihood in nats of each label [L]; logits come from `rounded`, the frozen head in integers, where given.

    Differentiable in `hidden_LD`, and in `weight_VD` and `bias_V` where they are trained. With `weighs_rows` the head's
    gradient waits for the backward pass; without, it is computed for a sum over the rows, and again (still exact) in
    the backward pass when the rows' upstream gradients turn out to differ.
    """
    return _LinearCrossEntropy.apply(hidden_LD, weight_VD, bias_V, labels_L, _Logits(scale, softcap, rounded), weighs_rows)


@dataclass(frozen=True)
class _Logits:
    """What happens to the head's products before the softmax."""

    scale: float
    softcap: float | None
    rounded: int8.Int8Weight | None = None

    def log_softmax(self, hidden_LD: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities of a chunk [L, V] in float32, and the slope of the soft cap."""
        rounded = self.rounded
        logits = gemm.nt(hidden_LD, weight_VD, bias_V).float() if rounded is None else int8.nt(int8.quantise_rows(hidden_LD), rounded, bias_V)
        slope = None
        if self.scale != 1.0:
            logits.mul_(self.scale)
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_()
            slope = logits.square().neg_().add_(1.0)
            logits.mul_(self.softcap)
        return torch.log_softmax(logits, -1, out=logits), slope

    def gradient(self, log_probabilities: Tensor, slope: Tensor | None, labels_L1: Tensor) -> Tensor:
        """Gradient of each row's nats with respect to the head's products [L, V]; overwrites the log-probabilities."""
        gradient = log_probabilities.exp_()
        gradient.scatter_add_(1, labels_L1, gradient.new_full(labels_L1.shape, -1.0))
        if slope is not None:
            gradient.mul_(slope)
        if self.scale != 1.0:
            gradient.mul_(self.scale)
        return gradient


def _chunks(num_rows: int, vocabulary: int) -> Iterator[slice]:
    rows = max(MIN_ROWS, CHUNK_BYTES // (4 * vocabulary))
    for start in range(0, num_rows, rows):
        yield slice(start, start + rows)


def _filled(x: Tensor) -> Tensor:
    """A chunk with rows of zeros behind it, up to a number that comes again; they have no part in any result."""
    return sizes.with_rows(x, sizes.filled(len(x), x.device))


class _LinearCrossEntropy(torch.autograd.Function):
    """Gradients are stored for an upstream gradient of one per row and scaled in backward."""

    @staticmethod
    def forward(ctx: Any, hidden_LD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, labels_L: Tensor, how: _Logits, weighs_rows: bool) -> Tensor:
        nll_L = torch.empty(len(labels_L), dtype=torch.float32, device=hidden_LD.device)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        needs_head = needs_weight or needs_bias
        grad_hidden = torch.empty_like(hidden_LD) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VD) if needs_weight and not weighs_rows else None
        grad_bias = torch.zeros_like(bias_V) if needs_bias and not weighs_rows and bias_V is not None else None
        for rows in _chunks(len(labels_L), len(weight_VD)):
            count = len(labels_L[rows])
            hidden, labels = _filled(hidden_LD[rows]), _filled(labels_L[rows, None])
            log_probabilities, slope = how.log_softmax(hidden, weight_VD, bias_V)
            nll_L[rows] = log_probabilities.gather(1, labels)[:count, 0].neg_()
            if grad_hidden is None and grad_weight is None and grad_bias is None:
                continue
            gradient = how.gradient(log_probabilities, slope, labels).to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = gemm.nn(gradient, weight_VD)[:count]
            if grad_weight is not None:
                grad_weight += gemm.tn(gradient, hidden)
            if grad_bias is not None:
                grad_bias += gradient[:count].sum(0)
        ctx.how = how
        kept = (hidden_LD, weight_VD, bias_V, labels_L) if needs_head else (None, None, None, None)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias, *kept)
        return nll_L

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (upstream_L,) = grad_outputs
        grad_hidden, grad_weight, grad_bias, *kept = ctx.saved_tensors
        needs_weight, needs_bias = ctx.needs_input_grad[1:3]
        if grad_hidden is not None:
            grad_hidden = grad_hidden * upstream_L[:, None].to(grad_hidden.dtype)
        if needs_weight or needs_bias:
            factor = upstream_L[0] if len(upstream_L) else upstream_L.new_ones(())
            if (needs_weight and grad_weight is None) or (needs_bias and grad_bias is None) or not bool((upstream_L == factor).all()):
                grad_weight, grad_bias = _head_gradients(ctx.how, upstream_L, *kept, needs_weight=needs_weight, needs_bias=needs_bias)
            else:
                grad_weight = None if grad_weight is None else grad_weight * factor.to(grad_weight.dtype)
                grad_bias = None if grad_bias is None else grad_bias * factor.to(grad_bias.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None


def _head_gradients(
    how: _Logits, upstream_L: Tensor, hidden_LD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, labels_L: Tensor, *, needs_weight: bool, needs_bias: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of head weight and bias when each row has its own upstream gradient: the logits are computed once more."""
    grad_weight = torch.zeros_like(weight_VD) if needs_weight else None
    grad_bias = torch.zeros_like(bias_V) if needs_bias and bias_V is not None else None
    for rows in _chunks(len(labels_L), len(weight_VD)):
        hidden, labels, upstream = (_filled(x) for x in (hidden_LD[rows], labels_L[rows, None], upstream_L[rows, None]))
        log_probabilities, slope = how.log_softmax(hidden, weight_VD, bias_V)
        gradient = how.gradient(log_probabilities, slope, labels).mul_(upstream).to(hidden_LD.dtype)
        if grad_weight is not None:
            grad_weight += gemm.tn(gradient, hidden)
        if grad_bias is not None:
            grad_bias += gradient.sum(0)
    return grad_weight, grad_bias
