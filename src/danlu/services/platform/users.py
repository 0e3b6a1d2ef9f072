"""Use cases on users: make, list, change, remove them; and what users do with their own account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from danlu.errors import ConflictError, SignInError
from danlu.recipe.base import StrictModel
from danlu.services.platform import names, passwords, rates
from danlu.services.platform.access import Role
from danlu.services.platform.operations import Call, operation
from danlu.store import sessions
from danlu.store import users as store
from danlu.store.engine import Connection
from danlu.store.rows import Page
from danlu.store.users import USERS, User

UserName = Annotated[str, Field(min_length=1, max_length=4 * names.MAX_NAME), AfterValidator(names.tidy)]
Password = Annotated[str, Field(max_length=passwords.MAX_LENGTH)]
Email = Annotated[str, Field(max_length=254, pattern=r"^[^\s@<>\"']+@[^\s@<>\"']+$")]


@dataclass(frozen=True)
class UserView:
    """A user as administrators see one."""

    id: str
    name: str
    email: str | None
    is_admin: bool
    """Administers the whole installation."""
    is_active: bool
    """May sign in."""
    has_password: bool
    uses_identity_provider: bool
    created_at: float
    updated_at: float
    version: int


@dataclass(frozen=True)
class Person:
    """A user as other users see one."""

    id: str
    name: str


@dataclass(frozen=True)
class Me:
    """Who asks, and with which rights."""

    user_id: str | None
    """None for the owner of the machine in single-user mode."""
    name: str
    is_admin: bool
    key_role: Role | None
    """Upper bound of the API key that is used."""
    key_project_id: str | None


class NewUser(StrictModel):
    """A user to make."""

    name: UserName
    """What the user signs in with."""
    password: Password = Field(repr=False)
    """At least 10 characters."""
    email: Email | None = None
    """Where messages go."""
    is_admin: bool = False
    """Administers the whole installation."""

    @model_validator(mode="after")
    def _password_is_good(self) -> NewUser:
        passwords.check(self.password, name=self.name)
        return self


class UserChange(StrictModel):
    """What to change of a user; what is left out stays."""

    name: UserName | None = None
    """What the user signs in with."""
    email: Email | None = None
    """Where messages go."""
    is_admin: bool | None = None
    """Administers the whole installation."""
    is_active: bool | None = None
    """May sign in; when not, sessions end and API keys are refused."""


class PasswordChange(StrictModel):
    """A new password."""

    current: Password = Field(repr=False)
    """The password as it is."""
    new: Password = Field(repr=False)
    """At least 10 characters."""


def view(user: User) -> UserView:
    """Return what administrators see of a user."""
    shown = {name: getattr(user, name) for name in ("id", "name", "email", "is_admin", "is_active", "created_at", "updated_at", "version")}
    return UserView(**shown, has_password=user.password_hash is not None, uses_identity_provider=user.oidc_subject is not None)


def insert(connection: Connection, *, name: str, **values: Any) -> User:
    """Add a user.

    Raises:
        ConflictError: the name, or one that looks like it, is taken.
    """
    defaults: dict[str, Any] = {"email": None, "password_hash": None, "oidc_subject": None, "is_admin": False, "is_active": True, "preferences": {}}
    _check_free(connection, name)
    return USERS.insert(connection, name=name, name_key=names.key_of(name), **(defaults | values))


@operation("GET", "/users", right="operator")
def list_users(call: Call, limit: int = 50, after: str | None = None) -> Page[UserView]:
    """Users of the installation, newest first."""
    page = USERS.page(call.connection, limit=limit, after=after)
    return Page([view(user) for user in page.items], page.next)


@operation("POST", "/users", right="operator")
def create_user(call: Call, body: NewUser) -> UserView:
    """Make a user. The first one has to be an administrator: from then on everybody has to sign in.

    Raises:
        ConflictError: the name, or one that looks like it, is taken; or the first user is no administrator.
    """
    if not body.is_admin and not store.has_any(call.connection):
        raise ConflictError("the first user must be an administrator", why="from now on everybody has to sign in", fix="set is_admin: true")
    made = insert(call.connection, name=body.name, email=body.email, is_admin=body.is_admin, password_hash=passwords.hash_of(body.password))
    return view(made)


@operation("GET", "/users/{user_id}", right="operator")
def get_user(call: Call, user_id: str) -> UserView:
    """Return one user."""
    return view(USERS.get(call.connection, user_id))


@operation("PATCH", "/users/{user_id}", right="operator")
def change_user(call: Call, user_id: str, body: UserChange, version: int | None = None) -> UserView:
    """Change a user's name or e-mail address, make an administrator of one, or lock one out.

    Raises:
        ConflictError: the name is taken, it was changed since `version`, or nobody would be left to administer the installation.
    """
    values = body.model_dump(exclude_none=True)
    if body.name is not None:
        _check_free(call.connection, body.name, except_id=user_id)
        values["name_key"] = names.key_of(body.name)
    changed = USERS.update(call.connection, user_id, version=version, **values)
    _keep_an_admin(call.connection, user_id, is_admin=changed.is_admin and changed.is_active)
    if not changed.is_active:
        sessions.end_all(call.connection, user_id)
    return view(changed)


@operation("DELETE", "/users/{user_id}", right="operator")
def delete_user(call: Call, user_id: str) -> None:
    """Delete a user with sessions, keys and memberships; projects and runs stay.

    Raises:
        ConflictError: nobody would be left to administer the installation.
    """
    USERS.get(call.connection, user_id)
    _keep_an_admin(call.connection, user_id, is_admin=False)
    USERS.delete(call.connection, user_id)


@operation("GET", "/people", right="user")
def find_person(call: Call, name: str) -> list[Person]:
    """Find the user of exactly this name, to make a member of; users cannot be listed by others than administrators."""
    found = USERS.find(call.connection, name_key=names.key_of(name), is_active=True)
    return [] if found is None else [Person(found.id, found.name)]


@operation("GET", "/me", right="user")
def get_me(call: Call) -> Me:
    """Return who asks."""
    actor = call.actor
    is_admin = actor.is_operator and actor.key_role in (None, "admin") and actor.key_project_id is None
    return Me(actor.user_id, actor.name, is_admin, actor.key_role, actor.key_project_id)


@operation("PUT", "/me/password", right="person", status=204)
def change_password(call: Call, body: PasswordChange) -> None:
    """Change the password of the user who asks. Every session ends, also the one that asks.

    Raises:
        SignInError: the current password is wrong.
        ConflictError: the new one is too easy, or the user has none here.
    """
    if call.actor.user_id is None:
        raise ConflictError("there is no password to change", why="this machine's owner needs none in single-user mode", fix="make a user first")
    user = USERS.get(call.connection, call.actor.user_id)
    rates.attempt_sign_in(str(call.platform.home), user.name_key, call.actor.address)
    if not passwords.verify(body.current, user.password_hash):
        raise SignInError("the current password is wrong", why="it does not match", fix="type it again; an administrator can send a new invitation")
    set_password(call.connection, user, body.new)


def set_password(connection: Connection, user: User, password: str) -> None:
    """Store a new password and end every session of the user.

    Raises:
        ConflictError: it is too easy.
    """
    try:
        passwords.check(password, name=user.name)
    except ValueError as error:
        raise ConflictError("this password cannot be taken", why=str(error), fix="choose another one") from error
    USERS.update(connection, user.id, password_hash=passwords.hash_of(password))
    sessions.end_all(connection, user.id)


def _check_free(connection: Connection, name: str, *, except_id: str | None = None) -> None:
    taken = USERS.find(connection, name_key=names.key_of(name))
    if taken is not None and taken.id != except_id:
        raise ConflictError(f"the name {name!r} is taken", why="a user has it, or one that looks like it", fix="choose another name")


def _keep_an_admin(connection: Connection, user_id: str, *, is_admin: bool) -> None:
    if not is_admin and not store.num_admins(connection, without=user_id):
        raise ConflictError("nobody would be left to administer the installation", why="this is the only administrator", fix="make another one first")
