"""Operations on a home folder of this machine, in this process, as its owner."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import ParamSpec, TypeVar

from danlu.executors.processes import start_time
from danlu.files import storage_errors
from danlu.services.platform.access import Actor
from danlu.services.platform.operations import Operation
from danlu.services.platform.platform import Platform
from danlu.store import workers

P = ParamSpec("P")
R = TypeVar("R")

_STARTED: list[subprocess.Popen[bytes]] = []
"""Workers that this process started. They outlive it."""


class LocalTransport:
    """Calls the operations themselves; starts a worker for the home when something waits in its queue and none is there."""

    def __init__(self, platform: Platform, *, starts_worker: bool = True) -> None:
        self.platform, self.starts_worker = platform, starts_worker
        self.actor = Actor.local()

    @property
    def where(self) -> str:
        """The home folder."""
        return str(self.platform.home)

    def call(self, operation: Operation[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Carry out an operation."""
        result = operation(self.platform, self.actor, *args, **kwargs)
        if operation.verb == "POST":
            self.wake()
        return result

    def wake(self) -> None:
        """Start a worker when jobs wait and nobody works on this home.

        The worker ends by itself when the queue has been empty for a while (working.py), and does not mind when this process ends.
        """
        from danlu.client.working import has_work

        if not self.starts_worker or not has_work(self.platform) or self._has_worker():
            return
        home = self.platform.home
        environment = os.environ | {"DANLU_HOME": str(home)}
        with storage_errors(home), (home / "worker.log").open("ab") as log:
            _STARTED.append(
                subprocess.Popen(
                    [sys.executable, "-m", "danlu.client.working"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
                )
            )

    def close(self) -> None:
        """Close the connections to the database. Jobs go on."""
        self.platform.close()

    def _has_worker(self) -> bool:
        """Whether a supervisor of this home lives, or is starting. Two that start at once do no harm: the second finds the lock taken and ends."""
        _STARTED[:] = [child for child in _STARTED if child.poll() is None]
        if _STARTED:
            return True
        with self.platform.database.reading() as connection:
            known = [worker for worker in workers.all_workers(connection) if worker.home == str(self.platform.home)]
        return any(worker.host != socket.gethostname() or start_time(worker.pid) == worker.pid_started for worker in known)
