"""`studio.projects`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from danlu.client.transport import Method, Noun, covers
from danlu.errors import ConflictError, NotFoundError
from danlu.services.platform import projects
from danlu.services.platform.projects import NewProject
from danlu.store.projects import Project

ID = re.compile(r"prj_[0-9a-hjkmnp-tv-z]{26}")


class Projects(Noun):
    """Projects and their members."""

    list = Method(projects.list_projects)
    get = Method(projects.get_project)
    change = Method(projects.change_project)
    delete = Method(projects.delete_project)
    members = Method(projects.list_members)
    set_member = Method(projects.set_member)
    remove_member = Method(projects.remove_member)

    @covers(projects.create_project)
    def create(self, name: str, description: str = "") -> Project:
        """Make a project; whoever makes it administers it."""
        return self.transport.call(projects.create_project, NewProject(name=name, description=description))

    def all(self) -> Iterator[Project]:
        """Every project one may see, newest first, page by page."""
        after = None
        while True:
            page = self.list(limit=200, after=after)
            yield from page.items
            after = page.next
            if after is None:
                return

    def find_id(self, project: str | None) -> str:
        """Id of the project that is meant (`Studio.project_id`)."""
        if project is not None and ID.fullmatch(project):
            return project
        known = [one for one in self.all() if not one.is_archived and project in (None, one.name)]
        if len(known) == 1:
            return known[0].id
        if not known and project is None:
            return self.create("default").id
        names = ", ".join(sorted(f"{one.name} ({one.id})" for one in known[:10]))
        if not known:
            raise NotFoundError(
                f"there is no project {project!r}", why="none of those you may see has this name", fix="make it, or take a name from the list of projects"
            )
        raise ConflictError(
            f"{len(known)} projects could be meant: {names}", why="no project was named, or its name is not the only one", fix="name the project by its id"
        )
