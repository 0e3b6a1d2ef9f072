"""One visit of one page: who looks, in which language, at which project; and the way from a page to the operations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from fastapi import Request
from nicegui import ui

from danlu.services.platform import projects, views
from danlu.services.platform.access import Actor
from danlu.services.platform.operations import Operation
from danlu.services.platform.platform import Platform
from danlu.services.platform.tokens import csrf_token
from danlu.services.platform.views import View, ViewChange
from danlu.store.projects import Project
from danlu.web.words import Label, Language, say

P = ParamSpec("P")
R = TypeVar("R")
GetActor = Callable[[Request], Actor]
LISTED_SECONDS = 0.5
_THREADS = ThreadPoolExecutor(max_workers=8, thread_name_prefix="danlu-pages")
_LONG_THREADS = ThreadPoolExecutor(max_workers=24, thread_name_prefix="danlu-answers")
"""For answers of models: they take long, and must not keep pages waiting."""


async def aside(work: Callable[[], R], *, is_long: bool = False) -> R:
    """Do something that waits for a disk, a database or a model beside the event loop."""
    return await asyncio.get_running_loop().run_in_executor(_LONG_THREADS if is_long else _THREADS, work)


@dataclass
class Session:
    """What a page is given. Everything it shows comes from operations, through `do`."""

    platform: Platform
    request: Request
    get_actor: GetActor
    view: View
    user_id: str | None = None
    """Who opened the page."""
    toasts: ui.element = field(init=False)
    """Where messages appear."""
    signed_in_by: Request = field(init=False)
    """The request whose session the page uses: the one that opened it, or a later one of the same user (`Studio.renew`)."""
    told: dict[str, ui.element] = field(default_factory=dict)
    """Errors that are on show."""
    _listed: tuple[float, list[Project]] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.signed_in_by = self.request

    @property
    def actor(self) -> Actor:
        """Who looks now: asked anew each time, since a session can end and a role can change while a page is open."""
        return self.get_actor(self.signed_in_by)

    @property
    def language(self) -> Language:
        """The chosen language, else the browser's."""
        if self.view.language is not None:
            return self.view.language
        return "zh" if self.request.headers.get("accept-language", "").lower().startswith("zh") else "en"

    @property
    def csrf_token(self) -> str:
        """What requests that a page makes by itself must carry; empty where nobody has to sign in."""
        token = getattr(self.signed_in_by.scope.get("danlu.incoming"), "session_token", None)
        return csrf_token(token) if token else ""

    def t(self, key: str, **values: object) -> str:
        """A text of the catalogue."""
        return say(self.language, key, **values)

    def pick(self, label: Label | dict[str, str]) -> str:
        """The half of a text that carries both languages itself."""
        return label[self.language] if isinstance(label, dict) else label[self.language == "zh"]

    def path(self, name: str) -> str:
        """A part of the address, such as the run's id."""
        return str(self.request.path_params[name])

    def query(self, name: str) -> str | None:
        """An option of the address."""
        return self.request.query_params.get(name)

    async def do(self, operation: Operation[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Carry out an operation as the one who looks, beside the event loop.

        Raises:
            DanluError: what the operation says.
        """
        return await aside(lambda: operation(self.platform, self.actor, *args, **kwargs))

    async def prefer(self, **changes: Any) -> None:
        """Remember a preference."""
        self.view = await self.do(views.change_view, ViewChange(**changes))

    async def projects(self) -> list[Project]:
        """The projects to choose from, newest first; asked once while a page is built, by frame and content."""
        if self._listed is None or time.monotonic() - self._listed[0] > LISTED_SECONDS:
            page = await self.do(projects.list_projects, limit=200)
            self._listed = time.monotonic(), [project for project in page.items if not project.is_archived]
        return self._listed[1]

    async def project(self) -> Project | None:
        """The project in the address, else the one looked at last, else the newest."""
        found = {project.id: project for project in await self.projects()}
        wanted = self.query("project") or self.view.project_id
        chosen = found.get(wanted or "") or next(iter(found.values()), None)
        if chosen is not None and chosen.id != self.view.project_id:
            await self.prefer(project_id=chosen.id)
        return chosen
