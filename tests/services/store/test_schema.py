"""The tables: made, changed and copied without losing a row."""

import sqlite3
import traceback
from pathlib import Path

import pytest
from sqlalchemy import inspect

from danlu.errors import DatabaseError
from danlu.services.doctor import examine
from danlu.settings import Settings
from danlu.store import schema, tables
from danlu.store.engine import Database
from danlu.store.projects import PROJECTS


def test_migrations_make_exactly_the_tables_that_the_code_knows(empty_database: Database) -> None:
    assert schema.revision(empty_database) is None

    schema.upgrade(empty_database)

    assert schema.differences(empty_database) == []
    assert set(inspect(empty_database.engine).get_table_names()) == {*tables.metadata.tables, "alembic_version"}


def test_migrations_go_down_and_up_again(empty_database: Database) -> None:
    schema.upgrade(empty_database)
    schema.downgrade(empty_database, "base")
    assert inspect(empty_database.engine).get_table_names() == ["alembic_version"]

    schema.upgrade(empty_database)
    assert schema.differences(empty_database) == []


def test_an_upgrade_that_is_not_needed_does_nothing(database: Database, tmp_path: Path) -> None:
    assert schema.upgrade(database, backups=tmp_path / "backups") is None
    assert not (tmp_path / "backups").exists()


def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(DatabaseError, match="newer version"):
        schema.upgrade(database)


def sqlite_with_a_project(path: Path) -> Database:
    database = Database(f"sqlite:///{path}")
    schema.upgrade(database)
    with database.writing() as connection:
        PROJECTS.insert(connection, name="kept", description="", created_by=None, is_archived=False)
    return database


def test_a_backup_taken_during_a_write_is_whole_and_has_what_was_committed(tmp_path: Path) -> None:
    database = sqlite_with_a_project(tmp_path / "a.sqlite")
    with database.reading() as connection:  # a reader must not stop it
        assert len(PROJECTS.all(connection)) == 1
        schema.backup(database, tmp_path / "copies" / "b.sqlite")

    copy = Database(f"sqlite:///{tmp_path / 'copies' / 'b.sqlite'}")
    with copy.reading() as connection:
        assert [project.name for project in PROJECTS.all(connection)] == ["kept"]
    assert [path.name for path in (tmp_path / "copies").iterdir() if path.suffix == ".sqlite"] == ["b.sqlite"]


def test_a_damaged_file_is_told_and_not_copied(tmp_path: Path) -> None:
    database = sqlite_with_a_project(tmp_path / "a.sqlite")
    with sqlite3.connect(tmp_path / "a.sqlite") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    content = bytearray((tmp_path / "a.sqlite").read_bytes())
    content[4096:12288] = b"\x55" * 8192
    (tmp_path / "a.sqlite").write_bytes(content)

    with pytest.raises(DatabaseError, match="damaged|cannot be used|malformed"):
        schema.check(tmp_path / "a.sqlite")
    with pytest.raises(DatabaseError):
        schema.upgrade(Database(f"sqlite:///{tmp_path / 'a.sqlite'}"))


def test_a_file_that_is_no_database_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_text("hello " * 1000)

    with pytest.raises(DatabaseError, match="restore the newest backup"):
        schema.upgrade(Database(f"sqlite:///{tmp_path / 'x.sqlite'}"))


def test_a_database_that_cannot_be_reached_says_so_without_its_password() -> None:
    database = Database("postgresql+psycopg://danlu:secret-word@127.0.0.1:1/danlu?connect_timeout=1")

    with pytest.raises(DatabaseError) as caught, database.reading():
        pass

    assert "DANLU_DATABASE_URL" in caught.value.fix and "secret-word" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg//danlu:secret-word@host/danlu",
        "postgresql+psycopg://danlu:x@host:secret-word/danlu",
        "mysql://danlu:secret-word@host/danlu",
        "nonsense+secret-word://host",
        "secret-word",
    ],
)
def test_an_address_that_cannot_be_read_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(DatabaseError, match="no address of a database") as caught:
        Database(url)

    assert "secret-word" not in "".join(traceback.format_exception(caught.value)).replace(f'"{url}"', "")


def test_a_password_in_the_options_of_an_address_is_not_shown(tmp_path: Path) -> None:
    database = Database("postgresql://danlu@127.0.0.1:1/danlu?password=secret-word&connect_timeout=1")
    with pytest.raises(DatabaseError) as caught, database.reading():
        pass
    told = examine(Settings(home=tmp_path, database="postgresql://danlu@127.0.0.1:1/danlu?password=secret-word&connect_timeout=1")).to_dict()

    assert database.engine.url.drivername == "postgresql+psycopg"
    assert "secret-word" not in f"{caught.value}{told}" and "danlu@127.0.0.1" in str(caught.value)
