"""Decoders of the Llama kind (Llama, Qwen2, Qwen3, Mistral) computed block by block on packed tokens.

The model's modules are read, never changed: this is a second way to compute what `decoder(...)` computes. A layer is
two autograd nodes (attention, feed-forward); each keeps what is dear to compute (the linear layers' outputs) and
computes the cheap rest again (norms, rotations, activations). The last layer continues at label rows only.

Shapes: T tokens, D width, H query heads, K key/value heads, C head width, I feed-forward width, L label rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from danlu.training.kernels import sizes
from danlu.training.kernels.attention import Span, attend, attend_backward
from danlu.training.kernels.norm import inverse_rms_of, rms_norm, rms_norm_again, rms_norm_backward, rotate
from danlu.training.kernels.projection import (
    NUM_TENSORS,
    Projection,
    project,
    project_all,
    project_all_backward,
    project_backward,
    projection_of,
    rebuild,
    split_needs,
)
from danlu.training.layout import Layout

DECODERS = ("LlamaModel", "Qwen2Model", "Qwen3Model", "MistralModel")
"""Exact class names: a subclass may compute something else."""


@dataclass(frozen=True)
class AttentionPart:
    """What the attention half of a layer needs besides tensors that are trained."""

    norm: Any
    head_norms: tuple[Any, Any] | None
    projections: tuple[Projection, ...]
    head_dim: int
    scaling: float
    window: int | None
    spans: tuple[Span, ...] = ()
    cos_T1c: Tensor = field(default_factory=lambda: torch.empty(0))
    sin_T1c: Tensor = field(default_factory=lambda: torch.empty(0))
    rows_L: Tensor | None = None
    """Rows to go on with after attention; None for all."""


@dataclass(frozen=True)
class FeedForwardPart:
    """What the feed-forward half of a layer needs besides tensors that are trained."""

    norm: Any
    projections: tuple[Projection, ...]


def plan(decoder: Any) -> list[tuple[AttentionPart, FeedForwardPart]] | None:
    """The layers of `decoder` as parts, or None when any of it computes something these kernels do not."""
    if type(decoder).__name__ not in DECODERS:
        return None
    config = decoder.config
    if config.hidden_act != "silu":
        return None
    if any(p.dtype != torch.float32 or p.device.type != "cpu" or type(p.data) is not Tensor for p in decoder.parameters()):
        return None  # weights divided over processes (FSDP2) are whole only while their own layer is called
    if decoder.training and getattr(config, "attention_dropout", 0.0):
        return None
    parts = []
    for layer in decoder.layers[: config.num_hidden_layers]:
        attention, mlp = layer.self_attn, layer.mlp
        attention_projections = [projection_of(m) for m in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)]
        mlp_projections = [projection_of(m) for m in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)]
        if any(p is None for p in (*attention_projections, *mlp_projections)):
            return None
        head_norms = (attention.q_norm, attention.k_norm) if hasattr(attention, "q_norm") else None
        window = config.sliding_window if type(decoder).__name__ == "MistralModel" else getattr(attention, "sliding_window", None)
        parts.append(
            (
                AttentionPart(layer.input_layernorm, head_norms, tuple(attention_projections), attention.head_dim, attention.scaling, window),  # type: ignore[arg-type]
                FeedForwardPart(layer.post_attention_layernorm, tuple(mlp_projections)),  # type: ignore[arg-type]
            )
        )
    return parts


def hidden_at_labels(decoder: Any, parts: Sequence[tuple[AttentionPart, FeedForwardPart]], layout: Layout, embedded_TD: Tensor | None = None) -> Tensor:
    """The decoder's last hidden state at the label rows of `layout` [L, D]; `embedded_TD` is read instead of the tokens where given."""
    hidden_TD = decoder.embed_tokens(layout.ids_T) if embedded_TD is None else sizes.with_rows(embedded_TD, len(layout.ids_T))
    cos, sin = decoder.rotary_emb(hidden_TD[None], position_ids=layout.positions_T[None])
    half = cos.shape[-1] // 2
    cos_T1c, sin_T1c = (x[0, :, None, :half].contiguous() for x in (cos, sin))
    for number, (attention, feed_forward) in enumerate(parts):
        is_last = number == len(parts) - 1
        attention = replace(attention, spans=layout.spans, cos_T1c=cos_T1c, sin_T1c=sin_T1c)
        if is_last:
            *inner, out = attention.projections
            attention = replace(attention, rows_L=layout.rows_L, projections=(*inner, out.at_rows(layout.rows_L)))
            feed_forward = replace(feed_forward, projections=tuple(p.at_rows(layout.rows_L) for p in feed_forward.projections))
        head_norms = [None, None] if attention.head_norms is None else [norm.weight for norm in attention.head_norms]
        hidden_TD = _Attention.apply(attention, hidden_TD, attention.norm.weight, *head_norms, *_flat(attention.projections))
        hidden_TD = _FeedForward.apply(feed_forward, hidden_TD, feed_forward.norm.weight, *_flat(feed_forward.projections))
    normed_LD: Tensor = decoder.norm(hidden_TD)
    return normed_LD if layout.places_L is None else normed_LD.index_select(0, layout.places_L)


