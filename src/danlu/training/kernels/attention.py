"""Attention inside each example of a packed batch, as a Transformers attention function named `danlu_packed`.

Shapes: T tokens of all examples, H query heads, K key/value heads, C head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "danlu_packed"
_lengths: tuple[int, ...] | None = None


@contextmanager
def packed(lengths: tuple[int, ...]) -> Iterator[None]:
    """Tell the attention function how long each example of the batch is."""
    global _lengths
    previous, _lengths = _lengths, lengths
    try:
        yield
    finally:
        _lengths = previous


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """query [1, H, T, C], key and value [1, K, T, C] -> [1, T, H, C]."""
    assert _lengths is not None, "danlu_packed attention outside of packed()"
    outputs = []
    for q, k, v in zip(query.split(_lengths, 2), key.split(_lengths, 2), value.split(_lengths, 2), strict=True):
        length = q.shape[2]
        enable_gqa = q.shape[1] != k.shape[1]
        if softcap is None and (sliding_window is None or length <= sliding_window):
            outputs.append(F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, dropout_p=dropout, enable_gqa=enable_gqa))
            continue
        position = torch.arange(length, device=q.device)
        distance = position[:, None] - position[None, :]
        visible = (distance >= 0) if sliding_window is None else (distance >= 0) & (distance < sliding_window)
        if softcap is None:
            outputs.append(F.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=scaling, dropout_p=dropout, enable_gqa=enable_gqa))
            continue
        if enable_gqa:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        scores = (q @ k.transpose(2, 3)) * (scaling if scaling is not None else q.shape[-1] ** -0.5)
        scores = (torch.tanh(scores / softcap) * softcap).masked_fill(~visible, float("-inf"))
        outputs.append(F.dropout(scores.float().softmax(-1).to(v.dtype), dropout) @ v)
    return torch.cat(outputs, 2).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
