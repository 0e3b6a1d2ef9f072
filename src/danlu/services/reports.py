"""Use cases on what a run says of itself: the report, and the coach's diagnoses in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from danlu.recipe.load import validate
from danlu.services import pipeline
from danlu.training.coach import diagnose

if TYPE_CHECKING:
    from danlu.run_dir import RunDir


def build_report(run_dir: RunDir) -> dict[str, Any]:
    """Make report.json and report.html from the files of a run, and return the content of the first."""
    from danlu.evaluation.report import build

    return build(pipeline.resolved(run_dir), run_dir, coach=diagnoses(run_dir))


def diagnoses(run_dir: RunDir) -> list[dict[str, Any]]:
    """What the coach has to say on a run, finished or not."""
    recipe = pipeline.resolved(run_dir) if run_dir.recipe.exists() else validate(run_dir.read_record().get("written", {}), source=str(run_dir.record))
    return [diagnosis.to_dict() for diagnosis in diagnose(recipe, run_dir)]
