"""Use cases on projects and their members."""

from __future__ import annotations

from pydantic import Field

from danlu.errors import ConflictError
from danlu.recipe.base import StrictModel
from danlu.services.platform import quotas
from danlu.services.platform.access import Role, visible_projects
from danlu.services.platform.file_names import Name
from danlu.services.platform.operations import Call, operation
from danlu.store import members, queue, removals
from danlu.store.members import Member
from danlu.store.projects import PROJECTS, Project
from danlu.store.rows import Page
from danlu.store.runs import folders_of_project


class NewProject(StrictModel):
    """A project to make."""

    name: Name
    """What people call it."""
    description: str = Field("", max_length=10_000)
    """What it is for."""


class ProjectChange(StrictModel):
    """What to change of a project; what is left out stays."""

    name: Name | None = None
    """What people call it."""
    description: str | None = Field(None, max_length=10_000)
    """What it is for."""
    is_archived: bool | None = None
    """Hidden from lists; nothing is deleted."""


class Membership(StrictModel):
    """A user's role in a project."""

    role: Role
    """viewer: read; reviewer: also vote and rate; editor: also add data, train, export; admin: also members and deleting."""


@operation("POST", "/projects", right="user")
def create_project(call: Call, body: NewProject) -> Project:
    """Make a project; whoever makes it administers it.

    Raises:
        QuotaError: the user has made as many as one may.
    """
    quotas.check_projects(call.platform, call.connection, call.actor)
    made = PROJECTS.insert(call.connection, name=body.name, description=body.description, created_by=call.actor.user_id, is_archived=False)
    if call.actor.user_id is not None:
        members.set_role(call.connection, made.id, call.actor.user_id, "admin")
    return made


@operation("GET", "/projects", right="user")
def list_projects(call: Call, limit: int = 50, after: str | None = None) -> Page[Project]:
    """Projects the user is a member of (all for administrators), newest first."""
    visible = visible_projects(call.connection, call.actor)
    only = {} if visible is None else {"id": visible}
    return PROJECTS.page(call.connection, limit=limit, after=after, **only)


@operation("GET", "/projects/{project_id}", right="viewer")
def get_project(call: Call, project_id: str) -> Project:
    """Return one project."""
    return PROJECTS.get(call.connection, project_id)


@operation("PATCH", "/projects/{project_id}", right="admin")
def change_project(call: Call, project_id: str, body: ProjectChange, version: int | None = None) -> Project:
    """Change a project's name or description, or archive it."""
    return PROJECTS.update(call.connection, project_id, version=version, **body.model_dump(exclude_none=True))


@operation("DELETE", "/projects/{project_id}", right="admin")
def delete_project(call: Call, project_id: str) -> None:
    """Delete a project with everything in it; refused while a job of it is not over.

    Raises:
        ConflictError: a job of it runs or waits.
    """
    for job in queue.unfinished(call.connection, project_id=project_id):
        raise ConflictError(f"project {project_id} is at work", why=f"job {job.id} is {job.state}", fix="cancel its jobs first")
    removals.add(call.connection, folders_of_project(call.connection, project_id))
    PROJECTS.delete(call.connection, project_id)


@operation("GET", "/projects/{project_id}/members", right="viewer")
def list_members(call: Call, project_id: str) -> list[Member]:
    """Who belongs to a project, and in which role."""
    return members.members_of(call.connection, project_id)


@operation("PUT", "/projects/{project_id}/members/{user_id}", right="admin")
def set_member(call: Call, project_id: str, user_id: str, body: Membership) -> list[Member]:
    """Add a user to a project, or change the role.

    Raises:
        NotFoundError: there is no such user.
    """
    members.set_role(call.connection, project_id, user_id, body.role)
    return members.members_of(call.connection, project_id)


@operation("DELETE", "/projects/{project_id}/members/{user_id}", right="admin")
def remove_member(call: Call, project_id: str, user_id: str) -> None:
    """Take a user out of a project.

    Raises:
        NotFoundError: the user is no member.
    """
    members.remove(call.connection, project_id, user_id)
