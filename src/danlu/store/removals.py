"""Folders whose row is gone: written with the row's deletion, so that no kill between the two leaves files that nobody knows of."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select

from danlu.store.tables import removals


def add(connection: Connection, folders: Sequence[str]) -> None:
    """Have folders (below the home folder) removed."""
    known = set(connection.execute(select(removals.c.folder).where(removals.c.folder.in_(folders))).scalars())
    for folder in dict.fromkeys(folders):
        if folder not in known:
            connection.execute(insert(removals).values(folder=folder, created_at=time.time()))


def pending(connection: Connection) -> list[str]:
    """Folders that are still to be removed."""
    return list(connection.execute(select(removals.c.folder).order_by(removals.c.created_at)).scalars())


def done(connection: Connection, folder: str) -> None:
    """Say that a folder is gone."""
    connection.execute(delete(removals).where(removals.c.folder == folder))
