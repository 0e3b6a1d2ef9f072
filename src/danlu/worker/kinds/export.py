"""Turn a finished run into files that other tools load, verified."""

from pathlib import Path
from typing import Literal

from danlu.worker.kinds.base import KINDS, JobKind, Outcome


@KINDS.register
class Export(JobKind):
    """An export of a run."""

    type: Literal["export"] = "export"
    run_dir: str
    """Folder of the run."""
    to: str
    """The form: `adapter`, `merged`, ..."""

    def work(self, folder: Path) -> Outcome:
        """Write, load again, compare, keep."""
        from danlu.reporter import Reporter
        from danlu.run_dir import RunDir
        from danlu.services.exports import export

        run_dir = RunDir(Path(self.run_dir))
        with run_dir.lock():
            target = export(run_dir, self.to, Reporter(run_dir))
        return "succeeded", {"folder": target.name}
