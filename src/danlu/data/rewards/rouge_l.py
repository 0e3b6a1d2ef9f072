"""How much of the reference is in the answer, in order."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from danlu.data.words import subsequence_f1
from danlu.recipe.base import REWARDS, RewardConfig


@REWARDS.register
class RougeLReward(RewardConfig):
    """F1 of the longest common subsequence of words (Chinese: characters) of completion and reference."""

    type: Literal["rouge_l"] = "rouge_l"
    needs_answer: ClassVar[bool] = True

    def score(self, completion: str, answer: str | None, columns: Mapping[str, Any]) -> float:
        """Return the F1 in [0, 1]."""
        return subsequence_f1(completion, answer or "")
