"""All checks on one history, the weightiest diagnosis first, and none that another one explains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.training.coach import generalisation, machine, optimisation, rows
from danlu.training.coach.diagnosis import Diagnosis
from danlu.training.coach.history import History

if TYPE_CHECKING:
    from danlu.recipe.recipe import Recipe
    from danlu.run_dir import RunDir

SEVERITIES = ("error", "warning", "info")
_CURVES = frozenset(
    {"learning_rate_too_high", "learning_rate_too_low", "loss_flat", "gradient_clipping_always", "overfitting", "memorisation", "validation_not_improving"}
)
EXPLAINS: dict[str, frozenset[str]] = {
    "not_finite": _CURVES | {"divergence"},
    "divergence": _CURVES,
    "learning_rate_too_high": frozenset({"gradient_clipping_always", "validation_not_improving"}),
    "learning_rate_too_low": frozenset({"gradient_clipping_always"}),
    "memorisation": frozenset({"overfitting", "validation_not_improving"}),
    "validation_not_improving": frozenset({"overfitting"}),
    "validation_too_small": frozenset({"overfitting", "validation_not_improving"}),
    "all_labels_masked": frozenset({"data_too_small"}),
}
"""A diagnosis and the ones that are only its consequences: these are left out beside it."""


def judge(history: History) -> list[Diagnosis]:
    """What is wrong with the run so far."""
    found = [d for module in (rows, optimisation, generalisation, machine) for d in module.check(history)]
    explained = {name for d in found for name in EXPLAINS.get(d.name, frozenset())}
    return sorted((d for d in found if d.name not in explained), key=lambda d: SEVERITIES.index(d.severity))


def diagnose(recipe: Recipe, run_dir: RunDir) -> list[Diagnosis]:
    """What is wrong with the run in a folder, finished or not, from its files."""
    return judge(History.read(recipe, run_dir))
