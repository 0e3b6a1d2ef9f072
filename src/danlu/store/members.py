"""Members of a project: who may do what in it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from danlu.errors import NotFoundError
from danlu.store.tables import members, projects, users


@dataclass(frozen=True)
class Member:
    """A user's role in a project."""

    user_id: str
    name: str
    role: str


def members_of(connection: Connection, project_id: str) -> list[Member]:
    """Members of a project by name."""
    query = select(users.c.id, users.c.name, members.c.role).join(users, users.c.id == members.c.user_id)
    return [Member(*row) for row in connection.execute(query.where(members.c.project_id == project_id).order_by(users.c.name, users.c.id))]


def role_of(connection: Connection, project_id: str, user_id: str | None) -> str | None:
    """Role of a user in a project, or None."""
    return connection.execute(select(members.c.role).where(members.c.project_id == project_id, members.c.user_id == user_id)).scalar()


def projects_of(connection: Connection, user_id: str | None) -> list[str]:
    """Ids of the projects a user belongs to."""
    return list(connection.execute(select(members.c.project_id).where(members.c.user_id == user_id)).scalars())


def has_project(connection: Connection, project_id: str) -> bool:
    """Whether there is such a project."""
    return connection.execute(select(projects.c.id).where(projects.c.id == project_id)).scalar() is not None


def set_role(connection: Connection, project_id: str, user_id: str, role: str) -> None:
    """Add a user to a project, or change the role.

    Raises:
        NotFoundError: there is no such user.
    """
    if connection.execute(select(users.c.id).where(users.c.id == user_id)).scalar() is None:
        raise NotFoundError(
            f"there is no user {user_id[:80]!r}", why="the id is mistyped, or the user was deleted", fix="list the users and take an id from there"
        )
    mine = (members.c.project_id == project_id, members.c.user_id == user_id)
    if not connection.execute(update(members).where(*mine).values(role=role)).rowcount:
        connection.execute(insert(members).values(project_id=project_id, user_id=user_id, role=role))


def remove(connection: Connection, project_id: str, user_id: str) -> None:
    """Take a user out of a project.

    Raises:
        NotFoundError: the user is no member.
    """
    if not connection.execute(delete(members).where(members.c.project_id == project_id, members.c.user_id == user_id)).rowcount:
        raise NotFoundError(f"{user_id[:80]!r} is no member of this project", why="the id is mistyped, or the user has left", fix="list the members")
