"""What a tracker is: one file of `tracking/trackers` that opens somebody else's client and hands it numbers.

Keys and addresses come from that client's own settings (WANDB_API_KEY, MLFLOW_TRACKING_URI ...) and are never stored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.util import find_spec
from typing import Any, ClassVar, Protocol

from danlu.errors import MissingExtraError
from danlu.plugins import Registry
from danlu.recipe.base import StrictModel
from danlu.run_dir import RunDir


class Tracker(Protocol):
    """An open tracker. It is used by one thread."""

    where: str
    """Folder or address where the run can be looked at."""
    state: dict[str, Any]
    """What it needs to find its run again after a restart; plain values, no secrets."""

    def last_step(self, key: str) -> int:
        """The last step it already has a value of `key` for; -1 when none."""

    def log(self, step: int, seconds: float, values: dict[str, float]) -> None:
        """Take the values of one row of metrics.jsonl; `seconds` is its time."""

    def close(self) -> None:
        """Send what is left."""


class TrackerConfig(StrictModel, ABC):
    """Base of every tracker. Its plugin file also defines `open`."""

    type: str
    package: ClassVar[str]
    """The module its client is imported from."""
    secrets: ClassVar[tuple[str, ...]] = ()
    """Beginnings of the names of environment variables whose values may be secret: struck out of error messages."""

    @abstractmethod
    def open(self, run_dir: RunDir, config: dict[str, Any], state: dict[str, Any]) -> Tracker:
        """Begin a run, or go on with the one of `state`."""

    def require(self) -> None:
        """Refuse at once when the client is not installed.

        Raises:
            MissingExtraError: it is not.
        """
        if find_spec(self.package) is None:
            raise MissingExtraError(
                f"tracker {self.type} needs a package that is not installed", why=f"there is no module {self.package}", fix=f"pip install 'danlu[{self.type}]'"
            )


TRACKERS: Registry[TrackerConfig] = Registry("tracker", package="danlu.tracking.trackers")
