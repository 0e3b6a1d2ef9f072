"""Jobs: which one runs next, on which slots, and what became of it. `store.queue` looks at all of them.

A job's life: waiting (for other jobs) -> queued -> running -> succeeded | failed | cancelled, with `pausing` and `paused` (or queued
again) between, and `cancelling` before cancelled. Every change that a worker makes names the attempt it belongs to and is refused
when a newer attempt exists, so a worker that was thought dead cannot overwrite what came after it. Every change of a state happens
under one lock of the queue, so none is decided on what another one is about to change (a cancel and an end at the same time, say).

A job stays with the home folder from which it was submitted, or in which it was first started: its files are there. Before it has begun
it may go to another one (`go_to`).

Order: class (express, standard, saver), then position. The first job in this order that may start is the next one; when its slots are
not free, nothing behind it takes them (else a job that needs two slots would wait behind small ones for ever).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, insert, or_, select, text, update

from danlu.errors import ConflictError, JobError
from danlu.store import datasets, runs
from danlu.store.engine import HOME_OPTION
from danlu.store.rows import Noun
from danlu.store.tables import PRIORITIES, job_needs, jobs, slots

MAX_ATTEMPTS_WITHOUT_PROGRESS = 3
"""A job that dies so often without getting further is given up."""
OVER = ("succeeded", "failed", "cancelled")
ON_SLOTS = ("running", "pausing", "cancelling")


@dataclass(frozen=True)
class Job:
    """One queued unit of work."""

    id: str
    project_id: str
    run_id: str | None
    kind: str
    payload: dict[str, Any]
    state: str
    priority: str
    position: float
    num_slots: int
    not_before: float | None
    attempt: int
    progress: float
    attempts_without_progress: int
    is_paused_by_user: bool
    progress_at_start: float
    home: str | None
    """Home folder that it belongs to (`workers.home_id`); None until one has taken it."""
    worker_id: str | None
    pid: int | None
    pid_started: int | None
    heartbeat_at: float | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    started_at: float | None
    finished_at: float | None
    created_by: str | None
    created_at: float
    updated_at: float
    version: int

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.state in OVER


JOBS = Noun(jobs, Job, prefix="job")


def submit(
    connection: Connection,
    *,
    project_id: str,
    kind: str,
    payload: dict[str, Any],
    run_id: str | None = None,
    priority: str = "standard",
    num_slots: int = 1,
    not_before: float | None = None,
    needs: Sequence[str] = (),
    created_by: str | None = None,
    home: str | None = None,
) -> Job:
    """Put a job into the queue; it starts after every job of `needs` has succeeded, in `home` only (that of the database's user by default).

    Raises:
        ConflictError: a job of `needs` does not exist.
    """
    lock(connection)
    job = JOBS.insert(
        connection,
        project_id=project_id,
        run_id=run_id,
        kind=kind,
        payload=payload,
        state="queued",
        priority=priority,
        position=last_position(connection) + 1.0,
        num_slots=num_slots,
        not_before=not_before,
        attempt=0,
        progress=0.0,
        progress_at_start=0.0,
        attempts_without_progress=0,
        is_paused_by_user=False,
        home=home or connection.get_execution_options().get(HOME_OPTION),
        created_by=created_by,
    )
    for needed in needs:
        connection.execute(insert(job_needs).values(job_id=job.id, needs_id=JOBS.get(connection, needed).id))
    if needs:
        change(connection, job.id, state="waiting")
        _settle_waiting(connection)
    return JOBS.get(connection, job.id)


def next_job(connection: Connection, *, home: str, total_slots: int, now: float | None = None, resting: Collection[str] = ()) -> Job | None:
    """The job that this home starts next, once there are slots for it; `resting` ones are passed over. What needs no slot (a chat) waits for none."""
    if connection.execute(select(jobs.c.id).where(jobs.c.state == "queued").limit(1)).first() is None:
        return None  # as nearly always
    now = time.time() if now is None else now
    may_start = [jobs.c.state == "queued", or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now), _is_of(home)]
    if resting:
        may_start.append(jobs.c.id.not_in(list(resting)))
    for fits in (jobs.c.num_slots == 0, jobs.c.num_slots.between(1, total_slots)):
        for priority in PRIORITIES:  # one by one: each is read off the index, however many wait
            first = select(jobs).where(jobs.c.priority == priority, fits, *may_start).order_by(jobs.c.position, jobs.c.id).limit(1)
            row = connection.execute(first).mappings().first()
            if row is not None:
                return Job(**row)
    return None


def free_slots(connection: Connection, job: Job, *, home: str, total_slots: int) -> list[int] | None:
    """Slots on which this job could start now; None when there are too few."""
    taken = set(connection.execute(select(slots.c.number).where(slots.c.worker_home == home)).scalars())
    free = [number for number in range(total_slots) if number not in taken]
    return free[: job.num_slots] if len(free) >= job.num_slots else None


def claim(connection: Connection, *, worker_id: str, home: str, total_slots: int, now: float | None = None, resting: Collection[str] = ()) -> Job | None:
    """Give the next job that may start to this worker, with slots; None when there is none or its slots are taken."""
    now = time.time() if now is None else now
    lock(connection)
    job = next_job(connection, home=home, total_slots=total_slots, now=now, resting=resting)
    given = None if job is None else free_slots(connection, job, home=home, total_slots=total_slots)
    if job is None or given is None:
        return None
    attempt = job.attempt + 1
    for number in given:
        connection.execute(insert(slots).values(worker_home=home, number=number, job_id=job.id, attempt=attempt))
    change(
        connection,
        job.id,
        state="running",
        attempt=attempt,
        home=home,
        worker_id=worker_id,
        pid=None,
        pid_started=None,
        heartbeat_at=now,
        progress_at_start=job.progress,
        started_at=job.started_at or now,
        error=None,
    )
    return JOBS.get(connection, job.id)


def bind(connection: Connection, job_id: str, attempt: int, *, worker_id: str, pid: int | None, pid_started: int | None) -> None:
    """Remember who looks after the attempt, and which process carries it out."""
    _of_attempt(connection, job_id, attempt, worker_id=worker_id, pid=pid, pid_started=pid_started, heartbeat_at=time.time())


def beat(connection: Connection, job_id: str, attempt: int, *, progress: float | None = None) -> None:
    """Say that the attempt is alive, and how far it has come (any number that grows with the work done)."""
    _of_attempt(connection, job_id, attempt, heartbeat_at=time.time(), **({} if progress is None else {"progress": progress}))


def finish(
    connection: Connection,
    job_id: str,
    attempt: int,
    state: str,
    *,
    result: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
    progress: float | None = None,
) -> Job:
    """Record how the attempt ended (`succeeded`, `failed`, `cancelled`, `paused` or `queued` for later), and free its slots.

    A job that was asked to cancel is never shown as finished: whatever the attempt says, it ends as cancelled.
    """
    lock(connection)
    job = JOBS.get(connection, job_id)
    if job.state == "cancelling":
        state, result = "cancelled", None
    more: dict[str, Any] = {"finished_at": time.time()} if state in OVER else {}
    if progress is not None:
        more["progress"] = progress
    _of_attempt(connection, job_id, attempt, state=state, result=result, error=error, pid=None, pid_started=None, worker_id=None, **more)
    if job.kind == "inspect" and state == "succeeded":
        datasets.keep_report(connection, job.payload, result)
    _free(connection, job_id)
    _settle_waiting(connection)
    return JOBS.get(connection, job_id)


def lost(
    connection: Connection,
    job_id: str,
    attempt: int,
    *,
    reason: str,
    error: dict[str, Any] | None = None,
    progress: float | None = None,
    is_to_blame: bool = True,
) -> Job:
    """Record that the attempt ended without its work being done: try again, or give up (with `error`) when it keeps ending where it was.

    An attempt that is not to blame (its process never began, or was told to stop) uses up no patience.
    """
    beat(connection, job_id, attempt, progress=progress)
    job = JOBS.get(connection, job_id)
    if job.state == "cancelling":
        return finish(connection, job_id, attempt, "cancelled")
    is_to_blame = is_to_blame and job.state == "running"
    without = 0 if job.progress > job.progress_at_start else job.attempts_without_progress + int(is_to_blame)
    _of_attempt(connection, job_id, attempt, attempts_without_progress=without)
    if without >= MAX_ATTEMPTS_WITHOUT_PROGRESS:
        died = JobError(f"the job died {without} times in a row without getting further", why=reason, fix="read its log; start it again when the cause is gone")
        return finish(connection, job_id, attempt, "failed", error=error or died.to_dict())
    return finish(connection, job_id, attempt, "paused" if job.is_paused_by_user else "queued")


def cancel(connection: Connection, job_id: str) -> Job:
    """Ask for the end of a job: at once where nothing runs yet, else as soon as its process has stopped.

    Raises:
        ConflictError: it is over already.
    """
    lock(connection)
    job = JOBS.get(connection, job_id)
    if job.is_over:
        raise ConflictError(f"job {job_id} is over ({job.state})", why="there is nothing left to cancel", fix="start it again, or delete it")
    state = "cancelling" if job.state in ON_SLOTS else "cancelled"
    change(connection, job_id, state=state, **({} if state == "cancelling" else {"finished_at": time.time()}))
    _settle_waiting(connection)
    return JOBS.get(connection, job_id)


def pause(connection: Connection, job_id: str, *, requeue: bool = False) -> Job:
    """Ask a running job to write a checkpoint and stop, or hold back one that has not started.

    With `requeue` it only makes room, and goes on by itself when there is room again.

    Raises:
        ConflictError: it is over, or leaving already.
    """
    lock(connection)
    job = JOBS.get(connection, job_id)
    if job.state in ("running", "pausing"):
        return JOBS.update(connection, job_id, state="pausing", is_paused_by_user=job.is_paused_by_user or not requeue)
    if job.state == "queued":
        change(connection, job_id, state="paused", is_paused_by_user=True)
        return JOBS.get(connection, job_id)
    if job.state == "paused":
        return job
    raise ConflictError(f"job {job_id} is {job.state}", why="only a queued or running job can be paused", fix="wait, or start it again")


def resume(connection: Connection, job_id: str) -> Job:
    """Put a paused, failed or cancelled job back into the queue; it goes on from its last checkpoint.

    Raises:
        ConflictError: it is in the queue, running, or done.
    """
    lock(connection)
    job = JOBS.get(connection, job_id)
    if job.state not in ("paused", "failed", "cancelled"):
        raise ConflictError(f"job {job_id} is {job.state}", why="only a paused, failed or cancelled job can go on", fix="wait for it, or cancel it first")
    JOBS.update(connection, job_id, state="waiting", is_paused_by_user=False, attempts_without_progress=0, error=None, result=None, finished_at=None)
    runs.follow(connection, job_id)
    _settle_waiting(connection)
    return JOBS.get(connection, job_id)


def check_may_go(job: Job, home: str) -> None:
    """Refuse to give a job to a home other than its own, once it has files there.

    Raises:
        ConflictError: it has begun, or belongs to that home already.
    """
    if job.home == home:
        raise ConflictError(f"job {job.id} is this machine's already", why="it waits for its worker", fix="see whether its worker runs (`danlu jobs workers`)")
    if job.attempt or job.state not in ("queued", "waiting", "paused"):
        raise ConflictError(f"job {job.id} has begun", why=f"it is {job.state}, and its files lie where it began", fix="duplicate its run here to begin anew")


def go_to(connection: Connection, job_id: str, *, home: str, payload: dict[str, Any]) -> Job:
    """Give a job that has not begun to another home; `payload` names what it reads and writes there.

    Raises:
        ConflictError: it has begun, or belongs to that home already.
    """
    lock(connection)
    check_may_go(JOBS.get(connection, job_id), home)
    change(connection, job_id, home=home, payload=payload)
    return JOBS.get(connection, job_id)


def _is_of(home: str) -> ColumnElement[bool]:
    return or_(jobs.c.home.is_(None), jobs.c.home == home)


def last_position(connection: Connection) -> float:
    """Where the last of all jobs stands."""
    return float(connection.execute(select(func.max(jobs.c.position))).scalar() or 0.0)


def lock(connection: Connection) -> None:
    """Let one change of states happen after the other (SQLite's write lock does it by itself)."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(724201)"))


def change(connection: Connection, job_id: str, **values: Any) -> None:
    """Change a job, and its run with it, whatever its state; to be called under the lock."""
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values, updated_at=time.time(), version=jobs.c.version + 1))
    runs.follow(connection, job_id)


