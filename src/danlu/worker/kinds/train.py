"""Carry out a recipe from data to report.

One job, not a graph of three: every stage (data, training, evaluation, exports, report) leaves its result in the run folder and is
skipped when it is there, so a kill costs at most the time since the last checkpoint either way. Jobs of their own would each pay
for starting Python and loading the model again, and would give the slot away between training and its proof.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal

from danlu.run_dir import RunDir
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
    paths: dict[str, str] = {}
    """Where on this machine lies what the recipe names."""
    artifacts: dict[str, str] = {}
    """Digests of those paths that are copies of artifacts."""

    def work(self, folder: Path) -> Outcome:
        """Begin or go on."""
        from danlu.recipe.load import validate
        from danlu.services.runs import run
        from danlu.worker.job_log import JobLog

        result = run(validate(self.recipe, source="recipe"), run_dir=Path(self.run_dir), paths=self.paths, listeners=[JobLog()])
        if result.outcome == "paused":
            return "paused", {}
        report = result.report or {}
        return "succeeded", {"verdict": (report.get("verdict") or {}).get("label")}

    def progress(self) -> float:
        """Finished stages and the step of the newest checkpoint."""
        return run_progress(Path(self.run_dir))


def run_progress(path: Path) -> float:
    """How far a run has come: finished stages and the step of the newest checkpoint."""
    steps = [int(found.name.removeprefix("step-")) for found in RunDir(path).checkpoints.glob("step-*") if found.name[5:].isdigit()]
    return STAGE_VALUE * sum((path / name).exists() for name in STAGES) + max(steps, default=0)
