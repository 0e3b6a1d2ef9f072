"""The supervisor of one home folder: takes jobs from the queue, keeps their processes and the database in step.

It holds nothing that it could not find again: kill it at any instant, start it again, and it goes on. Jobs live in processes of
their own and do not notice. Only one supervisor works on a home folder at a time, and it looks after the jobs of that home only.
Waiting is counted by the monotonic clock; the clock on the wall may jump.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from danlu.errors import ConflictError, DatabaseError, RunBusyError, StorageError
from danlu.executors.base import Attempt, Executor, Status
from danlu.executors.local import LocalExecutor
from danlu.executors.processes import start_time
from danlu.executors.slots import Slots
from danlu.files import storage_errors, sweep, write_bytes, write_json
from danlu.services.platform import moving
from danlu.services.platform.platform import Platform
from danlu.settings import Settings
from danlu.store import jobs, workers
from danlu.store.engine import Connection, Database
from danlu.store.ids import new_id
from danlu.store.jobs import Job
from danlu.worker import ingest
from danlu.worker.ingest import DEFECTS
from danlu.worker.kinds.base import KINDS, JobKind

logger = logging.getLogger(__name__)
TICK_SECONDS = 0.5
BEAT_SECONDS = 5.0
ASK_AGAIN_SECONDS = 5.0
"""A job that was told to stop and goes on is told again after that."""
KILL_AFTER_SECONDS = 6.0
"""A job that is cancelled, or has nothing to save, and has not ended by then is killed with everything it started."""
SAVING_SECONDS = 900.0
"""What a job that can write a checkpoint gets for it when it is paused."""
REST_SECONDS = (0.0, 5.0, 20.0)
"""How long a job rests after it was lost, by how often it has got no further."""
ROOM_BYTES = 1024 * 1024
"""A job starts only where so much can be written to the home folder."""


class Supervisor:
    """One pass over everything is a `tick`; `run` ticks until it is told to stop."""

    def __init__(
        self,
        database: Database,
        home: Path,
        executor: Executor,
        *,
        num_slots: int | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.database, self.home, self.executor = database, home, executor
        self.clock, self.monotonic = clock, monotonic
        self.slots = Slots.of_machine(num_slots)
        self.id = new_id("wrk")
        self.home_id = workers.home_id(database, home)
        self.alarm: str | None = None
        """What keeps it from working: said once in the log, and shown until it is over."""
        self._asked: dict[tuple[str, int, str], tuple[float, float]] = {}
        self._resting: dict[str, float] = {}
        self._last_beat = float("-inf")

    @classmethod
    def of(cls, platform: Platform) -> Supervisor:
        """The supervisor of an opened home, with the slots of its settings."""
        return cls(platform.database, platform.home, LocalExecutor(platform.home), num_slots=platform.settings.worker_slots)

    def run(self, is_stopping: Callable[[], bool]) -> None:
        """Work until `is_stopping`; jobs that run then go on without a supervisor.

        Raises:
            RunBusyError: another supervisor works on this home folder.
        """
        with self.lock(), ingest.running(self.database, self.home):
            self._move_in()
            with suppress(StorageError):  # what stays is only in the way
                sweep(self.home / "jobs")
            while not is_stopping():
                try:
                    self.tick()
                except StorageError as error:  # a full disk or a database that is away: the next tick tries again
                    self._sound(error)
                time.sleep(TICK_SECONDS)

    def _move_in(self) -> None:
        """See whether the home folder was moved since its last worker; jobs name folders inside of it."""
        platform = Platform(replace(Settings.from_environment(), home=self.home), self.database)
        try:
            moving.move_in(platform, moving.folder_before(platform))
        except StorageError as error:
            self._sound(error)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only supervisor of this home folder (and of a SQLite file); the kernel gives the lock back when the process dies.

        Raises:
            RunBusyError: another one is.
        """
        folders = {self.home, self.database.path.parent if self.database.path is not None else self.home}
        with ExitStack() as held:
            for folder in sorted(folders):
                with storage_errors(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                    file = held.enter_context((folder / "worker.lock").open("a+"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise RunBusyError(
                        f"another worker works on {folder}",
                        why="two of them would start the same jobs",
                        fix="stop the other one, or give this one another DANLU_HOME",
                    ) from error
            yield

    def tick(self) -> None:
        """Look after what runs, make room for what is more urgent, start what can start.

        Raises:
            StorageError: the database or the home folder cannot be used; nothing is lost, the next tick goes on.
        """
        now = self.monotonic()
        self._resting = {job_id: until for job_id, until in self._resting.items() if until > now}
        with self.database.reading() as connection:
            held = jobs.held(connection, self.home_id)
        trouble: list[DatabaseError] = []
        alive = [job for job in held if self._look_after(job, trouble)]
        if now - self._last_beat >= BEAT_SECONDS:
            self._beat(alive)
        with self.database.reading() as connection:
            head = jobs.next_job(connection, home=self.home_id, total_slots=self.slots.number, now=self.clock(), resting=self._resting)
            victims = [] if head is None else self._victims(connection)
            can_start = head is not None and jobs.free_slots(connection, head, home=self.home_id, total_slots=self.slots.number) is not None
        for victim in victims:
            with suppress(ConflictError), self.database.writing() as connection:  # it may have ended meanwhile
                jobs.pause(connection, victim.id, requeue=True)
        if can_start:
            self._check_room()
            while self._start_next():
                pass
        if trouble:
            raise trouble[0]
        self._calm()

    def attempt_of(self, job: Job) -> Attempt:
        """The running attempt of a job, and its folder."""
        return Attempt(job.id, job.attempt, self.home / "jobs" / job.id / f"attempt-{job.attempt}")

    def _victims(self, connection: Connection) -> list[Job]:
        return jobs.to_preempt(connection, home=self.home_id, total_slots=self.slots.number, now=self.clock(), resting=self._resting, may_pause=_can_pause)

    def _look_after(self, job: Job, trouble: list[DatabaseError]) -> bool:
        """Settle a job whose process has ended; whether it lives. What goes wrong with one job must not keep the others waiting."""
        attempt = self.attempt_of(job)
        try:
            status = self.executor.poll(attempt)
        except OSError as error:
            logger.warning("job %s cannot be looked at: %s", job.id, error)
            return False
        try:
            if status.state == "ended":
                self._end(job, attempt, status)
            elif status.state == "gone":
                self._lose(job, attempt, reason=status.reason, is_to_blame=status.is_to_blame)
            else:
                self._watch(job, attempt, status)
                return True
        except ConflictError as error:  # someone else has settled it since we looked
            logger.info("%s", error.what)
        except DatabaseError as error:
            trouble.append(error)
        return False

    def _watch(self, job: Job, attempt: Attempt, status: Status) -> None:
        if job.worker_id != self.id or job.pid != status.pid:
            with self.database.writing() as connection:
                jobs.bind(connection, job.id, job.attempt, worker_id=self.id, pid=status.pid, pid_started=status.pid_started)
        if job.state in ("cancelling", "pausing"):
            self._ask_to_stop(job, attempt)

    def _ask_to_stop(self, job: Job, attempt: Attempt) -> None:
        """Ask, and ask again; kill what has nothing to save or takes too long."""
        key, now = (job.id, job.attempt, job.state), self.monotonic()
        first, last = self._asked.get(key, (now, float("-inf")))
        patience = SAVING_SECONDS if job.state == "pausing" and _can_pause(job) else KILL_AFTER_SECONDS
        if now - first > patience:
            self.executor.stop(attempt, kill=True)
        elif now - last >= ASK_AGAIN_SECONDS:
            self.executor.stop(attempt)
            self._asked[key] = (first, now)

    def _beat(self, alive: list[Job]) -> None:
        with self.database.writing() as connection:
            if not workers.beat(connection, self.id, self.clock(), alarm=self.alarm):
                self._register(connection)
            for job in alive:
                try:
                    jobs.beat(connection, job.id, job.attempt, progress=max(job.progress, _progress(job)))
                except ConflictError as error:
                    logger.info("%s", error.what)
        self._last_beat = self.monotonic()

    def _end(self, job: Job, attempt: Attempt, status: Status) -> None:
        result = status.result or {}
        state, error = str(result.get("state")), result.get("error")
        if state not in ("succeeded", "failed", "paused") or result.get("is_worth_another_try"):
            self._lose(job, attempt, reason=(error or {}).get("why", f"its result says {state[:40]!r}"), error=error)
            return
        self.executor.clear(attempt)
        if state == "paused" and not job.is_paused_by_user:
            state = "queued"  # it made room, or its process was told to stop from outside
        progress = max(job.progress, _progress(job))
        with self.database.writing() as connection:
            jobs.finish(connection, job.id, job.attempt, state, result=result.get("result"), error=error, progress=progress)
        self._forget(job)

    def _lose(self, job: Job, attempt: Attempt, *, reason: str, error: dict[str, str] | None = None, is_to_blame: bool = True) -> None:
        self.executor.clear(attempt)
        progress = max(job.progress, _progress(job))
        with self.database.writing() as connection:
            after = jobs.lost(connection, job.id, job.attempt, reason=reason, error=error, progress=progress, is_to_blame=is_to_blame)
        self._resting[job.id] = self.monotonic() + REST_SECONDS[min(after.attempts_without_progress, len(REST_SECONDS) - 1)]
        self._forget(job)

    def _forget(self, job: Job) -> None:
        for state in ("cancelling", "pausing"):
            self._asked.pop((job.id, job.attempt, state), None)

    def _start_next(self) -> bool:
        with self.database.writing() as connection:
            job = jobs.claim(connection, worker_id=self.id, home=self.home_id, total_slots=self.slots.number, now=self.clock(), resting=self._resting)
            taken = [] if job is None else jobs.slots_of(connection, job.id)
        if job is None:
            return False
        attempt = self.attempt_of(job)
        try:
            with storage_errors(attempt.folder):
                attempt.folder.mkdir(parents=True, exist_ok=True)
            self.executor.clear(attempt)
            write_json(attempt.folder / "job.json", {"id": job.id, "attempt": job.attempt, "payload": job.payload})
            write_json(attempt.folder.parent / "current.json", {"attempt": job.attempt})
            self.executor.start(attempt, self.slots.environment(taken))
        except StorageError as error:
            self._resting[job.id] = self.monotonic() + REST_SECONDS[-1]
            with self.database.writing() as connection:
                jobs.lost(connection, job.id, job.attempt, reason=error.why, is_to_blame=False)
            raise
        return True

    def _check_room(self) -> None:
        """Leave jobs in the queue while the home folder cannot be written: they would only fail.

        Raises:
            StorageError: it is full, read-only or broken.
        """
        probe = self.home / "jobs" / ".room"
        write_bytes(probe, b"\0" * ROOM_BYTES)
        probe.unlink(missing_ok=True)

    def _sound(self, error: StorageError) -> None:
        said = f"{error.what}: {error.why}"
        if said != self.alarm:
            logger.error("%s", error)
        self.alarm = said

    def _calm(self) -> None:
        """The tick went well; the database is told with the next beat."""
        if self.alarm is not None:
            logger.info("all is well again: %s", self.alarm)
            self.alarm = None
            self._last_beat = float("-inf")

    def _register(self, connection: Connection) -> None:
        now, pid = self.clock(), os.getpid()
        worker = workers.Worker(self.id, socket.gethostname(), self.home_id, str(self.home), pid, start_time(pid) or 0, self.slots.number, now, now, self.alarm)
        workers.register(connection, worker)


def _kind(job: Job) -> JobKind | None:
    try:
        kind: JobKind = KINDS.parse(job.payload)
    except ValueError:  # of a plugin that is not installed here, or of another version
        return None
    return kind


def _can_pause(job: Job) -> bool:
    kind = _kind(job)
    return kind is not None and kind.can_pause


def _progress(job: Job) -> float:
    kind = _kind(job)
    try:
        return job.progress if kind is None else kind.progress()
    except DEFECTS as error:  # a kind's defect is its own job's business
        logger.warning("progress of job %s is not known: %r", job.id, error)
        return job.progress
