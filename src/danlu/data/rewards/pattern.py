"""The answer has the form of a regular expression."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from danlu.recipe.base import REWARDS, RewardConfig

MAX_CHARS = 20_000


@REWARDS.register
class PatternReward(RewardConfig):
    """1 when the completion matches a regular expression from beginning to end."""

    type: Literal["pattern"] = "pattern"
    pattern: str = Field(".+", min_length=1, max_length=500)
    """Python regular expression; the usual one asks for anything at all. `.` matches line breaks too. Nested repetitions such as (a+)+ can take very long."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern, re.DOTALL)
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        return pattern

    def score(self, completion: str, answer: str | None, columns: Mapping[str, Any]) -> float:
        """Return 0.0 or 1.0; only the first 20,000 characters are looked at."""
        return float(re.fullmatch(self.pattern, completion[:MAX_CHARS], re.DOTALL) is not None)
