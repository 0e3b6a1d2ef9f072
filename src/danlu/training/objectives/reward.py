"""Reward model: a score of a whole answer, such that the chosen answer of a pair scores higher.

The result is a sequence classifier with one output: with an adapter, PEFT's file with the head among `modules_to_save`; with
`full`, a whole model. AutoModelForSequenceClassification (num_labels=1) of stock Transformers and PEFT loads both.

Shapes: N sequences of a batch, P pairs.
Reference: Bradley & Terry 1952; Ouyang et al. 2022, arXiv:2203.02155, eq. 1; margin: Touvron et al. 2023, arXiv:2307.09288, eq. 2 (here
the same for all pairs); centring: Eisenstein et al. 2023, arXiv:2312.09244, eq. 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from danlu.recipe.base import OBJECTIVES, ObjectiveConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.data.chat import ChatRenderer
    from danlu.data.pack import EncodedExample
    from danlu.training.batch import PackedBatch
    from danlu.training.objective import NllFunction


@OBJECTIVES.register
class Reward(ObjectiveConfig):
    """Learn to judge: a model that gives an answer a score, from preference pairs. It cannot write answers itself."""

    needs: ClassVar[str] = "preference"
    group_size: ClassVar[int] = 2
    makes_reward_model: ClassVar[bool] = True
    learning_rate_factor: ClassVar[float] = 0.5
    suites: ClassVar[tuple[str, ...]] = ("preference",)
    headlines: ClassVar[tuple[str, ...]] = ("preference_accuracy",)
    validation_numbers: ClassVar[tuple[str, ...]] = ("reward_accuracy", "reward_margin")
    type: Literal["reward"] = "reward"
    margin: float = Field(0.0, ge=0)
    """By how much the chosen answer should score higher."""
    centring: float = Field(0.0, ge=0)
    """Weight of the squared sum of a pair's scores, which keeps scores around zero; 0.01 where scores of different models are compared."""

    def encode(self, examples: Sequence[dict[str, Any]], renderer: ChatRenderer, max_seq_len: int) -> list[list[EncodedExample]]:
        """Two sequences of each example, chosen and rejected. The mask shows the answers; the score is read off the last token."""
        from danlu.training.objective import encode_pairs

        return encode_pairs(examples, renderer)

    def totals(self, sequences: Sequence[EncodedExample]) -> dict[str, float]:
        """Pairs: the loss is their mean."""
        return {"pairs": max(1, len(sequences) // 2)}

    def loss(self, model: nn.Module, batch: PackedBatch, totals: Mapping[str, float], nll: NllFunction) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over pairs of -log sigmoid(chosen - rejected - margin) + centring (chosen + rejected)^2; `nll` gives the scores here."""
        import torch.nn.functional as F

        from danlu.training.objective import in_pairs, reward_numbers

        chosen_P, rejected_P = in_pairs(nll(model, batch).double())
        losses_P = -F.logsigmoid(chosen_P - rejected_P - self.margin) + self.centring * (chosen_P + rejected_P) ** 2
        return losses_P.sum() / totals["pairs"], reward_numbers(chosen_P, rejected_P, totals["pairs"])
