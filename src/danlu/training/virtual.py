"""Virtual tokens of prompt methods in packed batches: the same prompt before each example, or the same prefix in each layer.

Shapes: V virtual tokens, T tokens of all examples, N examples, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from danlu.training.batch import PackedBatch


@dataclass(frozen=True)
class VirtualTokens:
    """What a prompt method puts before each example: embeddings, or keys and values of each layer."""

    num_tokens: int
    prompt_VD: Tensor | None = None
    prefix: tuple[tuple[Tensor, Tensor], ...] | None = None
    """(keys, values) of each layer, each [1, key/value heads, V, head width]."""


def virtual_tokens(model: nn.Module) -> VirtualTokens | None:
    """The virtual tokens of a PEFT model; None for other methods and where the adapter is switched off."""
    wrapped: Any = model
    # Inside disable_adapter() PEFT puts the base model's forward in place of its own.
    if not hasattr(model, "peft_config") or "forward" in vars(model) or not wrapped.active_peft_config.is_prompt_learning:
        return None
    count = wrapped.active_peft_config.num_virtual_tokens
    prompt = wrapped.get_prompt(batch_size=1)
    if isinstance(prompt, Tensor):
        return VirtualTokens(count, prompt_VD=prompt[0])
    return VirtualTokens(count, prefix=tuple((layer.keys, layer.values) for layer in prompt.layers))


def with_room(batch: PackedBatch, num_virtual: int) -> PackedBatch:
    """The batch with `num_virtual` rows (of token 0) before each example."""
    lengths = tuple(length + num_virtual for length in batch.lengths)
    device = batch.ids_T.device
    positions_T = torch.cat([torch.arange(length, device=device) for length in lengths])
    ids_T = torch.zeros_like(positions_T)
    ids_T[positions_T >= num_virtual] = batch.ids_T
    return replace(batch, ids_T=ids_T, positions_T=positions_T, lengths=lengths, label_rows_L=batch.label_rows_L + num_virtual * (batch.row_example_L + 1))


def put_before(prompt_VD: Tensor, tokens_TD: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Lay the prompt before each example [T + N V, D]."""
    prompt_VD = prompt_VD.to(tokens_TD.dtype)
    return torch.cat([piece for example in tokens_TD.split(lengths) for piece in (prompt_VD, example)])
