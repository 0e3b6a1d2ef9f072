"""One-time tokens: the first administrator's, invitations, and sign-ins that are under way at an identity provider.

Taking a token removes it, in one statement: of two that come with the same token, one gets it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from danlu.store.ids import new_id
from danlu.store.tables import one_time_tokens


@dataclass(frozen=True)
class OneTimeToken:
    """What a token is for; never the token itself."""

    id: str
    kind: str
    fields: dict[str, Any]
    created_by: str | None
    created_at: float
    expires_at: float


_TABLE = one_time_tokens.c
_SHOWN = [column for column in one_time_tokens.columns if column.name != "token_hash"]


def add(
    connection: Connection, kind: str, *, token_hash: str, fields: dict[str, Any], now: float, expires_at: float, created_by: str | None = None
) -> OneTimeToken:
    """Add one, and forget those that have expired."""
    connection.execute(delete(one_time_tokens).where(_TABLE.expires_at <= now))
    made = OneTimeToken(new_id("tok"), kind, fields, created_by, now, expires_at)
    connection.execute(insert(one_time_tokens).values(**vars(made), token_hash=token_hash))
    return made


def find(connection: Connection, kind: str, token_hash: str, now: float) -> OneTimeToken | None:
    """Look at one without using it up."""
    row = connection.execute(select(*_SHOWN).where(_TABLE.kind == kind, _TABLE.token_hash == token_hash, _TABLE.expires_at > now)).mappings().first()
    return None if row is None else OneTimeToken(**row)


def take(connection: Connection, kind: str, token_hash: str, now: float) -> OneTimeToken | None:
    """Use one up; None when there is none, it has expired, or someone else was first."""
    found = find(connection, kind, token_hash, now)
    if found is None or not connection.execute(delete(one_time_tokens).where(_TABLE.id == found.id)).rowcount:
        return None
    return found


def of_kind(connection: Connection, kind: str, now: float) -> list[OneTimeToken]:
    """Those that can still be used, newest first."""
    rows = connection.execute(select(*_SHOWN).where(_TABLE.kind == kind, _TABLE.expires_at > now).order_by(_TABLE.id.desc())).mappings()
    return [OneTimeToken(**row) for row in rows]


def count(connection: Connection, kind: str) -> int:
    """How many there are."""
    return connection.execute(select(func.count()).where(_TABLE.kind == kind)).scalar_one()


def remove(connection: Connection, kind: str, id: str) -> bool:
    """Take one back; tell whether there was one."""
    return bool(connection.execute(delete(one_time_tokens).where(_TABLE.kind == kind, _TABLE.id == id)).rowcount)


def remove_all(connection: Connection, kind: str) -> None:
    """Take back all of a kind."""
    connection.execute(delete(one_time_tokens).where(_TABLE.kind == kind))
