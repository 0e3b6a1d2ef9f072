"""What answers are worth: the weighted sum of reward functions, for training and for the proof alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from danlu.errors import TrainingError
from danlu.recipe.base import RewardConfig


def judge(rewards: Sequence[RewardConfig], completion: str, example: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """Return the reward of an answer to `example` (kind `prompt`), and each function's score before its weight.

    Raises:
        TrainingError: a reward function gives something that is not a finite number.
    """
    scores: dict[str, float] = {}
    for reward in rewards:
        score = float(reward.score(completion, example.get("answer"), example.get("columns", {})))  # type: ignore[attr-defined]
        if score != score or score in (float("inf"), float("-inf")):
            raise TrainingError(
                f"the reward {reward.type} gives {score} for an answer to line {example.get('line')}",
                why="a reward has to be a finite number",
                fix="correct the reward function",
            )
        scores[reward.type] = score
    return sum(reward.weight * scores[reward.type] for reward in rewards), scores
