"""Try several settings of one recipe; the best member becomes the run."""

import shutil
from pathlib import Path
from typing import Any, ClassVar, Literal

from danlu.worker.kinds.base import KINDS, JobKind, Outcome
from danlu.worker.kinds.train import run_progress

MEMBERS = "sweep"
"""Folder of the members inside the run's folder."""
NOT_KEPT = ("checkpoints", ".lock")


@KINDS.register
class Sweep(JobKind):
    """A run that is the best of several."""

    type: Literal["sweep"] = "sweep"
    can_pause: ClassVar[bool] = True
    run_dir: str
    """Folder of the run that the best member becomes."""
    recipe: dict[str, Any]
    """What all members share."""
    paths: dict[str, str] = {}
    artifacts: dict[str, str] = {}
    sweep: dict[str, Any]
    """What they differ in."""

    def work(self, folder: Path) -> Outcome:
        """Begin or go on; every member is a run folder that is gone on with."""
        from danlu.recipe.load import validate
        from danlu.recipe.sweep import SweepConfig
        from danlu.run_dir import RunDir
        from danlu.services.reports import build_report
        from danlu.services.sweeps import sweep
        from danlu.worker.job_log import JobLog

        run_dir = RunDir.create(Path(self.run_dir))
        recipe = validate(self.recipe, source="recipe")
        result = sweep(recipe, SweepConfig.model_validate(self.sweep), folder=run_dir.path / MEMBERS, paths=self.paths, tell=JobLog().of_member)
        if result.outcome == "paused" or result.best is None:
            return "paused", {}
        shutil.copytree(result.best, run_dir.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*NOT_KEPT))
        report = build_report(run_dir)
        return "succeeded", {"verdict": (report.get("verdict") or {}).get("label"), "best": result.best.name}

    def progress(self) -> float:
        """What all members have done together, and the run that the best one becomes."""
        run_dir = Path(self.run_dir)
        return run_progress(run_dir) + sum(run_progress(member) for member in (run_dir / MEMBERS / "runs").glob("*"))
