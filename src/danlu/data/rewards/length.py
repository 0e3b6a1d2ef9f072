"""The answer is neither too short nor too long."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from danlu.recipe.base import REWARDS, RewardConfig


@REWARDS.register
class LengthReward(RewardConfig):
    """1 when the completion has between `minimum` and `maximum` characters; falls to 0 in proportion outside."""

    type: Literal["length"] = "length"
    minimum: int = Field(1, ge=0)
    """Characters at least."""
    maximum: int = Field(2000, ge=1)
    """Characters at most; with twice as many nothing is left of the reward."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is more than maximum {self.maximum}")
        return self

    def score(self, completion: str, answer: str | None, columns: Mapping[str, Any]) -> float:
        """Return a number in [0, 1]."""
        count = len(completion)
        if count < self.minimum:
            return count / self.minimum
        return max(0.0, min(1.0, 2 - count / self.maximum))
