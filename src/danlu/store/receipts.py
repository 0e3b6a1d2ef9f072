"""Receipts of requests that carry an idempotency key: what was asked, and what was answered."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from danlu.errors import ConflictError
from danlu.store.tables import idempotency_keys as table


@dataclass(frozen=True)
class Receipt:
    """One request of a user under a key."""

    user_id: str
    key: str
    request_hash: str
    response: dict[str, Any] | None
    """None while it is under way."""
    created_at: float


def find(connection: Connection, user_id: str, key: str) -> Receipt | None:
    """The receipt of a key, or None."""
    row = connection.execute(select(table).where(_is(user_id, key))).mappings().first()
    return None if row is None else Receipt(**row)


def begin(connection: Connection, user_id: str, key: str, request_hash: str) -> None:
    """Write down that a request begins.

    Raises:
        ConflictError: another one with this key has just begun.
    """
    connection.execute(delete(table).where(_is(user_id, key)))
    try:
        connection.execute(insert(table).values(user_id=user_id, key=key, request_hash=request_hash, response=None, created_at=time.time()))
    except IntegrityError as error:
        raise under_way() from error


def end(connection: Connection, user_id: str, key: str, response: dict[str, Any]) -> None:
    """Write down what was answered."""
    connection.execute(update(table).where(_is(user_id, key)).values(response=response))


def forget(connection: Connection, user_id: str, key: str) -> None:
    """Remove the receipt of a key."""
    connection.execute(delete(table).where(_is(user_id, key)))


def forget_older(connection: Connection, than: float) -> int:
    """Remove receipts made before `than`; return how many."""
    return connection.execute(delete(table).where(table.c.created_at < than)).rowcount


def under_way() -> ConflictError:
    """What the second of two equal requests hears while the first is not done."""
    return ConflictError(
        "a request with this idempotency key is under way", why="its answer is not known yet", fix="send it again in a moment; you will get its answer"
    )


def _is(user_id: str, key: str) -> Any:
    return and_(table.c.user_id == user_id, table.c.key == key)
