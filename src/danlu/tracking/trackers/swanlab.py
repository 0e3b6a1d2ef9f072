"""SwanLab. Its own settings hold: SWANLAB_API_KEY, SWANLAB_API_HOST, SWANLAB_PROJ_NAME, SWANLAB_MODE=offline."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from danlu.tracking.base import TRACKERS, TrackerConfig

if TYPE_CHECKING:
    from danlu.run_dir import RunDir


@TRACKERS.register
class SwanLab(TrackerConfig):
    """SwanLab, in the cloud, on a server of one's own, or offline (`swanlab sync` later)."""

    type: Literal["swanlab"] = "swanlab"
    package: ClassVar[str] = "swanlab"
    secrets: ClassVar[tuple[str, ...]] = ("SWANLAB_",)

    def open(self, run_dir: RunDir, config: dict[str, Any], state: dict[str, Any]) -> SwanLabRun:
        """Begin a run, or go on with the same one."""
        return SwanLabRun(run_dir, config, state)


class SwanLabRun:
    """One run of theirs."""

    def __init__(self, run_dir: RunDir, config: dict[str, Any], state: dict[str, Any]) -> None:
        import secrets

        import swanlab

        identity = state.get("id") or secrets.token_hex(10)
        self._run = swanlab.init(
            project=os.environ.get("SWANLAB_PROJ_NAME", "danlu"),
            name=run_dir.id,
            id=identity,
            resume="allow",
            log_dir=str(run_dir.path / "swanlab"),
            config=config,
        )
        self.state: dict[str, Any] = {"id": identity, "last_steps": dict(state.get("last_steps", {}))}
        is_online = os.environ.get("SWANLAB_MODE", "online") == "online"
        self.where = str(self._run.url if is_online else run_dir.path / "swanlab")

    def last_step(self, key: str) -> int:
        """What earlier attempts have sent."""
        return int(self.state["last_steps"].get(key, -1))

    def log(self, step: int, seconds: float, values: dict[str, float]) -> None:
        """Send one row."""
        self._run.log(values, step=step)
        self.state["last_steps"] |= dict.fromkeys(values, step)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()
