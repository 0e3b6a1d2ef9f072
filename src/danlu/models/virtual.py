"""Virtual tokens of prompt methods, and generation that puts them where training had them: right before each prompt.

Shapes: B rows, V virtual tokens, T tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class VirtualTokens:
    """What a prompt method puts before each example: embeddings, or keys and values of each layer."""

    num_tokens: int
    prompt_VD: Tensor | None = None
    prefix: tuple[tuple[Tensor, Tensor], ...] | None = None
    """(keys, values) of each layer, each [1, key/value heads, V, head width]."""


def virtual_tokens(model: Any) -> VirtualTokens | None:
    """The virtual tokens of a PEFT model; None for other methods and where the adapter is switched off."""
    from torch import Tensor

    if not hasattr(model, "peft_config") or not model.active_peft_config.is_prompt_learning:
        return None
    if model.forward == model.base_model.forward:  # what disable_adapter() makes of it
        return None
    count = model.active_peft_config.num_virtual_tokens
    prompt = model.get_prompt(batch_size=1)
    if isinstance(prompt, Tensor):
        return VirtualTokens(count, prompt_VD=prompt[0])
    return VirtualTokens(count, prefix=tuple((layer.keys, layer.values) for layer in prompt.layers))


def generate_rows(model: Any, ids_BT: Tensor, mask_BT: Tensor, **settings: Any) -> Tensor:
    """`model.generate` on left-padded rows; each row comes back with what was written after it.

    PEFT's own generation puts a prompt before the padding, so that its distance to the text, and with it the answer,
    would depend on the other rows of the batch.
    """
    import torch

    virtual = virtual_tokens(model)
    if virtual is None or virtual.prompt_VD is None:
        return model.generate(input_ids=ids_BT, attention_mask=mask_BT, **settings)
    inner = model.get_base_model()
    tokens_BTD = inner.get_input_embeddings()(ids_BT)
    prompt_VD = virtual.prompt_VD.to(tokens_BTD.dtype)
    rows = []
    for tokens_TD, num_padding in zip(tokens_BTD, (mask_BT == 0).sum(1).tolist(), strict=True):
        rows.append(torch.cat([tokens_TD[:num_padding], prompt_VD, tokens_TD[num_padding:]]))
    # Padding stays on the left, so the virtual tokens' share of the mask can stand at its right end.
    mask = torch.cat([mask_BT, mask_BT.new_ones(len(mask_BT), virtual.num_tokens)], 1)
    written = inner.generate(inputs_embeds=torch.stack(rows), attention_mask=mask, **settings)
    return torch.cat([ids_BT, written], 1)
