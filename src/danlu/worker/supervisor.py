"""The supervisor of one home folder: takes jobs from the queue, keeps their processes and the database in step.

It holds nothing that it could not find again: kill it at any instant, start it again, and it goes on. Jobs live in processes of
their own and do not notice. Only one supervisor works on a home folder at a time.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from danlu.errors import ConflictError, RunBusyError, StorageError, UnknownNameError
from danlu.executors.base import Attempt, Executor, Status
from danlu.executors.local import start_time
from danlu.files import storage_errors, write_json
from danlu.store import jobs, workers
from danlu.store.engine import Database
from danlu.store.ids import new_id
from danlu.store.jobs import JOBS, ON_SLOTS, Job
from danlu.worker import ingest
from danlu.worker.kinds.base import KINDS, JobKind

logger = logging.getLogger(__name__)
TICK_SECONDS = 0.5
BEAT_SECONDS = 5.0
KILL_AFTER_SECONDS = 6.0
"""A cancelled job that has not ended by itself after that is killed, with everything it started."""


class Supervisor:
    """One pass over everything is a `tick`; `run` ticks until it is told to stop."""

    def __init__(self, database: Database, home: Path, executor: Executor, *, num_slots: int = 1, clock: Callable[[], float] = time.time) -> None:
        self.database, self.home, self.executor, self.num_slots, self.clock = database, home, executor, num_slots, clock
        self.id = new_id("wrk")
        self._asked: dict[tuple[str, int], float] = {}
        self._last_beat = 0.0

    def run(self, is_stopping: Callable[[], bool]) -> None:
        """Work until `is_stopping`; jobs that run then go on without a supervisor.

        Raises:
            RunBusyError: another supervisor works on this home folder.
        """
        with self.lock(), ingest.running(self.database, self.home):
            self._register()
            while not is_stopping():
                try:
                    self.tick()
                except StorageError as error:  # a full disk or a database that is away: the next tick tries again
                    logger.error("%s", error)
                time.sleep(TICK_SECONDS)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only supervisor of this home folder; the kernel gives the lock back when the process dies."""
        with storage_errors(self.home):
            self.home.mkdir(parents=True, exist_ok=True)
            file = (self.home / "worker.lock").open("a+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunBusyError(
                    f"another worker works on {self.home}",
                    why="two of them would start the same jobs",
                    fix="stop the other one, or give this one another DANLU_HOME",
                ) from error
            yield

    def tick(self) -> None:
        """Look after what runs, make room for what is more urgent, start what can start."""
        with self.database.reading() as connection:
            held = JOBS.all(connection, state=list(ON_SLOTS))
        is_beat_due = self.clock() - self._last_beat >= BEAT_SECONDS
        for job in held:
            self._look_after(job, is_beat_due=is_beat_due)
        if is_beat_due:
            self._last_beat = self.clock()
            with self.database.writing() as connection:
                workers.beat(connection, self.id, self.clock())
        with self.database.reading() as connection:
            victims = jobs.to_preempt(connection, home=str(self.home), total_slots=self.num_slots, now=self.clock())
        for victim in victims:
            with self.database.writing() as connection:
                jobs.pause(connection, victim.id, requeue=True)
        while self._start_next():
            pass

    def attempt_of(self, job: Job) -> Attempt:
        """The running attempt of a job, and its folder."""
        return Attempt(job.id, job.attempt, self.home / "jobs" / job.id / f"attempt-{job.attempt}")

    def _look_after(self, job: Job, *, is_beat_due: bool) -> None:
        attempt = self.attempt_of(job)
        status = self.executor.poll(attempt)
        try:
            if status.state == "ended":
                self._end(job, status)
            elif status.state == "gone":
                self._lose(job, status)
            else:
                self._watch(job, attempt, status, is_beat_due=is_beat_due)
        except ConflictError as error:  # someone else has settled it since we looked
            logger.info("%s", error.what)

    def _watch(self, job: Job, attempt: Attempt, status: Status, *, is_beat_due: bool) -> None:
        if job.pid is None and status.pid is not None and status.pid_started is not None:
            with self.database.writing() as connection:
                jobs.bind(connection, job.id, job.attempt, pid=status.pid, pid_started=status.pid_started)
        if job.state in ("cancelling", "pausing"):
            self._ask_to_stop(job, attempt)
        if is_beat_due:
            with self.database.writing() as connection:
                jobs.beat(connection, job.id, job.attempt, progress=max(job.progress, self._progress(job)))

    def _ask_to_stop(self, job: Job, attempt: Attempt) -> None:
        """Ask once; kill when a cancelled job does not go."""
        key = (job.id, job.attempt)
        first = self._asked.setdefault(key, self.clock())
        if first == self.clock() or first + TICK_SECONDS > self.clock():
            self.executor.stop(attempt)
        elif job.state == "cancelling" and self.clock() - first > KILL_AFTER_SECONDS:
            self.executor.stop(attempt, kill=True)

    def _end(self, job: Job, status: Status) -> None:
        result = status.result or {}
        state = str(result.get("state"))
        if state == "paused" and not job.is_paused_by_user:
            state = "queued"  # it made room, or its process was told to stop from outside
        with self.database.writing() as connection:
            jobs.beat(connection, job.id, job.attempt, progress=max(job.progress, self._progress(job)))
            jobs.finish(connection, job.id, job.attempt, state, result=result.get("result"), error=result.get("error"))
        self._asked.pop((job.id, job.attempt), None)

    def _lose(self, job: Job, status: Status) -> None:
        with self.database.writing() as connection:
            jobs.beat(connection, job.id, job.attempt, progress=max(job.progress, self._progress(job)))
            jobs.lost(connection, job.id, job.attempt, reason=status.reason, has_begun=status.pid is not None)
        self._asked.pop((job.id, job.attempt), None)

    def _start_next(self) -> bool:
        with self.database.writing() as connection:
            job = jobs.claim(connection, worker_id=self.id, home=str(self.home), total_slots=self.num_slots, now=self.clock())
        if job is None:
            return False
        attempt = self.attempt_of(job)
        try:
            with storage_errors(attempt.folder):
                attempt.folder.mkdir(parents=True, exist_ok=True)
            write_json(attempt.folder / "job.json", {"id": job.id, "attempt": job.attempt, "payload": job.payload})
            write_json(attempt.folder.parent / "current.json", {"attempt": job.attempt})
            self.executor.start(attempt)
        except StorageError as error:
            with self.database.writing() as connection:
                jobs.lost(connection, job.id, job.attempt, reason=error.why, has_begun=True)
            raise
        return True

    def _progress(self, job: Job) -> float:
        try:
            kind: JobKind = KINDS.parse(job.payload)
            return kind.progress()
        except (UnknownNameError, ValueError, OSError):
            return job.progress

    def _register(self) -> None:
        now = self.clock()
        worker = workers.Worker(self.id, socket.gethostname(), str(self.home), os.getpid(), start_time(os.getpid()) or 0, self.num_slots, now, now)
        with self.database.writing() as connection:
            workers.register(connection, worker)
