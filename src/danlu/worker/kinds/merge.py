"""Make one adapter of several runs over the same base model, and prove it like any run."""

import shutil
from pathlib import Path
from typing import Any, ClassVar, Literal

from danlu.worker.kinds.base import KINDS, JobKind, Outcome
from danlu.worker.kinds.train import run_progress


@KINDS.register
class Merge(JobKind):
    """A run that comes out of other runs."""

    type: Literal["merge"] = "merge"
    can_pause: ClassVar[bool] = True
    run_dir: str
    """Folder of the new run."""
    recipe: dict[str, Any]
    """The recipe of the first of the runs."""
    paths: dict[str, str] = {}
    artifacts: dict[str, str] = {}
    folders: list[str]
    """Folders of the runs."""
    how: str = "linear"
    weights: list[float] | None = None
    rank: int | None = None
    density: float = 0.5

    def work(self, folder: Path) -> Outcome:
        """Merge (anew, when it was killed before the result was whole), then prove."""
        from danlu.services import merging, runs
        from danlu.worker.job_log import JobLog

        run_dir = Path(self.run_dir)
        if (run_dir / "run.json").exists():
            result = runs.resume(self.run_dir, listeners=[JobLog()])
        else:
            shutil.rmtree(run_dir, ignore_errors=True)
            result = merging.merge(self.folders, run_dir, how=self.how, weights=self.weights, rank=self.rank, density=self.density, listeners=[JobLog()])
        if result.outcome == "paused":
            return "paused", {}
        return "succeeded", {"verdict": ((result.report or {}).get("verdict") or {}).get("label")}

    def progress(self) -> float:
        """Finished stages."""
        return run_progress(Path(self.run_dir))
