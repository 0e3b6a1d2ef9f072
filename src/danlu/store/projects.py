"""Projects: what belongs together and who may do what in it."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from danlu.store import tables
from danlu.store.rows import Noun


@dataclass(frozen=True)
class Project:
    """A group of datasets, runs and models, shared by its members."""

    id: str
    name: str
    description: str
    created_by: str | None
    is_archived: bool
    created_at: float
    updated_at: float
    version: int


PROJECTS = Noun(tables.projects, Project, prefix="prj")


def num_made_by(connection: Connection, user_id: str) -> int:
    """How many projects there are that a user has made."""
    return connection.execute(select(func.count()).where(tables.projects.c.created_by == user_id)).scalar_one()


def num_waiting_jobs(connection: Connection, project_id: str) -> int:
    """How many jobs of a project are in the queue and have not started."""
    mine = tables.jobs.c
    return connection.execute(select(func.count()).where(mine.project_id == project_id, mine.state.in_(("queued", "waiting")))).scalar_one()
