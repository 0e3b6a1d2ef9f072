"""Use cases on API keys: what programs send as `Authorization: Bearer dl_<id>_<secret>`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Annotated, cast

from pydantic import AfterValidator, Field

from danlu.errors import NotFoundError, SignInError
from danlu.recipe.base import StrictModel
from danlu.services.platform import quotas
from danlu.services.platform.access import Actor, Role, role_in
from danlu.services.platform.file_names import clean_name
from danlu.services.platform.operations import Call, operation
from danlu.services.platform.platform import Platform
from danlu.services.platform.tokens import hash_token, is_token, new_token
from danlu.store import keys as store
from danlu.store.keys import KEYS, Key
from danlu.store.rows import Page
from danlu.store.users import USERS

SEEN_EVERY_SECONDS = 60
"""How exactly it is noted when a key was used."""
ANOTHER = "make another one in the studio (Settings), or ask its owner to; `danlu` takes it from DANLU_TOKEN"
_NO_HASH = hash_token("")


class NewKey(StrictModel):
    """An API key to make."""

    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(clean_name)]
    """What it is for."""
    role: Role = "viewer"
    """The most it may do; never more than its owner."""
    project_id: str | None = Field(None, max_length=80)
    """The only project it may touch; every project of its owner when left out."""
    valid_days: int | None = Field(90, ge=1, le=3650)
    """How long it is valid; null for ever."""


@dataclass(frozen=True)
class KeyView:
    """An API key without its secret."""

    id: str
    user_id: str
    name: str
    prefix: str
    """The beginning of the key, to tell which one it is."""
    role: str
    project_id: str | None
    created_at: float
    expires_at: float | None
    seen_at: float | None
    """When it was last used, to the minute."""
    revoked_at: float | None


@dataclass(frozen=True)
class MadeKey:
    """A fresh key, which is shown this once."""

    key: KeyView
    secret: str = field(repr=False)
    """The whole key: `dl_...`."""

    @property
    def id(self) -> str:
        """What the audit log names."""
        return self.key.id

    @property
    def project_id(self) -> str | None:
        """Project of the key, for the audit log."""
        return self.key.project_id


@operation("POST", "/me/keys", right="person")
def create_key(call: Call, body: NewKey) -> MadeKey:
    """Make an API key of the user who asks.

    Raises:
        NotFoundError: there is no such project, or the user is no member of it.
        QuotaError: the user has as many as one may.
    """
    if call.actor.user_id is None:
        raise SignInError("an API key needs a user", why="in single-user mode programs on this machine need no key", fix="make a user first")
    quotas.check_keys(call.connection, call.actor.user_id, time.time())
    if body.project_id is not None and role_in(call.connection, call.actor, body.project_id) is None:
        raise NotFoundError("there is no such project", why="the id is mistyped, or you are no member of it", fix="list the projects and take an id from there")
    secret = new_token().replace("_", "-")
    made = KEYS.insert(
        call.connection,
        user_id=call.actor.user_id,
        project_id=body.project_id,
        name=body.name,
        secret_hash=hash_token(secret),
        role=body.role,
        expires_at=None if body.valid_days is None else time.time() + body.valid_days * 86_400,
    )
    return MadeKey(_view(made), f"{_prefix(made.id)}_{secret}")


@operation("GET", "/me/keys", right="person")
def list_keys(call: Call) -> list[KeyView]:
    """API keys of the user who asks, oldest first."""
    return [_view(key) for key in KEYS.all(call.connection, user_id=call.actor.user_id)]


@operation("DELETE", "/me/keys/{key_id}", right="person")
def revoke_key(call: Call, key_id: str) -> None:
    """End an API key of the user who asks; it stays in the list.

    Raises:
        NotFoundError: the user has no such key.
    """
    found = KEYS.find(call.connection, id=key_id, user_id=call.actor.user_id)
    if found is None:
        raise NotFoundError("there is no such key", why="the id is mistyped, or it is not yours", fix="list your keys and take an id from there")
    _revoke(call, found)


@operation("GET", "/keys", right="operator")
def list_all_keys(call: Call, user_id: str | None = None, limit: int = 50, after: str | None = None) -> Page[KeyView]:
    """API keys of everybody, or of one user, newest first."""
    page = KEYS.page(call.connection, limit=limit, after=after, **({} if user_id is None else {"user_id": user_id}))
    return Page([_view(key) for key in page.items], page.next)


@operation("DELETE", "/keys/{key_id}", right="operator")
def revoke_any_key(call: Call, key_id: str) -> None:
    """End anybody's API key; it stays in the list."""
    _revoke(call, KEYS.get(call.connection, key_id))


def actor_of_key(platform: Platform, text: str, address: str | None) -> Actor | None:
    """Return who asks with this key, or None when it is none.

    Raises:
        SignInError: it was one. Only who has the whole key is told.
    """
    start, _, rest = text.partition("_")
    id, _, secret = rest.partition("_")
    if start != "dl" or not secret:
        return None
    with platform.database.reading() as connection:
        key = KEYS.find(connection, id=f"key_{id}")
        user = None if key is None else USERS.find(connection, id=key.user_id)
    now = time.time()
    if not is_token(secret, _NO_HASH if key is None else key.secret_hash) or key is None or user is None:
        return None
    if not user.is_active:
        return None
    if key.revoked_at is not None:
        raise SignInError(f"the API key {_prefix(key.id)} was revoked", why=f"on {_day(key.revoked_at)}", fix=ANOTHER)
    if key.expires_at is not None and key.expires_at <= now:
        raise SignInError(f"the API key {_prefix(key.id)} has expired", why=f"it was valid until {_day(key.expires_at)}", fix=ANOTHER)
    if key.seen_at is None or now - key.seen_at >= SEEN_EVERY_SECONDS:
        with platform.database.writing() as connection:
            store.touch(connection, key.id, now)
    return Actor(
        user_id=user.id,
        name=user.name,
        is_signed_in=True,
        is_operator=user.is_admin,
        key_role=cast(Role, key.role),
        key_project_id=key.project_id,
        key_id=key.id,
        address=address,
    )


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def _prefix(key_id: str) -> str:
    return "dl_" + key_id.removeprefix("key_")


def _view(key: Key) -> KeyView:
    shown = {name: getattr(key, name) for name in ("id", "user_id", "name", "role", "project_id", "created_at", "expires_at", "seen_at", "revoked_at")}
    return KeyView(**shown, prefix=_prefix(key.id))


def _revoke(call: Call, key: Key) -> None:
    if key.revoked_at is None:
        KEYS.update(call.connection, key.id, revoked_at=time.time())
