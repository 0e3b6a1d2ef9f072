"""The same tests on SQLite and, where its server programs are installed, on PostgreSQL."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from danlu.services.platform.platform import Platform
from danlu.settings import Settings
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
    allowed = Path(data, "pg_hba.conf")
    allowed.write_text(f"local all locked scram-sha-256\n{allowed.read_text()}")  # the one user who needs a password
    _as_server_user(pg_ctl, "-D", data, "-o", f"-k {folder} -c listen_addresses= -c fsync=off", "-w", "-l", str(folder / "log"), "start")
    yield f"postgresql+psycopg://danlu@/{{name}}?host={folder}"
    _as_server_user(pg_ctl, "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without tables."""
    is_sqlite = request.param == "sqlite"
    database = Database(f"sqlite:///{tmp_path / 'danlu.sqlite'}" if is_sqlite else new_postgres(request.getfixturevalue("postgres_server"), "template1"))
    yield database
    database.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the tables of this version, to be copied: faster than migrating for every test."""
    path = tmp_path_factory.mktemp("template") / "danlu.sqlite"
    database = Database(f"sqlite:///{path}")
    schema.upgrade(database)
    database.close()
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> str:
    """Name of a PostgreSQL database with the tables of this version."""
    url = new_postgres(postgres_server, "template1")
    database = Database(url)
    schema.upgrade(database)
    database.close()
    return str(database.url.database)


def new_postgres(server: str, template: str) -> str:
    """Make a database like `template` and return its URL."""
    admin = Database(server.format(name="postgres"))
    name = f"test_{os.urandom(6).hex()}"
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    admin.close()
    return server.format(name=name)


@pytest.fixture
def restart_postgres(postgres_server: str) -> Callable[[], None]:
    """Stop the server without warning, and start it again."""
    folder = Path(postgres_server.rpartition("host=")[2])
    initdb = shutil.which("initdb", path=os.pathsep.join([*SERVER_PROGRAMS, os.environ.get("PATH", "")]))
    pg_ctl = str(Path(str(initdb)).with_name("pg_ctl"))
    return lambda: _as_server_user(pg_ctl, "-D", str(folder / "data"), "-m", "immediate", "-w", "-l", str(folder / "log"), "restart")


@pytest.fixture
def new_postgres_database(postgres_server: str, postgres_template: str) -> Iterator[Callable[[], Database]]:
    """Makes databases with the tables of this version on PostgreSQL."""
    made: list[Database] = []

    def make() -> Database:
        made.append(Database(new_postgres(postgres_server, postgres_template)))
        return made[-1]

    yield make
    for database in made:
        database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database with the tables of this version."""
    if request.param == "sqlite":
        copy = tmp_path / "danlu.sqlite"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), copy)
        url = f"sqlite:///{copy}"
    else:
        url = new_postgres(request.getfixturevalue("postgres_server"), request.getfixturevalue("postgres_template"))
    database = Database(url)
    yield database
    database.close()


@pytest.fixture
def project(database: Database) -> str:
    """Id of a project."""
    with database.writing() as connection:
        return projects.PROJECTS.insert(connection, name="p", description="", created_by=None, is_archived=False).id


@pytest.fixture
def platform(tmp_path: Path, sqlite_template: Path) -> Iterator[Platform]:
    """An opened home in a temporary folder, on SQLite."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copyfile(sqlite_template, home / "danlu.sqlite")
    platform = Platform.open(Settings(home=home))
    yield platform
    platform.close()
