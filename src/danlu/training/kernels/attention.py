"""Attention inside each example of a packed batch, also as a Transformers attention function named `danlu_packed`.

Queries are taken block by block, so that nothing is computed for keys that a whole block cannot see; the key/value
head's group of query heads shares one product. The backward pass computes the scores again instead of keeping them.

Shapes: T tokens of all examples, L tokens of one, H query heads, K key/value heads, G = H / K, C head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from danlu.training.kernels import gemm, sizes

NAME = "danlu_packed"
BLOCK_ROWS = 256
"""Query positions per block."""
Prefix = tuple[tuple[Tensor, Tensor], ...]
"""(keys, values) of each layer that every example sees before its own, each [1, K, V, C] with V virtual tokens."""
_batch: ContextVar[tuple[tuple[int, ...], Prefix | None] | None] = ContextVar("danlu_packed_batch", default=None)


@contextmanager
def packed(lengths: tuple[int, ...], prefix: Prefix | None = None) -> Iterator[None]:
    """Tell the attention function how long each example of the batch is, and what stands before it. Holds for this thread (or task) only."""
    token = _batch.set((lengths, prefix))
    try:
        yield
    finally:
        _batch.reset(token)


@dataclass(frozen=True)
class Span:
    """Rows of the batch that attend to themselves, and to what stands before them elsewhere in it."""

    start: int
    stop: int
    before: tuple[tuple[int, int], ...] = ()
    """(first row, last row + 1) of each stretch that is seen whole: together with the own rows they are the text from its beginning."""

    @property
    def num_before(self) -> int:
        """Rows before the own ones."""
        return sum(stop - start for start, stop in self.before)

    def keys(self, x_TKC: Tensor) -> Tensor:
        """The rows that are seen, in the order of the text."""
        own = x_TKC[self.start : self.stop]
        return own if not self.before else torch.cat([*(x_TKC[start:stop] for start, stop in self.before), own])

    def put(self, gradient: Tensor, sums_TKC: Tensor) -> None:
        """Store the gradient of `keys`: spans come in an order in which the rows before have been stored when others add to them."""
        done = 0
        for start, stop in self.before:
            sums_TKC[start:stop] += gradient[done : done + stop - start]
            done += stop - start
        sums_TKC[self.start : self.stop] = gradient[done:]


def spans_of(lengths: tuple[int, ...]) -> tuple[Span, ...]:
    """One span per example: nobody sees another."""
    return tuple(Span(start, stop) for start, stop in pairwise(accumulate(lengths, initial=0)) if stop > start)


def attend(query_THC: Tensor, key_TKC: Tensor, value_TKC: Tensor, spans: tuple[Span, ...], window: int | None) -> Tensor:
    """Causal attention inside each span [T, H, C], zero in rows behind the last; queries come already scaled. Not differentiable by itself."""
    out_THC = query_THC.new_empty(*query_THC.shape[:2], value_TKC.shape[2])
    num_heads = key_TKC.shape[1]
    for span in spans:
        own, begin = slice(span.start, span.stop), span.num_before
        rows_filled = sizes.filled(span.stop - span.start, query_THC.device)
        q = _by_head(query_THC[own], num_heads, rows_filled)
        k, v = (_by_head(span.keys(x), num_heads, begin + rows_filled) for x in (key_TKC, value_TKC))
        group = query_THC.shape[1] // num_heads
        outputs = out_THC[own].view(span.stop - span.start, num_heads, group, v.shape[2])
        for first, last, low in _blocks(begin, span.stop - span.start, rows_filled, window):
            hidden = _hidden(first, last, low, group, window, q)
            for head in range(num_heads):
                rows = slice((first - begin) * group, (last - begin) * group)
                weights = _weights(q[head, rows], k[head, low:last], hidden)
                outputs[first - begin : last - begin, head] = gemm.nn(weights, v[head, low:last]).view(last - first, group, -1)[: len(outputs) - first + begin]
    out_THC[_end(spans) :] = 0.0
    return out_THC


def attend_backward(
    grad_THC: Tensor, query_THC: Tensor, key_TKC: Tensor, value_TKC: Tensor, spans: tuple[Span, ...], window: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the scaled queries, the keys and the values."""
    d_query, d_key, d_value = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query_THC, key_TKC, value_TKC))
    num_heads = key_TKC.shape[1]
    for span in spans:
        own, begin = slice(span.start, span.stop), span.num_before
        rows_filled = sizes.filled(span.stop - span.start, query_THC.device)
        q, g = (_by_head(x[own], num_heads, rows_filled) for x in (query_THC, grad_THC))
        k, v = (_by_head(span.keys(x), num_heads, begin + rows_filled) for x in (key_TKC, value_TKC))
        dk, dv = torch.zeros_like(k), torch.zeros_like(v)
        group = query_THC.shape[1] // num_heads
        dq = d_query[own].view(span.stop - span.start, num_heads, group, q.shape[2])
        for first, last, low in _blocks(begin, span.stop - span.start, rows_filled, window):
            hidden = _hidden(first, last, low, group, window, q)
            for head in range(num_heads):
                rows, keys = slice((first - begin) * group, (last - begin) * group), slice(low, last)
                weights = _weights(q[head, rows], k[head, keys], hidden)
                dv[head, keys] += gemm.tn(weights, g[head, rows])
                d_weights = gemm.nt(g[head, rows], v[head, keys])
                d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
                dq[first - begin : last - begin, head] = gemm.nn(d_scores, k[head, keys]).view(last - first, group, -1)[: len(dq) - first + begin]
                dk[head, keys] += gemm.tn(d_scores, q[head, rows])
        length = begin + len(dq)
        span.put(_by_token(dk, k.shape[1])[:length], d_key)
        span.put(_by_token(dv, k.shape[1])[:length], d_value)
    for gradient in (d_query, d_key, d_value):
        gradient[_end(spans) :] = 0.0
    return d_query, d_key, d_value


