"""PEFT's own LoRA layer with a fused forward and backward, for architectures whose layers are not fused as a whole.

A subclass handed to PEFT through its extension point: parameter names, files, merging and everything unusual
(dropout, several adapters, DoRA, merged weights) stay PEFT's.
"""

from __future__ import annotations

from typing import Any

from peft.tuners.lora import Linear
from torch import Tensor

from danlu.training.kernels.projection import ProjectionFunction, projection_of


class FusedLoraLinear(Linear):
    """x W^T + b + s (x A^T) B^T as one autograd node that keeps x once and x A^T."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Like PEFT's; falls back to it for whatever the fused node does not compute."""
        projection = None if args or kwargs else projection_of(self)
        if projection is None or projection.a_RK is None or x.dtype != projection.a_RK.dtype:
            return super().forward(x, *args, **kwargs)
        y_TN = ProjectionFunction.apply(x.reshape(-1, x.shape[-1]), projection, *projection.tensors)
        return y_TN.view(*x.shape[:-1], -1)
