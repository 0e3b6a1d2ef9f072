"""Products with frozen weights in 8-bit integers, forward and input gradient, for CPUs with integer dot products (VNNI).

A weight is rounded once, with one scale per output channel; activations and gradients are rounded at each product,
with one scale per token, both symmetric to [-127, 127]. Sums are exact 32-bit integers, so that the result depends on
neither threads nor machine.

    forward         y[t, n]  = s_x[t] s_w[n] sum_k qx[t, k] qw[n, k],     s_x[t] = max_k |x[t, k]| / 127
    input gradient  dx[t, k] = s_g[t] sum_n qg[t, n] qw[n, k],            g[t, n] = dy[t, n] s_w[n],  s_g[t] = max_n |g[t, n]| / 127

The second formula folds the weight's scales into dy before rounding it, so one integer weight serves both products.
Rounding counts as the identity in the backward pass (straight through). Adapters, norms and attention stay float32. The
float32 weights of the layers are not kept: they take a quarter of the memory. A frozen head is rounded for its logits
only: the gradient of a softmax has thousands of entries that would all be rounded to zero.

Shapes: T tokens, K input width, N output width.
Reference: per-channel weights and per-token activations as in Dettmers et al. 2022, arXiv:2208.07339, section 2.1 (without
the decomposition for outliers); the input gradient as in Bengio et al. 2013, arXiv:1308.3432, section 3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

HEAD = ("int8_values_VD", "int8_scale_V")
"""Buffers of an output head that is rounded beside the exact weight."""
SMALLEST_SCALE = 1e-30
"""A row of zeros is divided by this instead of by zero."""


class Int8Weight(NamedTuple):
    """A frozen weight: w[n, k] is about values[n, k] * scale[n]."""

    values_NK: Tensor
    scale_N: Tensor

    @classmethod
    def of(cls, weight_NK: Tensor) -> Int8Weight:
        """Round a float weight."""
        values_NK, scale_N1 = quantise_rows(weight_NK.detach().float())
        return cls(values_NK, scale_N1[:, 0].contiguous())


class Rounded(NamedTuple):
    """Rows of integers with one scale each: x[t, k] is about values[t, k] * scale[t]."""

    values_TK: Tensor
    scale_T1: Tensor


def quantise_rows(x_TK: Tensor) -> Rounded:
    """Round each row to integers of [-127, 127] times its own scale."""
    scale_T1 = _row_scales(x_TK)
    return Rounded(torch.div(x_TK, scale_T1).round_().to(torch.int8), scale_T1)


def _row_scales(x_TK: Tensor) -> Tensor:
    return torch.maximum(x_TK.amax(1, keepdim=True), x_TK.amin(1, keepdim=True).neg_()).mul_(1 / 127).clamp_min_(SMALLEST_SCALE)


def nt(x_TK: Rounded, weight: Int8Weight, bias_N: Tensor | None = None, add_TN: Tensor | None = None) -> Tensor:
    """x w^T (+ bias) (+ add), a new float32 tensor [T, N]."""
    y_TN = _product(x_TK.values_TK, weight.values_NK.T).mul_(weight.scale_N)
    y_TN = y_TN.mul_(x_TK.scale_T1) if add_TN is None else torch.addcmul(add_TN, y_TN, x_TK.scale_T1, out=y_TN)
    return y_TN if bias_N is None else y_TN.add_(bias_N)


def nn(dy_TN: Tensor, weight: Int8Weight, add_TK: Tensor | None = None) -> Tensor:
    """dy w (+ add), a new float32 tensor [T, K]."""
    scaled_TN = dy_TN * weight.scale_N
    scale_T1 = _row_scales(scaled_TN)
    dx_TK = _product(scaled_TN.div_(scale_T1).round_().to(torch.int8), weight.values_NK)
    return dx_TK.mul_(scale_T1) if add_TK is None else torch.addcmul(add_TK, dx_TK, scale_T1, out=dx_TK)


def _product(a_MK: Tensor, b_KN: Tensor) -> Tensor:
    """Integer product as float32, in the memory of the integer sums."""
    if not len(a_MK):
        return torch.zeros(0, b_KN.shape[1])
    sums_MN = torch._int_mm(a_MK, b_KN)
    return sums_MN.view(torch.float32).copy_(sums_MN)


class Int8Linear(torch.nn.Module):
    """A frozen linear layer whose products are made in 8-bit integers."""

    values_NK: Tensor
    scale_N: Tensor
    bias: Tensor | None

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        values_NK, scale_N = Int8Weight.of(linear.weight)
        self.register_buffer("values_NK", values_NK)
        self.register_buffer("scale_N", scale_N)
        self.register_parameter("bias", linear.bias)

    @property
    def weight_int8(self) -> Int8Weight:
        """The rounded weight."""
        return Int8Weight(self.values_NK, self.scale_N)

    def forward(self, x: Tensor) -> Tensor:
        """x w^T + b, for layers that are not fused with what surrounds them."""
        from danlu.training.kernels.projection import Projection, ProjectionFunction

        projection = Projection(None, self.bias, rounded=self.weight_int8)
        y_TN = ProjectionFunction.apply(x.reshape(-1, x.shape[-1]).float(), projection, *projection.tensors)
        return y_TN.view(*x.shape[:-1], -1)


def convert(model: Any) -> int:
    """Replace every frozen linear layer of `model`, and round its head beside the exact one; return how many layers."""
    head = model.get_output_embeddings()
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is torch.nn.Linear and child is not head and not child.weight.requires_grad
    ]
    for parent, name, child in found:
        setattr(parent, name, Int8Linear(child))
    if found and type(head) is torch.nn.Linear and not head.weight.requires_grad:
        for name, tensor in zip(HEAD, Int8Weight.of(head.weight), strict=True):
            head.register_buffer(name, tensor, persistent=False)
    return len(found)


def rounded_head(head: torch.nn.Module) -> Int8Weight | None:
    """The integers that `convert` put beside a head's weight."""
    found = [getattr(head, name, None) for name in HEAD]
    return None if found[0] is None or found[1] is None else Int8Weight(found[0], found[1])


def is_fast() -> bool:
    """Whether this processor has the integer dot products that make this worth while."""
    return bool(torch.cpu._is_vnni_supported())