def _flat(projections: Sequence[Projection]) -> list[Tensor | None]:
    return [tensor for projection in projections for tensor in projection.tensors]


def _turned(raw_THC: Tensor, weight_C: Tensor | None, eps: float, cos: Tensor, sin: Tensor) -> Tensor:
    """Head norm, where there is one, and rotation."""
    return rotate(raw_THC if weight_C is None else rms_norm(raw_THC, weight_C, eps)[0], cos, sin)


def _turned_backward(
    dy_THC: Tensor, raw_THC: Tensor, weight_C: Tensor | None, eps: float, cos: Tensor, sin: Tensor, *, needs_weight: bool
) -> tuple[Tensor, Tensor | None]:
    d_normed = rotate(dy_THC, cos, sin.neg())
    if weight_C is None:
        return d_normed, None
    return rms_norm_backward(d_normed, raw_THC, weight_C, inverse_rms_of(raw_THC, eps), needs_weight=needs_weight)


class _Attention(torch.autograd.Function):
    """hidden + o_proj(attention(norm(hidden))), at `rows_L` where given."""

    @staticmethod
    def forward(
        ctx: Any, part: AttentionPart, hidden_TD: Tensor, norm_D: Tensor, q_norm_C: Tensor | None, k_norm_C: Tensor | None, *tensors: Tensor | None
    ) -> Tensor:
        q_proj, k_proj, v_proj, o_proj = rebuild(tensors, part.projections)
        x_TD, inverse_rms = rms_norm(hidden_TD, norm_D, part.norm.variance_epsilon)
        (q_TN, k_TN, v_TN), inputs_a = project_all(x_TD, (q_proj, k_proj, v_proj))
        del x_TD
        q_raw, k_raw, v_TKC = (x.view(len(x), -1, part.head_dim) for x in (q_TN, k_TN, v_TN))
        q_THC, k_TKC = _queries_keys(part, q_raw, k_raw, q_norm_C, k_norm_C)
        out_TN = attend(q_THC, k_TKC, v_TKC, part.spans, part.window).view(len(hidden_TD), -1)
        residual = hidden_TD
        if part.rows_L is not None:
            out_TN, residual = out_TN[part.rows_L], hidden_TD[part.rows_L]
        result, o_a = project(out_TN, o_proj, residual)
        ctx.part = part
        ctx.save_for_backward(hidden_TD, norm_D, q_norm_C, k_norm_C, *tensors, inverse_rms, q_raw, k_raw, v_TKC, out_TN, inputs_a, o_a)
        return result

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = grad_outputs
        part: AttentionPart = ctx.part
        hidden_TD, norm_D, q_norm_C, k_norm_C, *rest = ctx.saved_tensors
        tensors, (inverse_rms, q_raw, k_raw, v_TKC, out_TN, inputs_a, o_a) = rest[:16], rest[16:]
        q_proj, k_proj, v_proj, o_proj = rebuild(tensors, part.projections)
        needs, flags = ctx.needs_input_grad, ctx.needs_input_grad[5:]
        d_out, o_grads = project_backward(dy, out_TN, o_a, o_proj, split_needs(flags, 3), needs_dx=True)
        assert d_out is not None
        d_out_THC = _spread(d_out, part.rows_L, len(hidden_TD)).view(len(hidden_TD), -1, part.head_dim)
        q_THC, k_TKC = _queries_keys(part, q_raw, k_raw, q_norm_C, k_norm_C)
        dq, dk, dv = attend_backward(d_out_THC, q_THC, k_TKC, v_TKC, part.spans, part.window)
        del d_out, d_out_THC, q_THC, k_TKC
        q_eps, k_eps = _head_eps(part)
        cos, sin = part.cos_T1c, part.sin_T1c
        dq, d_q_norm = _turned_backward(dq, q_raw, q_norm_C, q_eps, cos * part.scaling, sin * part.scaling, needs_weight=needs[3])
        dk, d_k_norm = _turned_backward(dk, k_raw, k_norm_C, k_eps, cos, sin, needs_weight=needs[4])
        x_TD = rms_norm_again(hidden_TD, norm_D, inverse_rms)
        needs_dx = needs[1] or needs[2]
        flat = [d.view(len(d), -1) for d in (dq, dk, dv)]
        dx, grads = project_all_backward(flat, x_TD, inputs_a, (q_proj, k_proj, v_proj), flags[: 3 * NUM_TENSORS], needs_dx=needs_dx)
        d_norm = None
        if dx is not None:
            dx, d_norm = rms_norm_backward(dx, hidden_TD, norm_D, inverse_rms, needs_weight=needs[2])
            dx = dx.add_(dy) if part.rows_L is None else dx.index_add_(0, part.rows_L, dy)
        return None, dx, d_norm, d_q_norm, d_k_norm, *grads, *o_grads


