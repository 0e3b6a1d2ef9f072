"""The answer has its parts in tags."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from danlu.recipe.base import REWARDS, RewardConfig


@REWARDS.register
class TagsReward(RewardConfig):
    """Share of the tags that stand in the completion exactly once, opened before they are closed, and in the order given."""

    type: Literal["tags"] = "tags"
    tags: list[str] = Field(default=["think", "answer"], min_length=1, max_length=16)
    """Names of the tags: `think` means <think> ... </think>."""

    def score(self, completion: str, answer: str | None, columns: Mapping[str, Any]) -> float:
        """Return a share in [0, 1]."""
        position, num_right = 0, 0
        for tag in self.tags:
            begin, end = completion.find(f"<{tag}>", position), completion.find(f"</{tag}>", position)
            is_once = completion.count(f"<{tag}>") == 1 == completion.count(f"</{tag}>")
            if is_once and 0 <= begin < end:
                num_right += 1
                position = end
        return num_right / len(self.tags)
