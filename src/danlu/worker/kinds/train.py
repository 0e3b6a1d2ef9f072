"""Carry out a recipe from data to report."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from danlu.worker.kinds.base import KINDS, JobKind, Outcome

STAGES = ("recipe.json", "training.json", "evaluation/scorecard.json", "report.json")
STAGE_VALUE = 1e9
"""A finished stage is worth more than any number of steps."""


@KINDS.register
class Train(JobKind):
    """A run."""

    type: Literal["train"] = "train"
    can_pause: ClassVar[bool] = True
    run_dir: str
    """Folder of the run."""
    recipe: dict[str, Any]
    """The recipe as written."""

    def work(self, folder: Path) -> Outcome:
        """Begin or go on."""
        from danlu.recipe.load import validate
        from danlu.services.runs import run

        result = run(validate(self.recipe, source="recipe"), run_dir=Path(self.run_dir))
        if result.outcome == "paused":
            return "paused", {}
        report = result.report or {}
        return "succeeded", {"verdict": (report.get("verdict") or {}).get("label")}

    def progress(self) -> float:
        """Finished stages and the step of the newest checkpoint."""
        run_dir = Path(self.run_dir)
        steps = [int(path.name.removeprefix("step-")) for path in run_dir.glob("checkpoints/step-*") if path.name[5:].isdigit()]
        return STAGE_VALUE * sum((run_dir / name).exists() for name in STAGES) + max(steps, default=0)
