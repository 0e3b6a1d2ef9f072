"""A home with tables, two projects and somebody for every role, for the tests of attacks."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from doors import World

from danlu.services.platform.platform import Platform
from danlu.settings import Settings
from danlu.store import schema
from danlu.store.engine import Database


@pytest.fixture(scope="session")
def tables_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the tables of this version, to be copied."""
    path = tmp_path_factory.mktemp("tables") / "danlu.sqlite"
    database = Database(f"sqlite:///{path}")
    schema.upgrade(database)
    database.close()
    return path


def opened(home: Path, tables_file: Path) -> Platform:
    """Open a home without users."""
    home.mkdir()
    shutil.copyfile(tables_file, home / "danlu.sqlite")
    return Platform.open(Settings(home=home))


@pytest.fixture
def platform(tmp_path: Path, tables_file: Path) -> Iterator[Platform]:
    """An opened home without users."""
    platform = opened(tmp_path / "home", tables_file)
    yield platform
    platform.close()


@pytest.fixture
def world(platform: Platform) -> World:
    """A home with people in it."""
    return World(platform)


@pytest.fixture(scope="module")
def still_world(tmp_path_factory: pytest.TempPathFactory, tables_file: Path) -> Iterator[World]:
    """A home with people in it, for tests that change nothing."""
    platform = opened(tmp_path_factory.mktemp("still") / "home", tables_file)
    yield World(platform)
    platform.close()
