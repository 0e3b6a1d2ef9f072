"""The queue as a whole: who holds slots, who waits for whom, what has to make room, and in which order the others stand.

What becomes of one job is `store.jobs`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from sqlalchemy import ColumnElement, Connection, and_, case, func, or_, select

from danlu.errors import ConflictError, NoEffectError
from danlu.store.jobs import JOBS, ON_SLOTS, OVER, Job, change, last_position, lock, next_job
from danlu.store.tables import JOB_STATES, PRIORITIES, jobs, slots

MIN_GAP = 1e-9
"""Jobs are numbered anew when there is less than that between two of them."""
_RANK = case({name: number for number, name in enumerate(PRIORITIES)}, value=jobs.c.priority)


def held(connection: Connection, home: str) -> list[Job]:
    """Jobs that hold slots of this home, oldest first."""
    statement = select(jobs).where(jobs.c.state.in_(ON_SLOTS), jobs.c.home == home).order_by(jobs.c.id)
    return [Job(**row) for row in connection.execute(statement).mappings()]


def slots_of(connection: Connection, job_id: str) -> list[int]:
    """Slot numbers that a job holds."""
    return list(connection.execute(select(slots.c.number).where(slots.c.job_id == job_id).order_by(slots.c.number)).scalars())


def to_preempt(
    connection: Connection,
    *,
    home: str,
    total_slots: int,
    now: float | None = None,
    resting: Collection[str] = (),
    may_pause: Callable[[Job], bool] = lambda job: True,
) -> list[Job]:
    """Savers to pause so that a waiting job of a higher class can start: the ones that started last, no more than needed."""
    head = next_job(connection, home=home, total_slots=total_slots, now=now, resting=resting)
    if head is None or head.priority == "saver":
        return []
    on_home = held(connection, home)
    taken = {job.id: len(slots_of(connection, job.id)) for job in on_home}
    missing = head.num_slots - (total_slots - sum(taken.values()))
    missing -= sum(taken[job.id] for job in on_home if job.state != "running")  # these are leaving already
    chosen = []
    savers = [job for job in on_home if job.state == "running" and job.priority == "saver" and may_pause(job)]
    for job in sorted(savers, key=lambda job: -(job.started_at or 0.0)):
        if missing <= 0:
            break
        chosen.append(job)
        missing -= taken[job.id]
    return chosen if missing <= 0 else []


def move(connection: Connection, job_id: str, *, before: str | None = None, priority: str | None = None) -> Job:
    """Put a queued job before another one (or last, when `before` is None), and into another class.

    Raises:
        ConflictError: one of them is not queued.
        NoEffectError: a job cannot stand before itself.
    """
    lock(connection)
    job = JOBS.get(connection, job_id)
    if job.state not in ("queued", "waiting", "paused"):
        raise ConflictError(f"job {job_id} is {job.state}", why="only a job that has not started can be moved", fix="pause it first")
    if before == job_id:
        raise NoEffectError("a job cannot be put before itself", why="its place would not change", fix="name another job")
    position = last_position(connection) + 1.0 if before is None else _place_before(connection, before, job_id)
    return JOBS.update(connection, job_id, position=position, priority=priority or job.priority)


def unfinished(connection: Connection, *, project_id: str | None = None) -> list[Job]:
    """Jobs that are not over: running ones first, then in the order they will start."""
    state_rank = case((jobs.c.state.in_(ON_SLOTS), 0), else_=1)
    statement = select(jobs).where(jobs.c.state.not_in(OVER)).order_by(state_rank, _RANK, jobs.c.position, jobs.c.id)
    if project_id is not None:
        statement = statement.where(jobs.c.project_id == project_id)
    return [Job(**row) for row in connection.execute(statement).mappings()]


def counts(connection: Connection) -> dict[str, int]:
    """Number of jobs by state."""
    found = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state)).all()
    return dict.fromkeys(JOB_STATES, 0) | {str(state): int(number) for state, number in found}


def waiting_since(connection: Connection, now: float) -> float | None:
    """Since when the oldest job that could start has waited; None when none could."""
    return connection.execute(select(func.min(func.coalesce(jobs.c.not_before, jobs.c.created_at))).where(_may_start(now))).scalar()


def homes_that_wait(connection: Connection, now: float) -> set[str | None]:
    """Homes with jobs that could start; None stands for jobs that any home may take."""
    return set(connection.execute(select(jobs.c.home).where(_may_start(now)).distinct()).scalars())


def _may_start(now: float) -> ColumnElement[bool]:
    return and_(jobs.c.state == "queued", or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now))


def _place_before(connection: Connection, before: str, job_id: str) -> float:
    """A position right before that of another job; when there is no room left, the jobs that are not over are numbered anew."""
    other = JOBS.get(connection, before)
    previous = connection.execute(select(func.max(jobs.c.position)).where(jobs.c.position < other.position, jobs.c.id != job_id)).scalar()
    if previous is None:
        return other.position - 1.0
    if other.position - previous < MIN_GAP:
        last = last_position(connection)
        waiting = connection.execute(select(jobs.c.id).where(jobs.c.state.not_in(OVER)).order_by(jobs.c.position, jobs.c.id)).scalars().all()
        for number, id in enumerate(waiting, 1):
            change(connection, id, position=last + number)
        return _place_before(connection, before, job_id)
    return float(other.position + previous) / 2
