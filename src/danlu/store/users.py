"""Users: who may sign in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select, update

from danlu.store import tables
from danlu.store.rows import Noun


@dataclass(frozen=True)
class User:
    """Somebody with an account. It holds the hash of the password: doors get `services.platform.users.UserView`."""

    id: str
    name: str
    name_key: str
    """What the name is looked up by: names that look alike have the same."""
    email: str | None
    password_hash: str | None = field(repr=False)
    oidc_subject: str | None
    is_admin: bool
    is_active: bool
    preferences: dict[str, Any]
    created_at: float
    updated_at: float
    version: int


USERS = Noun(tables.users, User, prefix="usr")


def has_any(connection: Connection) -> bool:
    """Whether there is a user at all."""
    return connection.execute(select(tables.users.c.id).limit(1)).first() is not None


def num_admins(connection: Connection, *, without: str) -> int:
    """How many others administer the installation and may sign in."""
    mine = tables.users.c
    # Locked, so that two administrators cannot each take the other for the one who stays.
    query = select(mine.id).where(mine.is_admin.is_(True), mine.is_active.is_(True), mine.id != without).with_for_update()
    return len(connection.execute(query).all())


def preferences_of(connection: Connection, user_id: str) -> dict[str, Any]:
    """How the studio looks to a user, as far as it was chosen."""
    mine = tables.users.c
    return dict(connection.execute(select(mine.preferences).where(mine.id == user_id)).scalar() or {})


def keep_preferences(connection: Connection, user_id: str, preferences: dict[str, Any]) -> None:
    """Keep how the studio looks to a user. It is no change of the account: its version stays, so no administrator is told of one."""
    connection.execute(update(tables.users).where(tables.users.c.id == user_id).values(preferences=preferences))
