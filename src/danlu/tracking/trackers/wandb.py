"""Weights & Biases. Its own settings hold: WANDB_API_KEY, WANDB_BASE_URL, WANDB_PROJECT, WANDB_MODE=offline."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from danlu.tracking.base import TRACKERS, TrackerConfig

if TYPE_CHECKING:
    from danlu.run_dir import RunDir

START_SECONDS = 20


@TRACKERS.register
class WandB(TrackerConfig):
    """Weights & Biases, in the cloud, on a server of one's own, or offline (`wandb sync` later)."""

    type: Literal["wandb"] = "wandb"
    package: ClassVar[str] = "wandb"
    secrets: ClassVar[tuple[str, ...]] = ("WANDB_",)

    def open(self, run_dir: RunDir, config: dict[str, Any], state: dict[str, Any]) -> WandBRun:
        """Begin a run, or go on with the same one."""
        return WandBRun(run_dir, config, state)


class WandBRun:
    """One run of theirs."""

    def __init__(self, run_dir: RunDir, config: dict[str, Any], state: dict[str, Any]) -> None:
        import secrets

        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "danlu"),
            id=state.get("id") or secrets.token_hex(8),
            resume="allow",
            name=run_dir.id,
            dir=str(run_dir.path),
            config=config,
            # Nothing but the numbers: no console output, no source code, no machine statistics.
            settings=wandb.Settings(init_timeout=START_SECONDS, silent=True, console="off", save_code=False, disable_git=True, x_disable_stats=True),
        )
        self.state: dict[str, Any] = {"id": self._run.id, "last_steps": dict(state.get("last_steps", {}))}
        self.where = str(self._run.dir if self._run.offline else self._run.url)
        self._server_has = self._run.starting_step - 1 if self._run.resumed else -1

    def last_step(self, key: str) -> int:
        """From the server, and from what earlier attempts have sent (an offline run has no server to ask)."""
        return max(self._server_has, int(self.state["last_steps"].get(key, -1)))

    def log(self, step: int, seconds: float, values: dict[str, float]) -> None:
        """Send one row; rows of the same step become one."""
        self._run.log(values, step=step)
        self.state["last_steps"] |= dict.fromkeys(values, step)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()
