"""Operations on a home folder of this machine, in this process, as its owner."""

from __future__ import annotations

import inspect
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Literal, ParamSpec, TypeVar

import orjson

from danlu.client.events import POLL_SECONDS, Happening
from danlu.executors.processes import start_time
from danlu.files import storage_errors
from danlu.services.platform import uploads
from danlu.services.platform.access import Actor
from danlu.services.platform.chat import EngineChoice, answer, load_engine
from danlu.services.platform.jobs import get_job
from danlu.services.platform.operations import Operation
from danlu.services.platform.platform import Platform
from danlu.services.platform.runs import get_run
from danlu.services.platform.streams import LogSource, RunSource
from danlu.store import workers
from danlu.store.uploads import Upload

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

    @property
    def patience_seconds(self) -> float:
        """None: a home that cannot be read is not about to come back."""
        return 0.0

    def call(self, operation: Operation[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Carry out an operation."""
        if operation.name == answer.name:  # it waits for a model, which a worker has to load meanwhile
            named = inspect.signature(operation.function).bind(None, *args, **kwargs).arguments
            self.call(load_engine, named["project_id"], EngineChoice(model=named["body"].model))
        result = operation(self.platform, self.actor, *args, **kwargs)
        if operation.verb == "POST":
            self.wake()
        return result

    def append(self, upload_id: str, offset: int, chunk: bytes, sha256: str) -> Upload:
        """Add a chunk to an upload."""
        return uploads.append(self.platform, self.actor, upload_id, offset=offset, chunk=chunk, sha256=sha256)

    def follow(self, noun: Literal["runs", "jobs"], id: str, position: str | None = None) -> Iterator[Happening]:
        """What happens to a run, or in the log of a job."""
        if noun == "runs":
            self.call(get_run, id)
        else:
            self.call(get_job, id)
        source = (RunSource if noun == "runs" else LogSource)(self.platform, id)
        position = position or source.start
        while True:
            found = source.read(position)
            for message in found:
                position = message.position or position
                yield Happening(message.event, orjson.loads(message.data), message.position)
            if not found and source.is_over():
                return
            if not found:
                time.sleep(POLL_SECONDS)

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
                    [sys.executable, "-P", "-m", "danlu.client.working"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
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
        home = workers.home_id(self.platform.database, self.platform.home)
        with self.platform.database.reading() as connection:
            known = [worker for worker in workers.all_workers(connection) if worker.home == home]
        here, now = socket.gethostname(), time.time()
        return any(start_time(worker.pid) == worker.pid_started if worker.host == here else worker.is_alive(now) for worker in known)
