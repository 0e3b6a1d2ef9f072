"""What a user prefers in the studio: a JSON value beside the user."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select, update

from danlu.store.tables import users


def read(connection: Connection, user_id: str) -> dict[str, Any]:
    """Return what is stored of a user; empty for one who has chosen nothing."""
    found = connection.execute(select(users.c.preferences).where(users.c.id == user_id)).scalar()
    return dict(found or {})


def write(connection: Connection, user_id: str, preferences: dict[str, Any]) -> None:
    """Store all of it."""
    connection.execute(update(users).where(users.c.id == user_id).values(preferences=preferences))
