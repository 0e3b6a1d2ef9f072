"""The queue: which job runs next, on which slots, and what became of it.

A job's life: waiting (for other jobs) -> queued -> running -> succeeded | failed | cancelled, with `pausing` and `paused` (or queued
again) between, and `cancelling` before cancelled. Every change that a worker makes names the attempt it belongs to and is refused
when a newer attempt exists, so a worker that was thought dead cannot overwrite what came after it.

Order: class (express, standard, saver), then position. The first job in this order that may start is the next one; when its slots are
not free, nothing behind it takes them (else a job that needs two slots would wait behind small ones for ever).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, case, delete, exists, func, insert, or_, select, text, update

from danlu.errors import ConflictError, JobError, NoEffectError
from danlu.store import datasets, runs
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
_RANK = case({name: number for number, name in enumerate(PRIORITIES)}, value=jobs.c.priority)


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
) -> Job:
    """Put a job into the queue; it starts after every job of `needs` has succeeded.

    Raises:
        ConflictError: a job of `needs` does not exist.
    """
    last = connection.execute(select(func.max(jobs.c.position))).scalar() or 0.0
    job = JOBS.insert(
        connection,
        project_id=project_id,
        run_id=run_id,
        kind=kind,
        payload=payload,
        state="queued",
        priority=priority,
        position=last + 1.0,
        num_slots=num_slots,
        not_before=not_before,
        attempt=0,
        progress=0.0,
        progress_at_start=0.0,
        attempts_without_progress=0,
        is_paused_by_user=False,
        created_by=created_by,
    )
    for needed in needs:
        connection.execute(insert(job_needs).values(job_id=job.id, needs_id=JOBS.get(connection, needed).id))
    if needs:
        _set(connection, job.id, state="waiting")
        _settle_waiting(connection)
    return JOBS.get(connection, job.id)


def claim(connection: Connection, *, worker_id: str, home: str, total_slots: int, now: float | None = None) -> Job | None:
    """Give the next job that may start to this worker, with slots; None when there is none or its slots are taken."""
    now = time.time() if now is None else now
    _serialise(connection)
    job = _next(connection, now, 0) or _next(connection, now, total_slots)  # what needs no slot (a chat) waits for none
    if job is None:
        return None
    taken = set(connection.execute(select(slots.c.number).where(slots.c.worker_home == home)).scalars())
    free = [number for number in range(total_slots) if number not in taken]
    if len(free) < job.num_slots:
        return None
    attempt = job.attempt + 1
    for number in free[: job.num_slots]:
        connection.execute(insert(slots).values(worker_home=home, number=number, job_id=job.id, attempt=attempt))
    _set(
        connection,
        job.id,
        state="running",
        attempt=attempt,
        worker_id=worker_id,
        pid=None,
        pid_started=None,
        heartbeat_at=now,
        progress_at_start=job.progress,
        started_at=job.started_at or now,
        error=None,
    )
    return JOBS.get(connection, job.id)


def slots_of(connection: Connection, job_id: str) -> list[int]:
    """Slot numbers that a job holds."""
    return list(connection.execute(select(slots.c.number).where(slots.c.job_id == job_id).order_by(slots.c.number)).scalars())


def to_preempt(connection: Connection, *, home: str, total_slots: int, now: float | None = None) -> list[Job]:
    """Savers to pause so that a waiting job of a higher class can start: the ones that started last, no more than needed."""
    now = time.time() if now is None else now
    head = _next(connection, now, total_slots)
    if head is None or head.priority == "saver":
        return []
    held = JOBS.all(connection, state=list(ON_SLOTS))
    on_home = {job.id: len(slots_of(connection, job.id)) for job in held}
    missing = head.num_slots - (total_slots - sum(on_home.values()))
    missing -= sum(on_home[job.id] for job in held if job.state != "running")  # these are leaving already
    chosen = []
    for job in sorted((job for job in held if job.state == "running" and job.priority == "saver"), key=lambda job: -(job.started_at or 0.0)):
        if missing <= 0:
            break
        chosen.append(job)
        missing -= on_home[job.id]
    return chosen if missing <= 0 else []


def bind(connection: Connection, job_id: str, attempt: int, *, pid: int, pid_started: int) -> None:
    """Remember which process carries the attempt out."""
    _of_attempt(connection, job_id, attempt, pid=pid, pid_started=pid_started, heartbeat_at=time.time())


def beat(connection: Connection, job_id: str, attempt: int, *, progress: float | None = None) -> None:
    """Say that the attempt is alive, and how far it has come (any number that grows with the work done)."""
    values: dict[str, Any] = {"heartbeat_at": time.time()}
    if progress is not None:
        values["progress"] = progress
    _of_attempt(connection, job_id, attempt, **values)


def finish(connection: Connection, job_id: str, attempt: int, state: str, *, result: dict[str, Any] | None = None, error: dict[str, Any] | None = None) -> Job:
    """Record how the attempt ended (`succeeded`, `failed`, `cancelled`, `paused` or `queued` for later), and free its slots.

    A job that was asked to cancel is never shown as finished: whatever the attempt says, it ends as cancelled.
    """
    job = JOBS.get(connection, job_id)
    if job.state == "cancelling":
        state, result = "cancelled", None
    over = {"finished_at": time.time()} if state in OVER else {}
    _of_attempt(connection, job_id, attempt, state=state, result=result, error=error, pid=None, pid_started=None, worker_id=None, **over)
    if job.kind == "inspect" and state == "succeeded":
        datasets.keep_report(connection, job.payload, result)
    _free(connection, job_id)
    _settle_waiting(connection)
    return JOBS.get(connection, job_id)


def lost(connection: Connection, job_id: str, attempt: int, *, reason: str, has_begun: bool = True) -> Job:
    """Record that the attempt's process is gone without a result: try again, or give up when it keeps dying where it was.

    An attempt whose process never began (its starter was killed before) uses up no patience.
    """
    job = JOBS.get(connection, job_id)
    if job.state == "cancelling":
        return finish(connection, job_id, attempt, "cancelled")
    without = 0 if job.progress > job.progress_at_start else job.attempts_without_progress + int(has_begun)
    if without >= MAX_ATTEMPTS_WITHOUT_PROGRESS:
        error = JobError(
            f"the job died {without} times in a row without getting further", why=reason, fix="read its log; start it again when the cause is gone"
        ).to_dict()
        _of_attempt(connection, job_id, attempt, attempts_without_progress=without)
        return finish(connection, job_id, attempt, "failed", error=error)
    _of_attempt(connection, job_id, attempt, attempts_without_progress=without)
    return finish(connection, job_id, attempt, "paused" if job.is_paused_by_user else "queued")


def cancel(connection: Connection, job_id: str) -> Job:
    """Ask for the end of a job: at once where nothing runs yet, else as soon as its process has stopped.

    Raises:
        ConflictError: it is over already.
    """
    job = JOBS.get(connection, job_id)
    if job.is_over:
        raise ConflictError(f"job {job_id} is over ({job.state})", why="there is nothing left to cancel", fix="start it again, or delete it")
    state = "cancelling" if job.state in ON_SLOTS else "cancelled"
    _set(connection, job_id, state=state, **({} if state == "cancelling" else {"finished_at": time.time()}))
    _settle_waiting(connection)
    return JOBS.get(connection, job_id)


def pause(connection: Connection, job_id: str, *, requeue: bool = False) -> Job:
    """Ask a running job to write a checkpoint and stop, or hold back one that has not started.

    With `requeue` it only makes room, and goes on by itself when there is room again.

    Raises:
        ConflictError: it is over, or leaving already.
    """
    job = JOBS.get(connection, job_id)
    if job.state in ("running", "pausing"):
        return JOBS.update(connection, job_id, state="pausing", is_paused_by_user=job.is_paused_by_user or not requeue)
    if job.state == "queued":
        _set(connection, job_id, state="paused", is_paused_by_user=True)
        return JOBS.get(connection, job_id)
    if job.state == "paused":
        return job
    raise ConflictError(f"job {job_id} is {job.state}", why="only a queued or running job can be paused", fix="wait, or start it again")


def resume(connection: Connection, job_id: str) -> Job:
    """Put a paused, failed or cancelled job back into the queue; it goes on from its last checkpoint.

    Raises:
        ConflictError: it is in the queue, running, or done.
    """
    job = JOBS.get(connection, job_id)
    if job.state not in ("paused", "failed", "cancelled"):
        raise ConflictError(f"job {job_id} is {job.state}", why="only a paused, failed or cancelled job can go on", fix="wait for it, or cancel it first")
    JOBS.update(connection, job_id, state="waiting", is_paused_by_user=False, attempts_without_progress=0, error=None, result=None, finished_at=None)
    runs.follow(connection, job_id)
    _settle_waiting(connection)
    return JOBS.get(connection, job_id)


def move(connection: Connection, job_id: str, *, before: str | None = None, priority: str | None = None) -> Job:
    """Put a queued job before another one (or last, when `before` is None), and into another class.

    Raises:
        ConflictError: one of them is not queued.
        NoEffectError: a job cannot stand before itself.
    """
    job = JOBS.get(connection, job_id)
    if job.state not in ("queued", "waiting", "paused"):
        raise ConflictError(f"job {job_id} is {job.state}", why="only a job that has not started can be moved", fix="pause it first")
    if before == job_id:
        raise NoEffectError("a job cannot be put before itself", why="its place would not change", fix="name another job")
    if before is None:
        position = (connection.execute(select(func.max(jobs.c.position))).scalar() or 0.0) + 1.0
    else:
        other = JOBS.get(connection, before)
        previous = connection.execute(select(func.max(jobs.c.position)).where(jobs.c.position < other.position, jobs.c.id != job_id)).scalar()
        position = (other.position + (previous if previous is not None else other.position - 2.0)) / 2
    return JOBS.update(connection, job_id, position=position, priority=priority or job.priority)


def queue(connection: Connection, *, project_id: str | None = None) -> list[Job]:
    """Jobs that are not over: running ones first, then in the order they will start."""
    state_rank = case((jobs.c.state.in_(ON_SLOTS), 0), else_=1)
    statement = select(jobs).where(jobs.c.state.not_in(OVER)).order_by(state_rank, _RANK, jobs.c.position)
    if project_id is not None:
        statement = statement.where(jobs.c.project_id == project_id)
    return [Job(**row) for row in connection.execute(statement).mappings()]


def _next(connection: Connection, now: float, total_slots: int) -> Job | None:
    may_start = and_(jobs.c.state == "queued", or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now), jobs.c.num_slots <= total_slots)
    row = connection.execute(select(jobs).where(may_start).order_by(_RANK, jobs.c.position).limit(1)).mappings().first()
    return None if row is None else Job(**row)


def _serialise(connection: Connection) -> None:
    """Let one claim happen after the other (SQLite's write lock does it by itself)."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(724201)"))


def _set(connection: Connection, job_id: str, **values: Any) -> None:
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values, updated_at=time.time(), version=jobs.c.version + 1))
    runs.follow(connection, job_id)


def _of_attempt(connection: Connection, job_id: str, attempt: int, **values: Any) -> None:
    """Change a job on behalf of one attempt.

    Raises:
        ConflictError: a newer attempt exists, or this one is over.
    """
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
