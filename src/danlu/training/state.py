"""The loop's own numbers, and which validation is the best one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from danlu.recipe.base import METRICS
from danlu.recipe.recipe import Recipe


@dataclass
class LoopState:
    """Where a run is; stored in every checkpoint."""

    step: int = 0
    num_tokens: int = 0
    num_label_tokens: int = 0
    training_seconds: float = 0.0
    best_step: int | None = None
    best_loss: float | None = None
    best_value: float | None = None
    """What `training.best_by` names, at the best step."""
    validations_without_gain: int = 0
    micro_batch_tokens: int = 0
    resumed_at: list[int] = field(default_factory=list)
    num_processes: int = 1

    @property
    def lowest(self) -> float | None:
        """What a validation has to be below to be the best; None before the first."""
        return self.best_loss if self.best_value is None else self.best_value


def lower_is_better(recipe: Recipe, loss: float, numbers: Mapping[str, float]) -> float:
    """What is lowest at the best validation: its loss, or what `training.best_by` names, negated where more is better."""
    name = recipe.training.best_by
    if name == "loss":
        return loss
    is_more_better = not recipe.scores_answers or METRICS[name].higher_is_better
    return -numbers[name] if is_more_better else numbers[name]
