"""Tokens that a recipe adds: the tokenizer learns their names, the embeddings get rows that start at the mean of all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from danlu.errors import NoEffectError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def add_new_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> list[int]:
    """Add `tokens` to the tokenizer and return their ids.

    Raises:
        NoEffectError: one of them is a token already.
    """
    known = [token for token in tokens if token in tokenizer.get_vocab()]
    if known:
        raise NoEffectError(f"data.new_tokens: {known[0]!r} is a token of the base model already", why="there is nothing to add", fix="remove it from the list")
    tokenizer.add_tokens(list(tokens))
    return [int(i) for i in tokenizer.convert_tokens_to_ids(list(tokens))]


def added_ids(base: PreTrainedTokenizerBase, tuned: PreTrainedTokenizerBase) -> list[int]:
    """Ids that `tuned` has and `base` has not."""
    known = set(base.get_vocab().values())
    return sorted(i for i in tuned.get_vocab().values() if i not in known)


def make_rows(model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Give each of `ids` a row in the input embeddings and the head: the mean of the rows that were there before."""
    import torch

    if not ids:
        return
    num_before = min(min(ids), model.get_input_embeddings().num_embeddings)
    if max(ids) >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    head = model.get_output_embeddings()
    weights = {id(w): w for w in (model.get_input_embeddings().weight, None if head is None else head.weight) if w is not None}
    with torch.no_grad():
        for weight in weights.values():
            weight[list(ids)] = weight[:num_before].float().mean(0).to(weight.dtype)
        bias = getattr(head, "bias", None)
        if bias is not None:
            bias[list(ids)] = bias[:num_before].float().mean().to(bias.dtype)
