"""NEFTune: noise on the token embeddings during training, the same in both paths.

Shapes: T tokens of all examples, D width.
Reference: Jain et al. 2023, arXiv:2310.05914, algorithm 1: uniform in [-1, 1], times alpha / sqrt(L D) with L the length of the example.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from danlu.training.batch import PackedBatch
from danlu.training.forward import unwrap
from danlu.training.kernels import sizes
from danlu.training.objective import NllFunction


def with_embedding_noise(nll: NllFunction, alpha: float) -> NllFunction:
    """`nll` with noise wherever it is trained with: not in evaluation, not without gradients.

    The noise comes from torch's generator, which the loop seeds by (seed, step, micro batch).
    """

    def noisy(model: nn.Module, batch: PackedBatch) -> Tensor:
        if not (model.training and torch.is_grad_enabled()):
            return nll(model, batch)

        def add(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            return output + _like(draw(batch, output.shape[-1], alpha), batch, output)

        handle = unwrap(model).get_input_embeddings().register_forward_hook(add)
        try:
            return nll(model, replace(batch, has_own_rows=True))
        finally:
            handle.remove()

    return noisy


def draw(batch: PackedBatch, width: int, alpha: float) -> Tensor:
    """Noise for every token of the batch [T, D]."""
    device = batch.ids_T.device
    uniform_TD = torch.rand(len(batch.ids_T), width, device=device) * 2 - 1
    lengths_T = torch.repeat_interleave(torch.tensor(batch.lengths, device=device), torch.tensor(batch.lengths, device=device))
    return uniform_TD * (alpha / math.sqrt(width)) * lengths_T.rsqrt()[:, None]


def _like(noise_TD: Tensor, batch: PackedBatch, output: Tensor) -> Tensor:
    """The noise in the shape the path embeds in: packed (rows that fill the batch up get none), or padded with none at padding."""
    if output.ndim == 2 or len(output) == 1:
        return sizes.with_rows(noise_TD, output.shape[-2]).view_as(output).to(output.dtype)
    return torch.nn.utils.rnn.pad_sequence(list(noise_TD.split(batch.lengths)), batch_first=True).to(output.dtype)
