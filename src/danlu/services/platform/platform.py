"""What operations work on: the database and the folders of one home."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from danlu.artifacts import Artifacts
from danlu.errors import StorageError
from danlu.files import storage_errors
from danlu.settings import Settings
from danlu.store import artifacts, schema, workers
from danlu.store.engine import Database


@dataclass(frozen=True)
class Platform:
    """An opened home: its settings, its database and its artifacts. It holds no state of its own; any number of them may be open at once."""

    settings: Settings
    database: Database

    @classmethod
    def open(cls, settings: Settings | None = None) -> Platform:
        """Open the home, make its database when there is none, and bring the tables to this version (a copy is kept before).

        Raises:
            DatabaseError: the database cannot be used, or was written by a newer version.
            StorageError: the home folder cannot be written.
        """
        settings = settings or Settings.from_environment()
        for name in settings.misunderstood:
            raise StorageError(f"{name} is not understood", why="it is a whole number of bytes, 0 or more", fix=f"for example {name}=2000000000")
        with storage_errors(settings.home):
            settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = Database(settings.database_url)
        schema.upgrade(database, backups=settings.home / "backups")
        database.use_for(workers.home_id(database, settings.home))
        return cls(settings, database)

    def close(self) -> None:
        """Close the connections to the database."""
        self.database.close()

    @property
    def home(self) -> Path:
        """The home folder."""
        return self.settings.home

    @cached_property
    def artifacts(self) -> Artifacts:
        """Content of datasets, models and exports. What is put is written into the database first, so that it is not collected.

        Never put while a transaction of `database.writing()` is open in the same thread: the two would wait for each other.
        """

        def announce(digest: str, size_bytes: int, parts: Sequence[str]) -> None:
            with self.database.writing() as connection:
                artifacts.record(connection, digest, size_bytes, parts)

        url = self.settings.artifact_url
        staging = None if "://" not in url else self.home / "staging"
        return Artifacts.open(url, staging=staging, min_free_bytes=self.settings.min_free_bytes, announce=announce)

    def run_folder(self, run_id: str) -> Path:
        """Folder of a run, also of one that has not begun."""
        return self.settings.runs_dir / run_id

    def job_folder(self, job_id: str) -> Path:
        """Folder of a job: one folder for each attempt, with its log."""
        return self.home / "jobs" / job_id