def _head_eps(part: AttentionPart) -> tuple[float, float]:
    if part.head_norms is None:
        return 0.0, 0.0
    return part.head_norms[0].variance_epsilon, part.head_norms[1].variance_epsilon


def _queries_keys(part: AttentionPart, q_raw: Tensor, k_raw: Tensor, q_norm_C: Tensor | None, k_norm_C: Tensor | None) -> tuple[Tensor, Tensor]:
    """Queries, scaled by being rotated with scaled sines and cosines, and keys."""
    q_eps, k_eps = _head_eps(part)
    queries = _turned(q_raw, q_norm_C, q_eps, part.cos_T1c * part.scaling, part.sin_T1c * part.scaling)
    return queries, _turned(k_raw, k_norm_C, k_eps, part.cos_T1c, part.sin_T1c)


def _spread(rows_LN: Tensor, rows_L: Tensor | None, num_tokens: int) -> Tensor:
    """Put rows back to where they were taken from, zero elsewhere."""
    if rows_L is None:
        return rows_LN
    return rows_LN.new_zeros(num_tokens, rows_LN.shape[1]).index_copy_(0, rows_L, rows_LN)


class _FeedForward(torch.autograd.Function):
    """hidden + down_proj(silu(gate_proj(norm(hidden))) * up_proj(norm(hidden)))."""

    @staticmethod
    def forward(ctx: Any, part: FeedForwardPart, hidden_TD: Tensor, norm_D: Tensor, *tensors: Tensor | None) -> Tensor:
        gate_proj, up_proj, down_proj = rebuild(tensors, part.projections)
        x_TD, inverse_rms = rms_norm(hidden_TD, norm_D, part.norm.variance_epsilon)
        (gate_TI, up_TI), inputs_a = project_all(x_TD, (gate_proj, up_proj))
        del x_TD
        result, down_a = project(F.silu(gate_TI).mul_(up_TI), down_proj, hidden_TD)
        ctx.part = part
        ctx.save_for_backward(hidden_TD, norm_D, *tensors, inverse_rms, gate_TI, up_TI, inputs_a, down_a)
        return result

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = grad_outputs
        part: FeedForwardPart = ctx.part
        hidden_TD, norm_D, *rest = ctx.saved_tensors
        tensors, (inverse_rms, gate_TI, up_TI, inputs_a, down_a) = rest[:12], rest[12:]
        gate_proj, up_proj, down_proj = rebuild(tensors, part.projections)
        needs, flags = ctx.needs_input_grad, ctx.needs_input_grad[3:]
        silu_TI = F.silu(gate_TI)
        d_inner, down_grads = project_backward(dy, silu_TI * up_TI, down_a, down_proj, split_needs(flags, 2), needs_dx=True)
        assert d_inner is not None
        d_up = silu_TI.mul_(d_inner)
        d_gate = d_inner.mul_(up_TI)
        torch.ops.aten.silu_backward.grad_input(d_gate, gate_TI, grad_input=d_gate)
        x_TD = rms_norm_again(hidden_TD, norm_D, inverse_rms)
        needs_dx = needs[1] or needs[2]
        dx, grads = project_all_backward((d_gate, d_up), x_TD, inputs_a, (gate_proj, up_proj), flags[: 2 * NUM_TENSORS], needs_dx=needs_dx)
        d_norm = None
        if dx is not None:
            dx, d_norm = rms_norm_backward(dx, hidden_TD, norm_D, inverse_rms, needs_weight=needs[2])
            dx.add_(dy)
        return None, dx, d_norm, *grads, *down_grads
