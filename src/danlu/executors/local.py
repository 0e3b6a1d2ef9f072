"""A subprocess per job on this machine, in a session of its own: it survives its starter, and is found again by its pid file.

A pid alone may be another process after a restart, so a process is its pid and its start time (/proc/PID/stat, field 22).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from danlu.errors import StorageError
from danlu.executors.base import Attempt, Status
from danlu.files import read_json, storage_errors

STARTING_SECONDS = 20.0
"""A process that has not written its pid file after that is not coming."""
KEPT_ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HOME", "HF_HUB_OFFLINE", "PYTHONPATH")
"""What a job sees of the server's environment: nothing that could hold a secret (tokens, database URL)."""


class LocalExecutor:
    """Runs `python -m danlu.worker.child FOLDER` for each attempt."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._children: dict[Path, subprocess.Popen[bytes]] = {}

    def start(self, attempt: Attempt) -> None:
        """Start the attempt's process.

        Raises:
            StorageError: its folder or log cannot be written, or the machine has no room for another process.
        """
        environment = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        with storage_errors(attempt.folder), (attempt.folder / "log.txt").open("ab") as log:
            self._children[attempt.folder] = subprocess.Popen(
                [sys.executable, "-m", "danlu.worker.child", str(attempt.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=attempt.folder,
                env=environment | {"DANLU_HOME": str(self.home)},
                start_new_session=True,
                close_fds=True,
            )

    def poll(self, attempt: Attempt) -> Status:
        """How the attempt stands, from its files and the process table."""
        child = self._children.get(attempt.folder)
        code = child.poll() if child is not None else None  # also takes the zombie away
        pid, started = self._identity(attempt)
        is_alive = pid is not None and start_time(pid) == started
        if is_alive or (pid is None and child is not None and code is None):
            return Status("running" if is_alive else "starting", pid, started)
        result = self._result(attempt)
        if result is not None:
            return Status("ended", pid, started, result=result)
        if pid is None and code is None and time.time() - self._begun(attempt) < STARTING_SECONDS:
            return Status("starting")
        return Status("gone", pid, started, reason=_reason(pid, code))

    def stop(self, attempt: Attempt, *, kill: bool = False) -> None:
        """SIGTERM to the process, or SIGKILL to all of its session."""
        pid, started = self._identity(attempt)
        if pid is None or start_time(pid) != started:
            return
        with suppress(ProcessLookupError, PermissionError):
            if kill:
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGTERM)

    def _identity(self, attempt: Attempt) -> tuple[int | None, int | None]:
        try:
            found = read_json(attempt.folder / "pid.json")
            return int(found["pid"]), int(found["started"])
        except (StorageError, FileNotFoundError, KeyError, ValueError):
            child = self._children.get(attempt.folder)
            return (child.pid, start_time(child.pid)) if child is not None and child.returncode is None else (None, None)

    def _result(self, attempt: Attempt) -> dict[str, object] | None:
        path = attempt.folder / "result.json"
        return dict(read_json(path)) if path.exists() else None

    def _begun(self, attempt: Attempt) -> float:
        try:
            return (attempt.folder / "job.json").stat().st_mtime
        except FileNotFoundError:
            return 0.0


def start_time(pid: int) -> int | None:
    """Clock ticks between the machine's start and the process's; None when there is no such process (or only its zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name in brackets may hold anything
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _reason(pid: int | None, code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"it was ended by {signal.Signals(-code).name}"
    if code:
        return f"it ended with code {code} and left no result"
    return "its process is gone and left no result" if pid is not None else "its process never began"
