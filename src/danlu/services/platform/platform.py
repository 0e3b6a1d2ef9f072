"""What operations work on: the database and the folders of one home."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from danlu.files import storage_errors
from danlu.settings import Settings
from danlu.store import schema
from danlu.store.engine import Database


@dataclass(frozen=True)
class Platform:
    """An opened home: its settings and its database. It holds no state of its own; any number of them may be open at once."""

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
        with storage_errors(settings.home):
            settings.home.mkdir(parents=True, exist_ok=True)
        database = Database(settings.database_url)
        schema.upgrade(database, backups=settings.home / "backups")
        return cls(settings, database)

    def close(self) -> None:
        """Close the connections to the database."""
        self.database.close()

    @property
    def home(self) -> Path:
        """The home folder."""
        return self.settings.home

    def run_folder(self, run_id: str) -> Path:
        """Folder of a run, also of one that has not begun."""
        return self.settings.runs_dir / run_id

    def job_folder(self, job_id: str) -> Path:
        """Folder of a job: one folder for each attempt, with its log."""
        return self.home / "jobs" / job_id
