"""The answer is the reference, apart from how it is typed."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from danlu.data.words import is_same
from danlu.recipe.base import REWARDS, RewardConfig


@REWARDS.register
class ExactMatchReward(RewardConfig):
    """1 when completion and reference are equal after NFKC, lower case, white space and closing punctuation."""

    type: Literal["exact_match"] = "exact_match"
    needs_answer: ClassVar[bool] = True

    def score(self, completion: str, answer: str | None, columns: Mapping[str, Any]) -> float:
        """Return 0.0 or 1.0."""
        return float(is_same(completion, answer or ""))
