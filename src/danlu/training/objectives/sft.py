"""Supervised fine-tuning: the likelihood of the assistant's turns, given what came before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from danlu.recipe.base import OBJECTIVES, ObjectiveConfig

if TYPE_CHECKING:
    from danlu.data.chat import ChatRenderer
    from danlu.data.pack import EncodedExample


@OBJECTIVES.register
class SFT(ObjectiveConfig):
    """Learn to answer: the loss is the mean negative log-likelihood, in nats, of the assistant's tokens."""

    type: Literal["sft"] = "sft"

    def encode(self, examples: Sequence[dict[str, Any]], renderer: ChatRenderer, max_seq_len: int) -> list[list[EncodedExample]]:
        """Token ids and loss masks: one list per example, here always with one entry (longer ones are not cut here)."""
        chats = [renderer.render(e["messages"], e.get("tools"), e.get("train_on")) for e in examples]
        return [[encoded] for encoded in renderer.encode(chats)]
