"""Supervised fine-tuning: the likelihood of the assistant's turns, given what came before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from danlu.recipe.base import OBJECTIVES, ObjectiveConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.data.chat import ChatRenderer
    from danlu.data.pack import EncodedExample
    from danlu.training.batch import PackedBatch
    from danlu.training.objective import NllFunction


@OBJECTIVES.register
class SFT(ObjectiveConfig):
    """Learn to answer: the loss is the mean negative log-likelihood, in nats, of the assistant's tokens."""

    type: Literal["sft"] = "sft"
    weighs_rows: ClassVar[bool] = False

    def encode(self, examples: Sequence[dict[str, Any]], renderer: ChatRenderer, max_seq_len: int) -> list[list[EncodedExample]]:
        """Token ids and loss masks: one list per example, here always with one entry (longer ones are not cut here)."""
        chats = [renderer.render(e["messages"], e.get("tools"), e.get("train_on")) for e in examples]
        return [[encoded] for encoded in renderer.encode(chats)]

    def totals(self, sequences: Sequence[EncodedExample]) -> dict[str, float]:
        """Label tokens, each with its weight: the loss is their mean."""
        from danlu.training.objective import weight_of_labels

        return {"label_tokens": weight_of_labels(sequences) or 1.0}

    def loss(self, model: nn.Module, batch: PackedBatch, totals: Mapping[str, float], nll: NllFunction) -> tuple[Tensor, dict[str, Tensor]]:
        """Nats per label token, the mean weighted where the data weighs its turns."""
        nll_L = nll(model, batch)
        return (nll_L if batch.weights_L is None else nll_L * batch.weights_L).sum() / totals["label_tokens"], {}
