"""The answer is JSON with the keys that are wanted."""

from collections.abc import Mapping
from typing import Any, Literal

import orjson

from danlu.recipe.base import REWARDS, RewardConfig


@REWARDS.register
class JsonReward(RewardConfig):
    """0 when the completion is no JSON object, else 0.5 and up to 0.5 more for the share of wanted keys (1 when none are)."""

    type: Literal["json_object"] = "json_object"
    keys: list[str] = []
    """Keys that the object must have."""

    def score(self, completion: str, answer: str | None, columns: Mapping[str, Any]) -> float:
        """Return a number in [0, 1]; a fenced block (```json) is read as its content."""
        text = completion.strip()
        if text.startswith("```") and text.endswith("```"):
            text = text.removeprefix("```").removeprefix("json").removesuffix("```")
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return 0.0
        if not isinstance(value, dict):
            return 0.0
        return 0.5 + 0.5 * (sum(key in value for key in self.keys) / len(self.keys) if self.keys else 1.0)
