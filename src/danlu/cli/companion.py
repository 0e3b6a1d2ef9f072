"""The worker that `danlu studio` starts beside itself: a process of its own, so that neither one's end disturbs the other's work.

Killed servers leave their worker behind, at work. The next server starts one too, which waits until the first is gone. A server that
is stopped in the ordinary way takes the worker of its home with it; jobs that run go on, and the next worker finds them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from danlu.errors import StorageError
from danlu.files import read_json, write_json

RESTART_SECONDS = (1.0, 2.0, 5.0, 15.0, 30.0)
STOP_SECONDS = 10.0


class Companion:
    """Keeps a worker running."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="worker", daemon=True)
        self._child: subprocess.Popen[bytes] | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have a worker until the block ends."""
        self._thread.start()
        try:
            yield
        finally:
            self._is_stopping.set()
            self._thread.join(STOP_SECONDS)
            self._stop()

    def _keep(self) -> None:
        num_ended = 0
        while not self._is_stopping.is_set():
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "danlu", "worker", "--beside", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=os.environ | {"DANLU_HOME": str(self.home)},
            )
            while self._child.poll() is None and not self._is_stopping.wait(0.5):
                pass
            if not self._is_stopping.wait(RESTART_SECONDS[min(num_ended, len(RESTART_SECONDS) - 1)]):
                num_ended += 1

    def _stop(self) -> None:
        """Tell the child to stop, and the worker that a killed server left behind."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
        left = companion_of(self.home)
        if left is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(left, signal.SIGTERM)
        if self._child is not None:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(STOP_SECONDS)


def note(home: Path) -> None:
    """Write down that this process is the worker that a server started."""
    write_json(home / "companion.json", {"pid": os.getpid(), "started": start_time(os.getpid())})


def companion_of(home: Path) -> int | None:
    """The process of the worker that a server of this home started, if it lives."""
    try:
        found = read_json(home / "companion.json")
        pid, started = int(found["pid"]), found["started"]
    except (StorageError, OSError, KeyError, TypeError, ValueError):
        return None
    return pid if started is not None and start_time(pid) == started else None


def start_time(pid: int) -> int | None:
    """When a process began, so that its number cannot be mistaken for another process's."""
    from danlu.executors.processes import start_time as of_process

    return of_process(pid)
