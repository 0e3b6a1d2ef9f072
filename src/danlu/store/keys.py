"""API keys: what programs sign in with. Only the hash of the secret is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Connection, func, or_, select, update

from danlu.store import tables
from danlu.store.rows import Noun


@dataclass(frozen=True)
class Key:
    """An API key. It holds the hash of the secret: doors get `services.platform.keys.KeyView`."""

    id: str
    user_id: str
    project_id: str | None
    name: str
    secret_hash: str = field(repr=False)
    role: str
    expires_at: float | None
    seen_at: float | None
    revoked_at: float | None
    created_at: float
    updated_at: float
    version: int


KEYS = Noun(tables.api_keys, Key, prefix="key")


def num_alive(connection: Connection, user_id: str, now: float) -> int:
    """How many keys of a user are valid."""
    column = tables.api_keys.c
    is_alive = or_(column.expires_at.is_(None), column.expires_at > now)
    return connection.execute(select(func.count()).where(column.user_id == user_id, column.revoked_at.is_(None), is_alive)).scalar_one()


def touch(connection: Connection, key_id: str, now: float) -> None:
    """Remember that it was used."""
    connection.execute(update(tables.api_keys).where(tables.api_keys.c.id == key_id).values(seen_at=now))
