"""Opening the database, reading and writing in transactions.

SQLite (one file in the home folder) by default, PostgreSQL by `DANLU_DATABASE_URL`; the rest of the store does not know which.
A write transaction of SQLite takes the lock when it begins (`BEGIN IMMEDIATE`), so it never fails half way for a reader that became
a writer, and it is on disk when it returns (`synchronous=FULL`).
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from danlu.errors import DatabaseError, MissingExtraError

__all__ = ["Connection", "Database"]
BUSY_TIMEOUT_SECONDS = 10
"""How long a writer waits for another one before it gives up."""
NUM_CONNECTIONS = 20
"""As many threads of one process use the database at a time; more wait."""
CONNECT_SECONDS = 10
"""How long a PostgreSQL server may take to answer at all; its address can say another number."""
HOME_OPTION = "danlu_home"
# Values of a statement are users' data: they stay out of error messages and logs.
_POOL: dict[str, Any] = {"pool_size": NUM_CONNECTIONS, "max_overflow": 4, "pool_timeout": BUSY_TIMEOUT_SECONDS, "hide_parameters": True}
_SQLITE_FIXES: tuple[tuple[str, str], ...] = (
    ("malformed|not a database", "restore the newest backup: `danlu restore`; the damaged file is kept beside it"),
    ("locked", "try again; if it stays so, another program holds the file (a backup or a database browser)"),
)
_POSTGRESQL_FIXES: tuple[tuple[str, str], ...] = (
    ("authentication|no password supplied|pg_hba|role .* does not exist", "check the user and the password in DANLU_DATABASE_URL, and what pg_hba.conf allows"),
    ("database .* does not exist", "make it, as a user of the server who may: createdb NAME"),
    ("resolve|name or service|translate host", "check the name of the host in DANLU_DATABASE_URL"),
    (
        "refused|timeout|timed out|unreachable|no route|no such file",
        "check host and port in DANLU_DATABASE_URL, and that the PostgreSQL server runs",
    ),
    ("invalid connection option|invalid port|invalid integer", "check the port in DANLU_DATABASE_URL, and what stands behind its ?"),
    ("too many clients|connection slots", "raise max_connections of the PostgreSQL server, or stop other programs that use it"),
)
_FIXES: tuple[tuple[str, str], ...] = (
    ("full|no space", "make room on its disk; nothing that was acknowledged is lost"),
    ("readonly|read-only", "give this user the right to write to the file and its folder, or choose another home folder: DANLU_HOME"),
)
"""What to do by what the driver says (regular expressions); the first that fits."""
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


class Database:
    """One database. Every method of the store's modules takes a `Connection` that `reading` or `writing` gave."""

    def __init__(self, url: str) -> None:
        self.url = _parse(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(self.url) if self.is_sqlite else _postgresql_engine(self.url)

    def use_for(self, home: str) -> None:
        """Say on behalf of which home folder it is used: what is put into the queue from now on stays with that one."""
        self.engine = self.engine.execution_options(**{HOME_OPTION: home})

    @property
    def shown(self) -> str:
        """Where it is, without the password in its address, which its options can hold too."""
        plain = {name: value for name, value in self.url.query.items() if "pass" not in name.lower()}
        return str(self.path) if self.is_sqlite else self.url.set(query=plain).render_as_string(hide_password=True)

    @property
    def path(self) -> Path | None:
        """The file of a SQLite database."""
        return Path(self.url.database) if self.is_sqlite and self.url.database else None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for a consistent look; nothing it does is kept.

        Raises:
            DatabaseError: the database cannot be reached or is damaged.
        """
        with _told(self), self.engine.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN DEFERRED")
            yield connection
            connection.rollback()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction: all of it is on disk when the block ends, none of it when the block raises.

        Raises:
            DatabaseError: the database cannot be reached, is locked for too long, damaged, or the disk is full.
        """
        with _told(self), self.engine.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def _parse(url: str) -> URL:
    """Read an address.

    Raises:
        DatabaseError: it is none, or of a kind that is not supported. The address is not told: it can hold a password.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError):  # what these say repeats the address, or parts of it
        backend = ""
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise DatabaseError(
            "DANLU_DATABASE_URL names a database in memory",
            why="server and worker share it, and it would be gone with the process",
            fix="leave it out for a file in the home folder, or name a file: sqlite:////folder/danlu.sqlite",
        )
    if backend == "sqlite":
        return parsed.set(drivername="sqlite")
    raise DatabaseError(
        "DANLU_DATABASE_URL is no address of a database",
        why="it must begin with postgresql+psycopg:// (or sqlite:///), and : / @ % in names and passwords are written %3A %2F %40 %25",
        fix="for example postgresql+psycopg://danlu:PASSWORD@localhost:5432/danlu",
    )


def _sqlite_engine(url: URL) -> Engine:
    # autocommit at the driver: the BEGIN of this module is the only one.
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "isolation_level": None, "check_same_thread": False}, **_POOL)

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, record: object) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_SECONDS * 1000}", "trusted_schema=OFF"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def _postgresql_engine(url: URL) -> Engine:
    """Raises: MissingExtraError."""
    patience = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_SECONDS}
    try:
        return create_engine(url, pool_pre_ping=True, json_serializer=lambda value: without_nul(json.dumps(value)), connect_args=patience, **_POOL)
    except ImportError as error:
        raise MissingExtraError(
            "PostgreSQL needs the package psycopg",
            why="DANLU_DATABASE_URL names such a server",
            fix="pip install 'danlu[postgres]'",
        ) from error


def without_nul(text: str) -> str:
    """JSON without the character NUL, which PostgreSQL cannot hold: a job's result must not be refused for it."""
    return _NUL.sub(r"\1", text) if "\\u0000" in text else text


@contextmanager
def _told(database: Database) -> Iterator[None]:
    """Turn what the driver says into what a user can act on. Constraint violations pass: the store's modules know what they mean."""
    from sqlalchemy.exc import IntegrityError

    try:
        yield
    except IntegrityError:
        raise
    except NoConnectionError as error:
        raise DatabaseError("every connection to the database is in use", why="more is asked at a time than it can answer", fix="try again") from error
    except DBAPIError as error:
        reason = (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0] + _of_folder(database.path)
        raise DatabaseError(f"the database {database.shown} cannot be used", why=_without_secrets(database, reason), fix=_fix(reason, database)) from error


def _of_folder(path: Path | None) -> str:
    """What is wrong with the folder of a SQLite database, where the driver only says that it cannot open the file."""
    if path is None or os.access(path.parent, os.W_OK):
        return ""
    return f"; {path.parent} is {'read-only for this user' if path.parent.is_dir() else 'not there'}"


def _without_secrets(database: Database, reason: str) -> str:
    """What the driver says, without the password that it was given."""
    given = [database.url.password, *(value for name, value in database.url.query.items() if "pass" in name.lower())]
    for secret in given:
        for one in secret if isinstance(secret, tuple) else (secret,):
            reason = reason.replace(one, "***") if one else reason
    return reason


def _fix(reason: str, database: Database) -> str:
    plain = reason.lower()
    for said, fix in (*(_SQLITE_FIXES if database.is_sqlite else _POSTGRESQL_FIXES), *_FIXES):
        if re.search(said, plain):
            return fix.replace("NAME", shlex.quote(database.url.database or "danlu"))
    if database.is_sqlite:
        return "check that its folder exists and that this user may write there"
    return "check DANLU_DATABASE_URL and that the PostgreSQL server runs"