def _end(spans: tuple[Span, ...]) -> int:
    """The row behind the last one that belongs to a span."""
    return max((span.stop for span in spans), default=0)


def _by_head(x_LHC: Tensor, num_heads: int, filled: int) -> Tensor:
    """[L, K*G, C] -> [K, filled*G, C]: the query heads of one key/value head follow each other for each position.

    The positions of zeros behind come later than all others, which do not see them.
    """
    length, heads, width = x_LHC.shape
    x = x_LHC.new_zeros(num_heads, filled, heads // num_heads, width)
    x[:, :length] = x_LHC.reshape(length, num_heads, heads // num_heads, width).transpose(0, 1)
    return x.view(num_heads, -1, width)


def _by_token(x: Tensor, length: int) -> Tensor:
    """[K, L*G, C] -> [L, K*G, C]."""
    return x.view(x.shape[0], length, -1, x.shape[2]).transpose(0, 1).reshape(length, -1, x.shape[2])


def _blocks(begin: int, count: int, filled: int, window: int | None) -> Iterator[tuple[int, int, int]]:
    """(first query, last query + 1, first key that any of them sees) of `count` queries from `begin` on; the last block goes on to `filled`."""
    for first in range(begin, begin + count, BLOCK_ROWS):
        yield first, min(first + BLOCK_ROWS, begin + filled), 0 if window is None else max(0, first - window + 1)


def _hidden(first: int, last: int, low: int, group: int, window: int | None, like: Tensor) -> tuple[int, Tensor]:
    """From which key of the block on, and what to add to the scores: 0 where the key is seen, -inf where not."""
    if window is None:
        count = last - first
        return first - low, _triangle(group, max(count, BLOCK_ROWS), like.dtype, like.device)[: count * group, :count]
    begin = low if last - low > window else first
    rows = torch.arange(first, last, device=like.device)[:, None]
    keys = torch.arange(begin, last, device=like.device)[None, :]
    is_hidden = (keys > rows) | (rows - keys >= window)
    bias = torch.zeros(is_hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(is_hidden, float("-inf"))
    return begin - low, bias.repeat_interleave(group, 0)


@lru_cache(maxsize=4)
def _triangle(group: int, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """-inf above the diagonal, each row `group` times; smaller blocks take its upper left corner."""
    return torch.full((count, count), float("-inf"), dtype=dtype, device=device).triu_(1).repeat_interleave(group, 0)


def _weights(query: Tensor, key: Tensor, hidden: tuple[int, Tensor]) -> Tensor:
    scores = gemm.nt(query, key)
    scores[:, hidden[0] :] += hidden[1]
    return torch.softmax(scores, -1, out=scores)


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query_THC: Tensor, key_TKC: Tensor, value_TKC: Tensor, scale: float, lengths: tuple[int, ...], window: int | None) -> Tensor:
        query_THC = query_THC * scale
        ctx.save_for_backward(query_THC, key_TKC, value_TKC)
        ctx.scale, ctx.spans, ctx.window = scale, spans_of(lengths), window
        return attend(query_THC, key_TKC, value_TKC, ctx.spans, window)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        query_THC, key_TKC, value_TKC = ctx.saved_tensors
        d_query, d_key, d_value = attend_backward(grad_outputs[0], query_THC, key_TKC, value_TKC, ctx.spans, ctx.window)
        return d_query.mul_(ctx.scale), d_key, d_value, None, None, None


def _interface(
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
    batch = _batch.get()
    assert batch is not None, "danlu_packed attention outside of packed()"
    lengths, prefixes = batch
    prefix = None if prefixes is None else prefixes[module.layer_idx]  # type: ignore[index]
    if prefix is None and query.device.type == "cpu" and dropout == 0.0 and softcap is None and query.dtype == torch.float32:
        scale = scaling if scaling is not None else query.shape[-1] ** -0.5
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        return _PackedAttention.apply(q, k, v, scale, lengths, sliding_window)[None], None
    outputs = []
    for q, k, v in zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True):
        if prefix is not None:
            k, v = (torch.cat([before.to(own.dtype), own], 2) for before, own in zip(prefix, (k, v), strict=True))
        outputs.append(_attend_one(q, k, v, scaling, dropout, sliding_window, softcap))
    return torch.cat(outputs, 2).transpose(1, 2).contiguous(), None


def _attend_one(q: Tensor, k: Tensor, v: Tensor, scaling: float | None, dropout: float, window: int | None, softcap: float | None) -> Tensor:
    """Attention of one example through PyTorch's own kernels, all [1, heads, L, C]; the queries are the last of the keys' positions."""
    length = k.shape[2]
    enable_gqa = q.shape[1] != k.shape[1]
    if softcap is None and q.shape[2] == length and (window is None or length <= window):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, dropout_p=dropout, enable_gqa=enable_gqa)
    position = torch.arange(length, device=q.device)
    distance = position[length - q.shape[2] :, None] - position[None, :]
    visible = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
    if softcap is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=scaling, dropout_p=dropout, enable_gqa=enable_gqa)
    if enable_gqa:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = (q @ k.transpose(2, 3)) * (scaling if scaling is not None else q.shape[-1] ** -0.5)
    scores = (torch.tanh(scores / softcap) * softcap).masked_fill(~visible, float("-inf"))
    return F.dropout(scores.float().softmax(-1).to(v.dtype), dropout) @ v


AttentionInterface.register(NAME, _interface)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
