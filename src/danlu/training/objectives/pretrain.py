"""Pretraining (also continued): the likelihood of every token of plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from danlu.recipe.base import OBJECTIVES, ObjectiveConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.data.chat import ChatRenderer
    from danlu.data.pack import EncodedExample
    from danlu.training.batch import PackedBatch
    from danlu.training.objective import NllFunction


@OBJECTIVES.register
class Pretrain(ObjectiveConfig):
    """Learn from plain text: the loss is the mean negative log-likelihood, in nats, of every token but the first."""

    type: Literal["pretrain"] = "pretrain"
    needs: ClassVar[str] = "text"
    weighs_rows: ClassVar[bool] = False

    def encode(self, examples: Sequence[dict[str, Any]], renderer: ChatRenderer, max_seq_len: int) -> list[list[EncodedExample]]:
        """Token ids of each document, closed by the end token and cut into blocks of at most `max_seq_len`.

        Blocks overlap by one token, so that each token but a document's first is predicted exactly once.
        """
        from danlu.data.pack import EncodedExample

        tokenizer = renderer.tokenizer
        end = tokenizer.convert_tokens_to_ids("<|endoftext|>") if "<|endoftext|>" in tokenizer.get_vocab() else tokenizer.eos_token_id
        documents = []
        for ids in tokenizer([e["text"] for e in examples], add_special_tokens=False)["input_ids"]:
            tokens = np.asarray([*ids, end] if end is not None else ids, np.uint32)
            starts = range(0, max(1, len(tokens) - 1), max_seq_len - 1)
            blocks = [tokens[start : start + max_seq_len] for start in starts]
            documents.append([EncodedExample(block, np.ones(len(block), np.bool_)) for block in blocks])
        return documents

    def totals(self, sequences: Sequence[EncodedExample]) -> dict[str, float]:
        """Label tokens: the loss is their mean."""
        from danlu.training.objective import num_label_tokens

        return {"label_tokens": max(1, num_label_tokens(sequences))}

    def loss(self, model: nn.Module, batch: PackedBatch, totals: Mapping[str, float], nll: NllFunction) -> tuple[Tensor, dict[str, Tensor]]:
        """Nats per label token."""
        return nll(model, batch).sum() / totals["label_tokens"], {}
