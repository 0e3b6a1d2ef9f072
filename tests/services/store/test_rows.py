"""What every noun can do, shown on projects."""

import threading

import pytest

from danlu.errors import ConflictError, DatabaseError, NotFoundError
from danlu.store.engine import Database
from danlu.store.projects import PROJECTS


def add(database: Database, name: str) -> str:
    with database.writing() as connection:
        return PROJECTS.insert(connection, name=name, description="", created_by=None, is_archived=False).id


def test_what_is_inserted_comes_back_as_it_was(database: Database) -> None:
    id = add(database, "丹炉 🔥")

    with database.reading() as connection:
        found = PROJECTS.get(connection, id)

    assert (found.name, found.version, found.is_archived) == ("丹炉 🔥", 1, False)


def test_a_block_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError), database.writing() as connection:
        PROJECTS.insert(connection, name="a", description="", created_by=None, is_archived=False)
        raise RuntimeError

    with database.reading() as connection:
        assert PROJECTS.all(connection) == []


def test_an_id_that_does_not_exist_is_not_found(database: Database) -> None:
    with database.reading() as connection, pytest.raises(NotFoundError, match="no project 'prj_0'"):
        PROJECTS.get(connection, "prj_0")


def test_pages_give_every_row_once_newest_first(database: Database) -> None:
    ids = [add(database, str(number)) for number in range(7)]
    seen, after = [], None
    with database.reading() as connection:
        while True:
            page = PROJECTS.page(connection, limit=3, after=after)
            seen += [project.id for project in page.items]
            after = page.next
            if after is None:
                break

    assert sorted(seen) == sorted(ids) and seen == sorted(seen, reverse=True)


def test_the_second_of_two_writers_is_told_that_it_was_changed(database: Database) -> None:
    id = add(database, "a")
    with database.writing() as connection:
        assert PROJECTS.update(connection, id, version=1, name="b").version == 2

    with pytest.raises(ConflictError, match="changed by someone else"), database.writing() as connection:
        PROJECTS.update(connection, id, version=1, name="c")

    with database.reading() as connection:
        assert PROJECTS.get(connection, id).name == "b"


def test_what_refers_to_nothing_is_refused(database: Database) -> None:
    with pytest.raises(ConflictError, match="does not exist"), database.writing() as connection:
        PROJECTS.insert(connection, name="a", description="", created_by="usr_none", is_archived=False)


def test_many_writers_at_once_lose_nothing(database: Database) -> None:
    id, errors = add(database, "0"), []

    def count_up() -> None:
        try:
            for _ in range(20):
                with database.writing() as connection:
                    if connection.dialect.name == "postgresql":
                        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(1)")
                    PROJECTS.update(connection, id, name=str(int(PROJECTS.get(connection, id).name) + 1))
        except DatabaseError as error:
            errors.append(error)

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    with database.reading() as connection:
        assert PROJECTS.get(connection, id).name == "80"
