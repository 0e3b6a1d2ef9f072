"""Projects: what belongs together and who may do what in it."""

from dataclasses import dataclass

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
