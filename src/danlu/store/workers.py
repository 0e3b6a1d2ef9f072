"""Workers: which supervisors look after which home folders."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, insert, select, update

from danlu.store import tables


@dataclass(frozen=True)
class Worker:
    """A supervisor, and when it last said that it is there."""

    id: str
    host: str
    home: str
    pid: int
    pid_started: int
    num_slots: int
    started_at: float
    heartbeat_at: float


def register(connection: Connection, worker: Worker) -> None:
    """Make it the supervisor of its home folder; it holds the folder's lock, so whoever was there before is gone."""
    connection.execute(delete(tables.workers).where(tables.workers.c.home == worker.home))
    connection.execute(insert(tables.workers).values(**asdict(worker)))


def beat(connection: Connection, worker_id: str, now: float) -> None:
    """Say that it is there."""
    connection.execute(update(tables.workers).where(tables.workers.c.id == worker_id).values(heartbeat_at=now))


def all_workers(connection: Connection) -> list[Worker]:
    """Every supervisor known, also those that are gone."""
    return [Worker(**row) for row in connection.execute(select(tables.workers).order_by(tables.workers.c.id)).mappings()]
