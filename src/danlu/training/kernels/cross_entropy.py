"""Output head and cross-entropy at label rows, chunk by chunk, without ever holding all logits.

The gradient is computed in the forward pass, while the chunk's logits are at hand: the head runs once, and the
backward pass only scales what is stored.

Shapes: L label rows, D width, V vocabulary, C rows of one chunk.
Reference: the same arithmetic as torch.nn.functional.cross_entropy on float32 logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 64 * 2**20
"""Most memory of one chunk of float32 logits."""


def linear_cross_entropy(hidden_LD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, labels_L: Tensor, *, scale: float = 1.0, softcap: float | None = None) -> Tensor:
    """Negative log-likelihood in nats of each label [L]; every row must be given the same upstream gradient.

    Differentiable in `hidden_LD`, and in `weight_VD` and `bias_V` where they are trained.
    """
    if bias_V is not None and bias_V.requires_grad or softcap is not None or not torch.is_grad_enabled():
        return _chunked(hidden_LD, weight_VD, bias_V, labels_L, scale, softcap)
    return _LinearCrossEntropy.apply(hidden_LD, weight_VD, bias_V, labels_L, scale)  # type: ignore[no-any-return]


def _rows_per_chunk(vocabulary: int) -> int:
    return max(1, CHUNK_BYTES // (4 * vocabulary))


def _chunked(hidden_LD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, labels_L: Tensor, scale: float, softcap: float | None) -> Tensor:
    parts = []
    for hidden, labels in zip(hidden_LD.split(_rows_per_chunk(weight_VD.shape[0])), labels_L.split(_rows_per_chunk(weight_VD.shape[0])), strict=True):
        logits = torch.nn.functional.linear(hidden, weight_VD, bias_V).float() * scale
        if softcap is not None:
            logits = torch.tanh(logits / softcap) * softcap
        parts.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
    return torch.cat(parts) if parts else hidden_LD.new_zeros(0, dtype=torch.float32)


class _LinearCrossEntropy(torch.autograd.Function):
    """Gradients are stored for an upstream gradient of one per row and scaled in backward."""

    @staticmethod
    def forward(ctx: Any, hidden_LD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, labels_L: Tensor, scale: float) -> Tensor:
        nll_L = torch.empty(len(labels_L), dtype=torch.float32, device=hidden_LD.device)
        needs_hidden, needs_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        grad_hidden = torch.empty_like(hidden_LD) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VD) if needs_weight else None
        rows = _rows_per_chunk(weight_VD.shape[0])
        for start in range(0, len(labels_L), rows):
            chunk = slice(start, start + rows)
            hidden, labels = hidden_LD[chunk], labels_L[chunk]
            logits = torch.nn.functional.linear(hidden, weight_VD, bias_V).float()
            if scale != 1.0:
                logits *= scale
            log_sum = torch.logsumexp(logits, -1)
            nll_L[chunk] = log_sum - logits.gather(1, labels[:, None])[:, 0]
            if not (needs_hidden or needs_weight):
                continue
            probabilities = logits.sub_(log_sum[:, None]).exp_()
            probabilities[torch.arange(len(labels), device=labels.device), labels] -= 1.0
            gradient = (probabilities * scale if scale != 1.0 else probabilities).to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(gradient, weight_VD, out=grad_hidden[chunk])
            if grad_weight is not None:
                grad_weight.addmm_(gradient.T, hidden)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return nll_L

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (upstream_L,) = grad_outputs
        grad_hidden, grad_weight = ctx.saved_tensors
        # Rows share one upstream gradient (a mean or a sum over the step), which lets the weight gradient be stored summed.
        factor = upstream_L[0] if len(upstream_L) else upstream_L.new_ones(())
        return (
            None if grad_hidden is None else grad_hidden * factor.to(grad_hidden.dtype),
            None if grad_weight is None else grad_weight * factor.to(grad_weight.dtype),
            None,
            None,
            None,
        )
