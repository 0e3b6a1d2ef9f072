"""Use cases on sessions: sign in and out, the first administrator, invitations; and the operations on one's own sessions.

Signing in is no operation, since whoever does it is nobody yet: the functions here count attempts, check and write the audit log
themselves. What they refuse, they refuse with one sentence and after the same work, whether there is such a user or not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from danlu.errors import ConflictError, ForbiddenError, NotFoundError, SignInError
from danlu.services.platform import names, passwords, rates, users
from danlu.services.platform.access import Actor
from danlu.services.platform.operations import Call, operation
from danlu.services.platform.platform import Platform
from danlu.services.platform.tokens import hash_token, new_token
from danlu.store import audit, members, tokens
from danlu.store import sessions as store
from danlu.store import users as user_store
from danlu.store.engine import Connection
from danlu.store.users import USERS, User

IDLE_SECONDS = 24 * 3600
"""A session that was not used for so long is over."""
ABSOLUTE_SECONDS = 14 * 86_400
"""No session lives longer."""
SEEN_EVERY_SECONDS = 60
"""How exactly it is noted when a session was used."""
FIRST_ADMIN_SECONDS = 24 * 3600
"""How long the token for the first administrator is valid."""


@dataclass(frozen=True)
class SignedIn:
    """A fresh session."""

    user: users.UserView
    expires_at: float
    token: str = field(repr=False)
    """What the browser keeps in its cookie."""


@dataclass(frozen=True)
class SessionView:
    """A session of a user, without its token."""

    id: str
    created_at: float
    seen_at: float
    """When it was last used, to the minute."""
    expires_at: float
    agent: str
    address: str | None
    is_current: bool


@dataclass(frozen=True)
class Visitor:
    """Where a sign-in comes from."""

    address: str | None = None
    agent: str = ""
    previous_token: str | None = field(default=None, repr=False)
    """The session the browser had until now; it ends."""


def sign_in(platform: Platform, name: str, password: str, visitor: Visitor) -> SignedIn:
    """Begin a session by name and password.

    Raises:
        SignInError: there is no such user, the password is wrong, or the user is locked out.
        TooManyRequestsError: there were too many attempts.
    """
    home, key = str(platform.home), names.key_of(name)
    rates.attempt_sign_in(home, key, visitor.address)
    with platform.database.reading() as connection:
        user = USERS.find(connection, name_key=key)
    is_right = passwords.verify(password, None if user is None else user.password_hash)
    with platform.database.writing() as connection:
        now = None if user is None else USERS.find(connection, id=user.id)
        if user is not None and is_right and now is not None and now.is_active and now.password_hash == user.password_hash:
            rates.forget_sign_ins(home, key, visitor.address)
            return begin(connection, now, visitor)
        _note(connection, "sign_in_failed", None if user is None else user.id, visitor)
    raise SignInError("the name or the password is wrong", why="they do not belong together", fix="type them again; an administrator can send a new invitation")


def sign_out(platform: Platform, token: str, visitor: Visitor) -> None:
    """End a session."""
    with platform.database.writing() as connection:
        session = store.find(connection, hash_token(token))
        if session is not None:
            store.end(connection, session.id, session.user_id)
            _note(connection, "sign_out", session.user_id, visitor)


def first_admin_token(platform: Platform) -> str | None:
    """Return a fresh token for the first administrator, to be printed at the start of the server; None when there are users.

    Tokens made before are no longer valid.
    """
    token, now = new_token(), time.time()
    with platform.database.writing() as connection:
        if user_store.has_any(connection):
            return None
        tokens.remove_all(connection, "first_admin")
        tokens.add(connection, "first_admin", token_hash=hash_token(token), fields={}, now=now, expires_at=now + FIRST_ADMIN_SECONDS)
    return token


def create_first_admin(platform: Platform, token: str, name: str, password: str, visitor: Visitor) -> SignedIn:
    """Make the first administrator with the token that the server printed.

    Raises:
        SignInError: the token is not valid, was used, or there are users already.
        ConflictError: the password is too easy.
    """
    _count_token(platform, visitor)
    name = _good(name, password)
    hashed = passwords.hash_of(password)
    with platform.database.writing() as connection:
        taken = tokens.take(connection, "first_admin", hash_token(token), time.time())
        if taken is None or user_store.has_any(connection):
            raise _bad_token()
        user = users.insert(connection, name=name, password_hash=hashed, is_admin=True)
        _note(connection, "create_first_admin", user.id, visitor)
        return begin(connection, user, visitor)


def accept_invitation(platform: Platform, token: str, name: str | None, password: str, visitor: Visitor) -> SignedIn:
    """Make an account with an invitation, or set a new password with one.

    Raises:
        SignInError: the invitation is not valid, was used, or was taken back.
        ConflictError: the name is missing or taken, or the password too easy.
    """
    _count_token(platform, visitor)
    with platform.database.writing() as connection:
        taken = tokens.take(connection, "invitation", hash_token(token), time.time())
        if taken is None:
            raise _bad_token()
        if taken.fields.get("user_id"):
            invited = USERS.find(connection, id=taken.fields["user_id"])
            if invited is None or not invited.is_active:
                raise _bad_token()
            users.set_password(connection, invited, password)
        else:
            tidy = _good(name or "", password)
            invited = admit(connection, taken.fields, name=tidy, password_hash=passwords.hash_of(password))
        _note(connection, "accept_invitation", invited.id, visitor)
        return begin(connection, invited, visitor)


def admit(connection: Connection, invitation: dict[str, Any], *, name: str, **values: Any) -> User:
    """Make the user that an invitation promises.

    Raises:
        ConflictError: the name is taken, or the first user would not be an administrator.
    """
    if not invitation.get("is_admin") and not user_store.has_any(connection):
        raise ConflictError("the first user must be an administrator", why="from now on everybody has to sign in", fix="make the first administrator first")
    user = users.insert(connection, name=name, email=invitation.get("email"), is_admin=bool(invitation.get("is_admin")), **values)
    project_id = invitation.get("project_id")
    if project_id is not None and members.has_project(connection, project_id):
        members.set_role(connection, project_id, user.id, invitation["role"])
    return user


def begin(connection: Connection, user: User, visitor: Visitor) -> SignedIn:
    """Begin a session with a token of its own, and end the one that the browser had."""
    now = time.time()
    store.end_expired(connection, now, now - IDLE_SECONDS)
    previous = None if visitor.previous_token is None else store.find(connection, hash_token(visitor.previous_token))
    if previous is not None:
        store.end(connection, previous.id, previous.user_id)
    token, expires_at = new_token(), now + ABSOLUTE_SECONDS
    store.add(connection, token_hash=hash_token(token), user_id=user.id, agent=visitor.agent, address=visitor.address, now=now, expires_at=expires_at)
    _note(connection, "sign_in", user.id, visitor)
    return SignedIn(users.view(user), expires_at, token)


def actor_of_session(platform: Platform, token: str, address: str | None, *, now: float | None = None) -> Actor | None:
    """Return who is signed in with this token, or None when the session is over."""
    now = time.time() if now is None else now
    with platform.database.reading() as connection:
        session = store.find(connection, hash_token(token))
        user = None if session is None else USERS.find(connection, id=session.user_id)
    if session is None or user is None or not user.is_active or session.expires_at <= now or session.seen_at < now - IDLE_SECONDS:
        return None
    if now - session.seen_at >= SEEN_EVERY_SECONDS:
        with platform.database.writing() as connection:
            store.touch(connection, session.id, now, address)
    return Actor(user_id=user.id, name=user.name, is_signed_in=True, is_operator=user.is_admin, address=address, session_id=session.id)


def has_users(platform: Platform) -> bool:
    """Whether anybody has an account; until then the owner of the machine needs none."""
    with platform.database.reading() as connection:
        return user_store.has_any(connection)


@operation("GET", "/me/sessions", right="person")
def list_sessions(call: Call) -> list[SessionView]:
    """Sessions of the user who asks, newest first."""
    if call.actor.user_id is None:
        return []
    shown = ("id", "created_at", "seen_at", "expires_at", "agent", "address")
    found = store.of_user(call.connection, call.actor.user_id)
    return [SessionView(**{name: getattr(session, name) for name in shown}, is_current=session.id == call.actor.session_id) for session in found]


@operation("DELETE", "/me/sessions/{session_id}", right="person")
def end_session(call: Call, session_id: str) -> None:
    """End a session of the user who asks.

    Raises:
        NotFoundError: the user has no such session.
    """
    if call.actor.user_id is None or not store.end(call.connection, session_id, call.actor.user_id):
        raise NotFoundError("there is no such session", why="it has ended, or it is not yours", fix="list your sessions and take an id from there")


@operation("DELETE", "/me/sessions", right="person")
def end_sessions(call: Call) -> None:
    """End every session of the user who asks, also the one that asks."""
    if call.actor.user_id is None:
        raise ForbiddenError("there are no sessions to end", why="this machine's owner needs none in single-user mode", fix="make a user first")
    store.end_all(call.connection, call.actor.user_id)


def _good(name: str, password: str) -> str:
    try:
        name = names.tidy(name)
        passwords.check(password, name=name)
    except ValueError as error:
        raise ConflictError("this account cannot be made", why=str(error), fix="choose another name or password") from error
    return name


def _count_token(platform: Platform, visitor: Visitor) -> None:
    rates.attempt(f"one-time token {platform.home}", visitor.address, most=rates.ONE_TIME_TOKENS, seconds=300)


def _bad_token() -> SignInError:
    return SignInError(
        "this token is not valid",
        why="it was used, taken back, has expired, or is mistyped",
        fix="ask for a new one; the server prints the first at its start",
    )


def _note(connection: Connection, action: str, user_id: str | None, visitor: Visitor) -> None:
    audit.append(connection, user_id=user_id, action=action, subject=user_id or "", project_id=None, address=visitor.address)
