"""Bringing a database to the tables of this version, and keeping a copy of what it was before."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from danlu.errors import DatabaseError
from danlu.files import keep_private, storage_errors
from danlu.store.engine import Database
from danlu.store.tables import metadata

MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(database: Database, *, backups: Path | None = None) -> Path | None:
    """Bring the tables to this version. An older SQLite database is copied into `backups` first; return the copy.

    Raises:
        DatabaseError: it was written by a newer version, or cannot be used.
    """
    if database.path is not None and database.path.parent.is_dir():  # it holds hashes of passwords and keys of webhooks
        keep_private(database.path)
    current, newest = revision(database), _scripts().get_current_head()
    if current == newest:
        return None
    if current is not None and current not in {script.revision for script in _scripts().walk_revisions()}:
        raise DatabaseError(
            f"the database is of a newer version of Danlu ({current})",
            why="this version does not know its tables",
            fix="install the newer version again, or restore the backup it made",
        )
    copy = None
    if current is not None and backups is not None and database.path is not None:
        copy = backups / f"before-{newest}-{time.strftime('%Y%m%d-%H%M%S')}.sqlite"
        backup(database, copy)
    _migrate(database, "head")
    return copy


def downgrade(database: Database, to: str) -> None:
    """Take the tables back to revision `to` (`base` for none)."""
    _migrate(database, to, down=True)


def revision(database: Database) -> str | None:
    """The revision that the tables are at, or None for an empty database."""
    with database.reading() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def newest() -> str | None:
    """The revision of this version."""
    return _scripts().get_current_head()


def is_current(database: Database) -> bool:
    """Whether the tables are those of this version."""
    return revision(database) == newest()


def differences(database: Database) -> list[object]:
    """What the tables of the database lack to be those of `tables.py`, as Alembic's own operations."""
    with database.reading() as connection:
        return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata))


def backup(database: Database, target: Path) -> None:
    """Copy a SQLite database that is in use to `target`, whole and consistent.

    Raises:
        DatabaseError: it is not SQLite (PostgreSQL has pg_dump), or the copy is damaged.
    """
    if database.path is None:
        raise DatabaseError(
            "only a SQLite database is copied by Danlu", why="PostgreSQL has its own tool, which copies it while it is used", fix="pg_dump --format=custom"
        )
    staging = target.with_name(f".{target.name}.tmp")
    with storage_errors(target):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        staging.unlink(missing_ok=True)
        keep_private(staging)
        with closing(sqlite3.connect(database.path)) as source, closing(sqlite3.connect(staging)) as copy:
            source.backup(copy)
        check(staging)
        staging.replace(target)
        for suffix in ("-wal", "-shm"):  # what reading it in WAL mode leaves beside it
            staging.with_name(staging.name + suffix).unlink(missing_ok=True)


def check(path: Path) -> None:
    """Read a SQLite file from end to end.

    Raises:
        DatabaseError: it is damaged.
    """
    found = _problems(path)
    if found:
        raise DatabaseError(f"{path} is damaged", why="; ".join(found[:3]), fix="restore the newest backup: `danlu restore`")


def problems(database: Database) -> list[str]:
    """What is wrong with the database: damage, rows that refer to nothing, tables of another version. Empty when all is well."""
    found = _problems(database.path) if database.path is not None else []  # PostgreSQL checks its pages and keys by itself
    return found + [f"the tables differ from those of this version: {difference}" for difference in ([] if found else differences(database))]


def _problems(path: Path) -> list[str]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
            found = [] if found == ["ok"] else found
            return found + [f"row {row[1]} of {row[0]} refers to a missing {row[2]}" for row in connection.execute("PRAGMA foreign_key_check")]
    except sqlite3.DatabaseError as error:
        return [str(error)]


def _migrate(database: Database, to: str, *, down: bool = False) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.writing() as connection:
        config.attributes["connection"] = connection
        (command.downgrade if down else command.upgrade)(config, to)


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(MIGRATIONS))
