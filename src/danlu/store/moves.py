"""Jobs name folders of the home they belong to; when that lies elsewhere, so do these."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select, update

from danlu.store.tables import jobs


def relocate(connection: Connection, home: str, before: str, after: str) -> int:
    """Let the payloads of a home's jobs name the folder it is in now; return how many named the one before."""
    found = connection.execute(select(jobs.c.id, jobs.c.payload).where(jobs.c.home == home)).all()
    moved = [(id, new) for id, payload in found if (new := with_folder(payload, before, after)) != payload]
    for id, payload in moved:
        connection.execute(update(jobs).where(jobs.c.id == id).values(payload=payload))
    return len(moved)


def with_folder(value: Any, before: str, after: str) -> Any:
    """A JSON value whose paths below one folder are below another."""
    if isinstance(value, str):
        return after + value[len(before) :] if value == before or value.startswith(f"{before}/") else value
    if isinstance(value, dict):
        return {with_folder(key, before, after): with_folder(item, before, after) for key, item in value.items()}
    return [with_folder(item, before, after) for item in value] if isinstance(value, list) else value
