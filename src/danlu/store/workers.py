"""Workers: which supervisors look after which home folders."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select, update

from danlu.files import storage_errors
from danlu.store import tables
from danlu.store.engine import Database

ONLY_HOME = "local"
ALIVE_SECONDS = 20.0
"""A supervisor that has not been heard for so long is gone (it tells every 5 s)."""


@dataclass(frozen=True)
class Worker:
    """A supervisor, and when it last said that it is there."""

    id: str
    host: str
    home: str
    """Id of its home folder."""
    folder: str
    """Path of its home folder on its host."""
    pid: int
    pid_started: int
    num_slots: int
    started_at: float
    heartbeat_at: float
    alarm: str | None = None
    """What keeps it from starting jobs."""

    def is_alive(self, now: float) -> bool:
        """Whether it was heard lately; jobs of a home without a live supervisor wait for it."""
        return now - self.heartbeat_at < ALIVE_SECONDS


def home_id(database: Database, home: Path) -> str:
    """What the queue calls a home folder, wherever it is mounted.

    A SQLite database has but one; on a PostgreSQL that several share, each has a random name in its file `home.id`.

    Raises:
        StorageError: the file cannot be written or read.
    """
    if database.is_sqlite:
        return ONLY_HOME
    path = home / "home.id"
    with storage_errors(path):
        home.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            staging = home / f".home.id.{os.getpid()}.{secrets.token_hex(4)}.tmp"
            staging.write_text(f"home_{secrets.token_hex(8)}\n", "ascii")
            with suppress(FileExistsError):  # whoever is first has named it
                os.link(staging, path)
            staging.unlink()
        return path.read_text("ascii").strip()


def register(connection: Connection, worker: Worker) -> None:
    """Make it the supervisor of its home folder; it holds the folder's lock, so whoever was there before is gone."""
    connection.execute(delete(tables.workers).where(tables.workers.c.home == worker.home))
    connection.execute(insert(tables.workers).values(**asdict(worker)))


def beat(connection: Connection, worker_id: str, now: float, *, alarm: str | None = None) -> bool:
    """Say that it is there; False when the database does not know it (any more)."""
    mine = update(tables.workers).where(tables.workers.c.id == worker_id)
    return connection.execute(mine.values(heartbeat_at=now, alarm=alarm)).rowcount > 0


def all_workers(connection: Connection) -> list[Worker]:
    """Every supervisor known, also those that are gone."""
    return [Worker(**row) for row in connection.execute(select(tables.workers).order_by(tables.workers.c.id)).mappings()]
