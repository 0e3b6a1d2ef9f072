"""A subprocess per job on this machine, in a session of its own: it survives its starter, and is found again by its pid file.

Between the start of a process and its pid file there is a window in which its starter may be killed. The process holds a lock on its
log from its first instant (it gets the locked file as its output), so whether there is one is known at any time.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from danlu.errors import JobError, StorageError
from danlu.executors.base import Attempt, Status
from danlu.executors.processes import MARK, boot_id, family, kill_family, session_left_by, start_time
from danlu.files import read_json, storage_errors

KEPT_ENVIRONMENT = (
    *("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "TZ", "VIRTUAL_ENV", "XDG_CACHE_HOME"),
    *("CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "MKL_NUM_THREADS", "OMP_NUM_THREADS"),
    *("DANLU_PRICE_PER_HOUR", "DANLU_TRACK"),
)
"""What a job sees of the server's environment: nothing that could hold a secret (tokens, database URL)."""
# -P: the folder in which it runs is no place to import from.
CHILD = (sys.executable, "-P", "-m", "danlu.worker.child")


_CHILDREN: dict[Path, subprocess.Popen[bytes]] = {}
"""What this process has started and not yet seen dead, by the attempt's folder; it outlives executors."""


class LocalExecutor:
    """Runs `python -m danlu.worker.child FOLDER` for each attempt."""

    def __init__(self, home: Path, *, command: Sequence[str] = CHILD) -> None:
        if not Path("/proc/self/stat").exists():
            raise JobError("jobs need Linux", why="their processes are found by /proc", fix="train with `danlu run`, or run the studio in a Linux container")
        self.home, self.command = home, list(command)

    def start(self, attempt: Attempt, environment: Mapping[str, str]) -> None:
        """Start the attempt's process.

        Raises:
            StorageError: its folder or log cannot be written, or the machine has no room for another process.
        """
        kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        own = {"DANLU_HOME": str(self.home), MARK: str(attempt.folder.parent), "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
        with storage_errors(attempt.folder), (attempt.folder / "log.txt").open("ab") as log:
            for name in ("pid.json", "result.json"):  # of an attempt of the same number, before the database was restored from a backup
                (attempt.folder / name).unlink(missing_ok=True)
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._spawn(attempt, log, kept | own | dict(environment))

    def _spawn(self, attempt: Attempt, log: IO[bytes], environment: dict[str, str]) -> None:
        _CHILDREN[attempt.folder] = subprocess.Popen(
            [*self.command, str(attempt.folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=attempt.folder,
            env=environment,
            start_new_session=True,
            close_fds=True,
        )

    def poll(self, attempt: Attempt) -> Status:
        """How the attempt stands, from its files and the process table."""
        child = _CHILDREN.get(attempt.folder)
        code = child.poll() if child is not None else None  # also takes the zombie away
        name = _name(attempt)
        if name is not None:
            pid, started, boot = name
            if boot != boot_id():
                return self._over(attempt, Status("gone", pid, started, "the machine was restarted", is_to_blame=False))
            if start_time(pid) == started:
                return Status("running", pid, started)
            return self._over(attempt, Status("gone", pid, started, _reason(code)))
        if _is_log_held(attempt):
            return Status("starting")
        if (name := _name(attempt)) is not None:  # it wrote its name and ended while we looked
            return self._over(attempt, Status("gone", name[0], name[1], _reason(code)))
        return self._over(attempt, Status("gone", reason="its process never began" if code is None else _reason(code), is_to_blame=code is not None))

    def stop(self, attempt: Attempt, *, kill: bool = False) -> None:
        """SIGTERM to the process, or SIGKILL to all that it has started."""
        if kill:
            self.clear(attempt)
            return
        name = _name(attempt)
        if name is not None and name[2] == boot_id() and start_time(name[0]) == name[1]:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(name[0], signal.SIGTERM)

    def clear(self, attempt: Attempt) -> None:
        """Kill every process of the job, whatever has become of the one that began them."""
        name = _name(attempt)
        session = session_left_by(name[0], name[1]) if name is not None and name[2] == boot_id() else None
        kill_family(attempt.folder.parent, session)
        child = _CHILDREN.get(attempt.folder)
        if child is not None:
            with suppress(subprocess.TimeoutExpired):  # it was killed above: this only takes its zombie away
                child.wait(1.0)
                del _CHILDREN[attempt.folder]

    def processes(self, attempt: Attempt) -> list[int]:
        """Living processes of the attempt's job."""
        name = _name(attempt)
        return family(attempt.folder.parent, name[0] if name is not None else None)

    def _over(self, attempt: Attempt, gone: Status) -> Status:
        """`gone`, unless it left a result."""
        path = attempt.folder / "result.json"
        if not path.exists():
            return gone
        try:
            result = read_json(path)
        except StorageError as error:
            return Status("gone", gone.pid, gone.pid_started, f"{path.name}: {error.why}")
        if not isinstance(result, dict):
            return Status("gone", gone.pid, gone.pid_started, f"{path.name} holds no result")
        return Status("ended", gone.pid, gone.pid_started, result=result)


def _name(attempt: Attempt) -> tuple[int, int, str] | None:
    """Pid, start time and boot that the process wrote down; None while it has not."""
    try:
        found: dict[str, Any] = read_json(attempt.folder / "pid.json")
        return int(found["pid"]), int(found["started"]), str(found["boot"])
    except (StorageError, FileNotFoundError, KeyError, TypeError, ValueError):
        return None


def _is_log_held(attempt: Attempt) -> bool:
    try:
        with (attempt.folder / "log.txt").open("r+b") as log:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _reason(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"it was ended by {signal.Signals(-code).name}"
    if code:
        return f"it ended with code {code} and left no result"
    return "its process is gone and left no result"
