"""Look a data file over: the data doctor's report."""

from pathlib import Path
from typing import Literal

from danlu.worker.kinds.base import KINDS, JobKind, Outcome


@KINDS.register
class Inspect(JobKind):
    """What a data file holds and what is wrong with it."""

    type: Literal["inspect"] = "inspect"
    path: str
    """The data file."""

    def work(self, folder: Path) -> Outcome:
        """Read all of it."""
        from danlu.data.inspect import inspect

        return "succeeded", {"report": inspect(Path(self.path)).to_dict()}
