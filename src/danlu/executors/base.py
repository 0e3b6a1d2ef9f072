"""What every executor does: start one attempt of a job, say how it stands, stop it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

State = Literal["starting", "running", "ended", "gone"]
"""`ended`: it left a result. `gone`: it will never leave one. `starting`: it lives, and has not said its name yet."""


@dataclass(frozen=True)
class Attempt:
    """One try at a job, and the folder in which it leaves everything (job.json, pid.json, log.txt, result.json)."""

    job_id: str
    number: int
    folder: Path


@dataclass(frozen=True)
class Status:
    """How an attempt stands."""

    state: State
    pid: int | None = None
    pid_started: int | None = None
    reason: str = ""
    """Why it is gone."""
    is_to_blame: bool = True
    """Whether its end may be its own fault; not when its process never began or the machine was restarted."""
    result: dict[str, Any] | None = None


class Executor(Protocol):
    """Starts attempts so that they outlive whoever started them, and finds them again after a restart."""

    def start(self, attempt: Attempt, environment: Mapping[str, str]) -> None:
        """Start the attempt with these variables added to its environment. It is called only once per attempt."""

    def poll(self, attempt: Attempt) -> Status:
        """How the attempt stands; also of one that an earlier process started."""

    def stop(self, attempt: Attempt, *, kill: bool = False) -> None:
        """Ask the attempt to checkpoint and end, or end it at once with everything it started."""

    def clear(self, attempt: Attempt) -> None:
        """End whatever an attempt that is over has left running."""
