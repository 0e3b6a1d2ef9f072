"""Who asks, and what they may do. The only place that decides it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

from danlu.errors import ForbiddenError, NotFoundError, SignInError
from danlu.store import members
from danlu.store.datasets import DATASET_VERSIONS, DATASETS
from danlu.store.engine import Connection
from danlu.store.jobs import JOBS
from danlu.store.notices import SUBSCRIPTIONS
from danlu.store.rows import Noun
from danlu.store.runs import EVALUATIONS, EXPORTS, MODELS, RUNS
from danlu.store.tables import ROLES
from danlu.store.uploads import UPLOADS
from danlu.store.votes import RATINGS, VOTES

Role = Literal["viewer", "reviewer", "editor", "admin"]
"""In a project; each may do what those before it may."""
Right = Literal["anyone", "user", "person", "viewer", "reviewer", "editor", "admin", "operator"]
"""What an operation asks for: nothing, to be signed in, to be signed in oneself (no API key), a role in the project it concerns, or to
administer the whole installation."""

OWNED: dict[str, Noun[Any]] = {
    "dataset_id": DATASETS,
    "dataset_version_id": DATASET_VERSIONS,
    "evaluation_id": EVALUATIONS,
    "export_id": EXPORTS,
    "job_id": JOBS,
    "model_id": MODELS,
    "rating_id": RATINGS,
    "run_id": RUNS,
    "upload_id": UPLOADS,
    "subscription_id": SUBSCRIPTIONS,
    "vote_id": VOTES,
}
"""Parameters that name something that belongs to a project."""


@dataclass(frozen=True)
class Actor:
    """Who asks: a signed-in user, an API key of one, the owner of this machine (single-user mode), or nobody known."""

    user_id: str | None = None
    name: str = ""
    is_signed_in: bool = False
    is_operator: bool = False
    """Administers the installation; has every role in every project."""
    key_role: Role | None = None
    """An API key's upper bound."""
    key_project_id: str | None = None
    """The only project an API key may touch."""
    address: str | None = None
    """Network address, for the audit log."""
    key_id: str | None = None
    """The API key it asks with."""
    session_id: str | None = None
    """The session it is signed in with."""

    @property
    def is_key(self) -> bool:
        """Whether it is a program with an API key."""
        return self.key_id is not None or self.key_role is not None or self.key_project_id is not None

    @classmethod
    def local(cls, address: str | None = None) -> Actor:
        """Who sits at this machine: the CLI, the Python API on a local home, the studio in single-user mode."""
        return cls(name="local", is_signed_in=True, is_operator=True, address=address)


NOBODY = Actor()


def role_in(connection: Connection, actor: Actor, project_id: str) -> Role | None:
    """Role of the actor in a project; None when it may not even know that the project exists."""
    if not actor.is_signed_in or actor.key_project_id not in (None, project_id):
        return None
    role = members.role_of(connection, project_id, actor.user_id)
    if actor.is_operator and members.has_project(connection, project_id):
        role = "admin"
    if role is None:
        return None
    return cast(Role, min(role, actor.key_role or role, key=ROLES.index))


def visible_projects(connection: Connection, actor: Actor) -> list[str] | None:
    """Ids of the projects the actor may see; None for all."""
    if actor.key_project_id is not None:
        return [actor.key_project_id] if role_in(connection, actor, actor.key_project_id) else []
    if actor.is_operator:
        return None
    return members.projects_of(connection, actor.user_id)


def project_of(connection: Connection, arguments: dict[str, Any]) -> str | None:
    """The project that the arguments of an operation concern.

    Raises:
        NotFoundError: something they name does not exist, or two things they name belong to different projects.
    """
    projects = {name: OWNED[name].get(connection, value).project_id for name, value in arguments.items() if name in OWNED and value is not None}
    if arguments.get("project_id") is not None:
        projects["project_id"] = arguments["project_id"]
    if len(set(projects.values())) > 1:
        raise _not_found(max(projects))
    return next(iter(projects.values()), None)


def check(connection: Connection, actor: Actor, right: Right, arguments: dict[str, Any], *, changes: bool = False) -> str | None:
    """Refuse what the actor may not do; return the project it concerns.

    `changes` says that something is to be changed, not only read: what concerns no project then takes an API key of an editor that is not
    bound to one.

    Raises:
        SignInError: nobody is signed in.
        ForbiddenError: the role does not suffice.
        NotFoundError: what is named does not exist, or the actor may not know that it does.
    """
    if right == "anyone":
        return None
    if not actor.is_signed_in:
        raise SignInError(
            "nobody is signed in",
            why="this can only be done by a user",
            fix="sign in, or send an API key (Authorization: Bearer dl_...; for `danlu`: DANLU_TOKEN)",
        )
    if right == "person":
        if actor.is_key:
            raise ForbiddenError("this cannot be done with an API key", why="a key must not change an account or make keys", fix="sign in with your name")
        return None
    if right == "user":
        if changes and actor.is_key and (actor.key_project_id is not None or ROLES.index(actor.key_role or "admin") < ROLES.index("editor")):
            raise ForbiddenError(
                "this API key may not do this", why="it is bound to a project, or only to read", fix="use a key of an editor for every project"
            )
        return None
    if right == "operator":
        if not actor.is_operator or actor.key_role not in (None, "admin") or actor.key_project_id is not None:
            raise ForbiddenError("this needs an administrator", why="it concerns the whole installation", fix="ask an administrator to do it")
        return None
    project_id = project_of(connection, arguments)
    assert project_id is not None, "an operation that asks for a role must name something that belongs to a project"
    role = role_in(connection, actor, project_id)
    if role is None:
        raise _not_found(next((name for name in arguments if name in OWNED), "project_id"), str(arguments.get("project_id", "")))
    if ROLES.index(role) < ROLES.index(right):
        raise ForbiddenError(f"this needs the role {right}", why=f"your role in this project is {role}", fix="ask an administrator of the project for the role")
    return project_id


def _not_found(parameter: str, value: str = "") -> NotFoundError:
    noun = parameter.removesuffix("_id").replace("_", " ")
    return NotFoundError(
        f"there is no such {noun}",
        why="the id is mistyped, it was deleted, or you are no member of its project",
        fix=f"list the {noun}s and take an id from there",
    )