def _of_attempt(connection: Connection, job_id: str, attempt: int, **values: Any) -> None:
    """Change a job on behalf of one attempt.

    Raises:
        ConflictError: a newer attempt exists, or this one is over.
    """
    lock(connection)
    mine = and_(jobs.c.id == job_id, jobs.c.attempt == attempt, jobs.c.state.in_(ON_SLOTS))
    if not connection.execute(update(jobs).where(mine).values(**values, updated_at=time.time(), version=jobs.c.version + 1)).rowcount:
        job = JOBS.get(connection, job_id)
        raise ConflictError(
            f"attempt {attempt} of job {job_id} may not change it", why=f"it is {job.state}, at attempt {job.attempt}", fix="nothing: the newer attempt counts"
        )
    if "state" in values:
        runs.follow(connection, job_id)


def _free(connection: Connection, job_id: str) -> None:
    connection.execute(delete(slots).where(slots.c.job_id == job_id))


def _settle_waiting(connection: Connection) -> None:
    """Queue every waiting job whose needs have succeeded; cancel those whose needs never will."""
    needed = jobs.alias("needed")
    join = job_needs.join(needed, needed.c.id == job_needs.c.needs_id)
    while True:
        hopeless = exists(select(1).select_from(join).where(job_needs.c.job_id == jobs.c.id, needed.c.state.in_(("failed", "cancelled"))))
        error = JobError("a job that this one needs did not succeed", why="it failed or was cancelled", fix="start that one again, then this one").to_dict()
        gone = update(jobs).where(jobs.c.state == "waiting", hopeless)
        gone = gone.values(state="cancelled", error=error, finished_at=time.time(), version=jobs.c.version + 1)
        if not (ended := connection.execute(gone.returning(jobs.c.id)).scalars().all()):
            break  # a cancelled job may be needed by others: look again until nothing changes
        for job_id in ended:
            runs.follow(connection, job_id)
    unmet = exists(select(1).select_from(join).where(job_needs.c.job_id == jobs.c.id, needed.c.state != "succeeded"))
    ready = update(jobs).where(jobs.c.state == "waiting", ~unmet).values(state="queued", version=jobs.c.version + 1)
    for job_id in connection.execute(ready.returning(jobs.c.id)).scalars().all():
        runs.follow(connection, job_id)
