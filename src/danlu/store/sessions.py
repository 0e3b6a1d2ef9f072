"""Sessions of signed-in users. Only the hash of a session's token is kept: whoever reads the database cannot sign in with it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from danlu.store.ids import new_id
from danlu.store.tables import sessions


@dataclass(frozen=True)
class Session:
    """One sign-in of a user in one browser."""

    id: str
    user_id: str
    created_at: float
    seen_at: float
    expires_at: float
    agent: str
    """What the browser calls itself."""
    address: str | None


_SHOWN = [column for column in sessions.columns if column.name != "token_hash"]


def add(connection: Connection, *, token_hash: str, user_id: str, agent: str, address: str | None, now: float, expires_at: float) -> Session:
    """Begin a session."""
    session = Session(new_id("ses"), user_id, now, now, expires_at, agent[:200], address)
    connection.execute(insert(sessions).values(**vars(session), token_hash=token_hash))
    return session


def find(connection: Connection, token_hash: str) -> Session | None:
    """Return the session with this token."""
    row = connection.execute(select(*_SHOWN).where(sessions.c.token_hash == token_hash)).mappings().first()
    return None if row is None else Session(**row)


def touch(connection: Connection, session_id: str, now: float, address: str | None) -> None:
    """Remember that it was used."""
    connection.execute(update(sessions).where(sessions.c.id == session_id).values(seen_at=now, address=address))


def of_user(connection: Connection, user_id: str) -> list[Session]:
    """Sessions of a user, newest first."""
    return [Session(**row) for row in connection.execute(select(*_SHOWN).where(sessions.c.user_id == user_id).order_by(sessions.c.id.desc())).mappings()]


def end(connection: Connection, session_id: str, user_id: str) -> bool:
    """End one session of a user; tell whether there was one."""
    return bool(connection.execute(delete(sessions).where(sessions.c.id == session_id, sessions.c.user_id == user_id)).rowcount)


def end_all(connection: Connection, user_id: str) -> None:
    """End every session of a user."""
    connection.execute(delete(sessions).where(sessions.c.user_id == user_id))


def end_expired(connection: Connection, now: float, idle_since: float) -> None:
    """Forget sessions of anybody that are over."""
    connection.execute(delete(sessions).where((sessions.c.expires_at <= now) | (sessions.c.seen_at < idle_since)))
