"""Folders whose row is gone: written with the row's deletion, so that no kill between the two leaves files that nobody knows of.

When several homes share the database each removes its own: to another one the folder would seem to be gone already.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from sqlalchemy import Connection, delete, insert, or_, select

from danlu.store.tables import removals


def add(connection: Connection, folders: Mapping[str, str | None]) -> None:
    """Have folders (below the home folder) removed; each with the id of its home, where one is known."""
    known = set(connection.execute(select(removals.c.folder)).scalars())  # few: they go within seconds
    rows = [{"folder": folder, "home": home, "created_at": time.time()} for folder, home in folders.items() if folder not in known]
    if rows:
        connection.execute(insert(removals), rows)


def pending(connection: Connection, *, home: str | None = None) -> list[str]:
    """Folders that are still to be removed: from `home`, or from any."""
    query = select(removals.c.folder).order_by(removals.c.created_at)
    if home is not None:
        query = query.where(or_(removals.c.home.is_(None), removals.c.home == home))
    return list(connection.execute(query).scalars())


def done(connection: Connection, folder: str) -> None:
    """Say that a folder is gone."""
    connection.execute(delete(removals).where(removals.c.folder == folder))
