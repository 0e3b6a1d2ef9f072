"""The tables: made, changed and copied without losing a row."""

import shutil
import sqlite3
import traceback
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import inspect

from danlu.errors import DatabaseError
from danlu.services.doctor import examine
from danlu.services.platform.platform import Platform
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


def test_what_was_acknowledged_is_on_the_disk_and_nothing_refers_to_nothing(tmp_path: Path) -> None:
    """A kill does not show it: without these only a power cut, or two writers at once, would."""
    database = sqlite_with_a_project(tmp_path / "a.sqlite")
    asked = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "trusted_schema")
    with database.reading() as one, database.reading() as other:  # of every connection, not of the first alone
        told = [[connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in asked] for connection in (one, other)]
    with database.writing() as connection, closing(sqlite3.connect(tmp_path / "a.sqlite", timeout=0)) as second:
        connection.exec_driver_sql("SELECT 1")
        with pytest.raises(sqlite3.OperationalError, match="locked"):  # a writer has the lock from its first moment on
            second.execute("BEGIN IMMEDIATE")

    assert told == [["wal", 2, 1, 10_000, 0]] * 2
    database.close()


def test_an_upgrade_that_is_not_needed_does_nothing(database: Database, tmp_path: Path) -> None:
    assert schema.upgrade(database, backups=tmp_path / "backups") is None
    assert not (tmp_path / "backups").exists()


STEP = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "%s", "%s"


def upgrade() -> None:
    %s


def downgrade() -> None:
    op.drop_column("projects", "colour")
"""


def next_version(folder: Path, monkeypatch: pytest.MonkeyPatch, revision: str, doing: str) -> None:
    """Let the code know one more migration than the database."""
    if not folder.exists():
        shutil.copytree(schema.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(schema, "MIGRATIONS", folder)
    newest = schema.newest()
    (folder / "versions" / f"{revision}.py").write_text(STEP % (revision, newest, doing))


def test_an_older_database_is_copied_before_it_is_upgraded_and_loses_no_row(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with database.writing() as connection:
        PROJECTS.insert(connection, name="kept", description="", created_by=None, is_archived=False)
    before = schema.revision(database)
    next_version(tmp_path / "migrations", monkeypatch, "9001", 'op.add_column("projects", sa.Column("colour", sa.Text()))')

    copy = schema.upgrade(database, backups=tmp_path / "backups")

    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT name, colour FROM projects").all() == [("kept", None)]
    assert (schema.revision(database), schema.is_current(database)) == ("9001", True)
    schema.downgrade(database, str(before))
    assert schema.differences(database) == []
    with database.reading() as connection:
        assert [project.name for project in PROJECTS.all(connection)] == ["kept"]
    if database.path is None:
        assert copy is None  # pg_dump copies PostgreSQL: docs/upgrading.md
        return
    assert copy is not None and copy.parent == tmp_path / "backups" and copy.stat().st_mode & 0o077 == 0
    old = Database(f"sqlite:///{copy}")
    with old.reading() as connection:
        assert (schema.revision(old), [project.name for project in PROJECTS.all(connection)]) == (before, ["kept"])
    old.close()


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with database.writing() as connection:
        PROJECTS.insert(connection, name="kept", description="", created_by=None, is_archived=False)
    before = schema.revision(database)
    fails = 'op.add_column("projects", sa.Column("colour", sa.Text())); op.execute("DELETE FROM projects"); raise RuntimeError("the disk is full")'
    next_version(tmp_path / "migrations", monkeypatch, "9001", fails)

    with pytest.raises(RuntimeError):
        schema.upgrade(database, backups=tmp_path / "backups")

    assert (schema.revision(database), schema.differences(database)) == (before, [])
    with database.reading() as connection:
        assert [project.name for project in PROJECTS.all(connection)] == ["kept"]


def test_a_home_is_copied_when_it_is_opened_by_a_newer_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    sqlite_with_a_project(tmp_path / "home" / "danlu.sqlite").close()
    next_version(tmp_path / "migrations", monkeypatch, "9001", 'op.add_column("projects", sa.Column("colour", sa.Text()))')

    Platform.open(Settings(home=tmp_path / "home")).close()
    Platform.open(Settings(home=tmp_path / "home")).close()

    assert [path.name.startswith("before-9001-") for path in (tmp_path / "home" / "backups").iterdir()] == [True]


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
