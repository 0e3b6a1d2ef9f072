"""Addresses of databases that do not work: each says what is wrong with it and what to do, and repeats no password."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from danlu.errors import DatabaseError
from danlu.services.platform.platform import Platform
from danlu.settings import Settings
from danlu.store import engine
from danlu.store.engine import Database

SECRET = "hush-hush"


def told(url: str) -> DatabaseError:
    """What opening a database says."""
    database = Database(url)
    try:
        with pytest.raises(DatabaseError) as caught, database.reading():
            pass
    finally:
        database.close()
    assert SECRET not in str(caught.value)
    return caught.value


@pytest.fixture
def locked_out(postgres_server: str) -> Iterator[str]:
    """Address of a user with another password than the one in it."""
    admin = Database(postgres_server.format(name="postgres"))
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("CREATE ROLE locked LOGIN PASSWORD 'another'")
    yield postgres_server.format(name="postgres").replace("danlu@", f"locked:{SECRET}@")
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("DROP ROLE locked")
    admin.close()


def test_a_wrong_password(locked_out: str) -> None:
    error = told(locked_out)

    assert "password authentication failed" in error.why and error.fix.startswith("check the user and the password")


def test_a_user_that_does_not_exist(postgres_server: str) -> None:
    error = told(postgres_server.format(name="postgres").replace("danlu@", f"nobody:{SECRET}@"))

    assert "nobody" in error.why and error.fix.startswith("check the user and the password")


def test_a_database_that_does_not_exist(postgres_server: str) -> None:
    error = told(postgres_server.format(name="not there").replace("danlu@", f"danlu:{SECRET}@"))

    assert "does not exist" in error.why and error.fix == "make it, as a user of the server who may: createdb 'not there'"


@pytest.mark.parametrize("url", [f"postgresql://danlu:{SECRET}@127.0.0.1:1/danlu", f"postgresql://danlu:{SECRET}@/danlu?host=/not/there"])
def test_a_server_that_is_not_there(url: str) -> None:
    error = told(url)

    assert error.what.startswith("the database postgresql+psycopg://danlu:***@") and "host and port in DANLU_DATABASE_URL" in error.fix


def test_a_server_that_never_answers_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CONNECT_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        error = told(f"postgresql://danlu:{SECRET}@127.0.0.1:{silent.getsockname()[1]}/danlu")

    assert "time" in error.why and "host and port" in error.fix


def test_an_option_that_does_not_exist() -> None:
    error = told(f"postgresql://danlu:{SECRET}@127.0.0.1:1/danlu?nonsense=1")

    assert "nonsense" in error.why and "what stands behind its ?" in error.fix


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("failed to resolve host 'db.example': [Errno -2] Name or service not known", "check the name of the host"),
        ("FATAL:  sorry, too many clients already", "raise max_connections"),
        ("could not extend file: No space left on device", "make room"),
        ("something else", "check DANLU_DATABASE_URL and that the PostgreSQL server runs"),
    ],
)
def test_what_the_driver_says_leads_to_what_to_do(said: str, fix: str) -> None:
    assert engine._fix(said, Database("postgresql://h/d")).startswith(fix)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite+pysqlite:///:memory:"])
def test_a_database_in_memory_would_be_lost(url: str) -> None:
    with pytest.raises(DatabaseError, match="in memory"):
        Database(url)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="its folder exists"):
        Platform.open(Settings(home=tmp_path / "home", database=f"sqlite:///{tmp_path / 'not' / 'there' / 'danlu.sqlite'}"))


@pytest.mark.parametrize("command", [["projects", "list"], ["worker"], ["check"], ["studio", "--no-open", "--port", "0"]])
def test_without_its_package_the_extra_is_named(command: list[str], tmp_path: Path) -> None:
    code = f"import sys; sys.modules['psycopg'] = None; sys.argv = ['danlu', *{command}]\nfrom danlu.cli.main import main\nmain()"
    url = f"postgresql://danlu:{SECRET}@127.0.0.1/danlu"
    environment = os.environ | {"DANLU_LANG": "en", "DANLU_HOME": str(tmp_path), "DANLU_DATABASE_URL": url}

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)

    assert done.returncode == 8 and "pip install 'danlu[postgres]'" in done.stderr and "DANLU_DATABASE_URL" in done.stderr, done.stderr
    assert SECRET not in done.stdout + done.stderr and "Traceback" not in done.stderr
