"""The same tests on SQLite and, where its server programs are installed, on PostgreSQL."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from danlu.store import projects, schema
from danlu.store.engine import Database

SERVER_PROGRAMS = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]


def _as_server_user(*command: str) -> None:
    """Run a server program; PostgreSQL refuses to run as root."""
    call = list(command) if os.geteuid() else ["runuser", "-u", "postgres", "--", *command]
    subprocess.run(call, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a PostgreSQL server of this test session, on a socket in a temporary folder."""
    initdb = shutil.which("initdb", path=os.pathsep.join([*SERVER_PROGRAMS, os.environ.get("PATH", "")]))
    if initdb is None:
        pytest.skip("no PostgreSQL server programs on this machine (initdb)")
    pg_ctl = str(Path(initdb).with_name("pg_ctl"))
    folder = Path(tempfile.mkdtemp(prefix="danlu-pg-"))
    folder.chmod(0o777)
    data = str(folder / "data")
    _as_server_user(initdb, "-D", data, "-A", "trust", "-U", "danlu", "--no-sync")
    _as_server_user(pg_ctl, "-D", data, "-o", f"-k {folder} -c listen_addresses= -c fsync=off", "-w", "-l", str(folder / "log"), "start")
    yield f"postgresql+psycopg://danlu@/{{name}}?host={folder}"
    _as_server_user(pg_ctl, "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without tables."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'danlu.sqlite'}"
    else:
        server = request.getfixturevalue("postgres_server")
        admin = Database(server.format(name="postgres"))
        name = f"test_{os.urandom(6).hex()}"
        with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        admin.close()
        url = server.format(name=name)
    database = Database(url)
    yield database
    database.close()


@pytest.fixture
def database(empty_database: Database) -> Database:
    """A database with the tables of this version."""
    schema.upgrade(empty_database)
    return empty_database


@pytest.fixture
def project(database: Database) -> str:
    """Id of a project."""
    with database.writing() as connection:
        return projects.PROJECTS.insert(connection, name="p", description="", created_by=None, is_archived=False).id
