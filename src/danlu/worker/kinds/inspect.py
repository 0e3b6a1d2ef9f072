"""Look a data file over: the data doctor's report, the place of every finding, and the table that previews are read from."""

from pathlib import Path
from typing import Literal

from danlu.worker.kinds.base import KINDS, JobKind, Outcome


@KINDS.register
class Inspect(JobKind):
    """What a data file holds and what is wrong with it."""

    type: Literal["inspect"] = "inspect"
    path: str
    """The data file."""
    digest: str = ""
    """SHA-256 that the file must have; not looked at when empty."""
    dataset_version_id: str = ""
    """Version that gets the report when the job ends."""

    def work(self, folder: Path) -> Outcome:
        """Read all of it."""
        from danlu.data.findings import look_over

        path = Path(self.path)
        keep_in = path.parent if self.digest else None
        return "succeeded", {"report": look_over(path, digest=self.digest, keep_in=keep_in).to_dict() | {"path": path.name}}
