"""The frame of every page: navigation, language and theme, messages, and what is shown when a page cannot be shown."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import html
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from weakref import WeakValueDictionary

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from nicegui import ui

from danlu.errors import DanluError, ForbiddenError, InternalError, SignInError
from danlu.services.platform import views
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.web.components.elements import Text, box, button, icon, link
from danlu.web.components.messages import error_panel, error_toast
from danlu.web.session import GetActor, Session, aside

logger = logging.getLogger(__name__)
BUILD_SECONDS = 20.0
MAX_OPEN_PAGES = 400
"""Of one user. Each is held in memory, for a minute also when nobody has looked at it."""
MARK = (
    '<svg width="24" height="24" viewBox="0 0 24 24" aria-hidden="true"><rect width="24" height="24" rx="6" fill="var(--accent)"/>'
    '<path d="M7 9h10M8 9c0 6 1 8 4 8s4-2 4-8M9.5 17.5L8.5 20M14.5 17.5l1 2.5M12 4c1.5 1.5-1.5 2 0 3.5" fill="none" '
    'stroke="var(--on-accent)" stroke-width="1.7" stroke-linecap="round"/></svg>'
)


class Entry(NamedTuple):
    """One line of the navigation. Only pages that exist stand here."""

    name: str
    href: str
    symbol: str


NAVIGATION: dict[str, list[Entry]] = {
    "work": [
        Entry("home", "/", "home"),
        Entry("datasets", "/datasets", "dataset"),
        Entry("runs", "/runs", "show_chart"),
        Entry("sweeps", "/sweeps", "tune"),
        Entry("new_run", "/new-run", "add_circle_outline"),
        Entry("models", "/models", "layers"),
        Entry("exports", "/exports", "ios_share"),
        Entry("chat", "/chat", "chat_bubble_outline"),
        Entry("compare", "/compare", "compare"),
        Entry("queue", "/queue", "low_priority"),
    ],
    "guide": [
        Entry("advisor", "/advisor", "explore"),
        Entry("help", "/help", "help_outline"),
        Entry("settings", "/settings", "settings"),
    ],
}


@dataclass
class Studio:
    """What the pages of this process serve. NiceGUI has one set of pages for a process, so there is one of these."""

    platform: Platform | None = None
    get_actor: GetActor | None = None
    open_pages: WeakValueDictionary[str, Session] = field(default_factory=WeakValueDictionary)
    """Pages that somebody has open, by the name NiceGUI gives each."""

    def serve(self, platform: Platform, get_actor: GetActor) -> None:
        """Serve this home."""
        self.platform, self.get_actor = platform, get_actor

    def opened(self) -> Platform:
        """The home that is served."""
        assert self.platform is not None, "pages are shown after `mount`"
        return self.platform

    def actor(self, request: Request) -> Actor:
        """Who sends a request."""
        assert self.get_actor is not None, "pages are shown after `mount`"
        return self.get_actor(request)

    def has_many_pages(self, user_id: str | None) -> bool:
        """Whether a user has as many pages open as one may."""
        return sum(visit.user_id == user_id for visit in list(self.open_pages.values())) >= MAX_OPEN_PAGES

    async def visit(self, request: Request) -> Session:
        """Begin a visit.

        Raises:
            SignInError: nobody is signed in.
        """
        visit = Session(self.opened(), request, self.actor, views.View())
        visit.view = await visit.do(views.get_view)
        return visit

    def renew(self, page_id: str, request: Request) -> bool:
        """Let an open page go on with the session of this request, when the same user has signed in again; return whether it does.

        Raises:
            SignInError: nobody is signed in.
        """
        visit, actor = self.open_pages.get(page_id), self.actor(request)
        if not actor.is_signed_in:
            raise SignInError("nobody is signed in", why="the session has ended, or has not begun", fix="sign in")
        if visit is None or visit.user_id != actor.user_id:
            return False
        visit.signed_in_by = request
        return True


STUDIO = Studio()


def page(path: str, *, title: str, nav: str = "") -> Callable[[Callable[[Session], Awaitable[None]]], Callable[[Session], Awaitable[None]]]:
    """Make a function the content of a page; `nav` is the line of the navigation it belongs to."""

    def register(build: Callable[[Session], Awaitable[None]]) -> Callable[[Session], Awaitable[None]]:
        async def shown(request: Request) -> Response | None:
            try:
                s = await STUDIO.visit(request)
            except SignInError:
                ui.context.client.delete()  # nobody will look at it
                return RedirectResponse(f"/sign-in?next={quote(_address(request), safe='/')}", status_code=303)
            except DanluError as error:
                unknown = Session(STUDIO.opened(), request, STUDIO.actor, views.View())
                if isinstance(error, ForbiddenError):  # an API key: how the studio looks is for people
                    return _turned_away(unknown, "only_people", 403)
                _refused(unknown, error)  # the database is away
                return None
            actor = await aside(lambda: s.actor)
            if STUDIO.has_many_pages(actor.user_id):
                return _turned_away(s, "many_pages", 429)
            s.user_id = actor.user_id
            page_id = ui.context.client.id
            STUDIO.open_pages[page_id] = s
            _look(s)
            if actor.session_id is not None:
                _may_end(s, page_id)
            ui.page_title(f"{s.t(title)} \u00b7 Danlu")
            with box("dl-shell"):
                await _navigation(s, nav, actor)
                with box("dl-main", "main").props("id=main tabindex=-1"):
                    content = box("dl-page")
            s.toasts = box("dl-toasts").props("aria-live=polite")
            ui.on_exception(lambda error: _told(s, error))
            with content:
                try:
                    await build(s)
                except DanluError as error:
                    content.clear()
                    with content:
                        Text(s.t(title), "h1")
                        with error_panel(s, error), box("dl-row"):
                            button(s.t("error.home"), href="/", classes="small")
            return None

        ui.page(path, response_timeout=BUILD_SECONDS)(shown)
        return build

    return register


def _turned_away(s: Session, word: str, status: int) -> Response:
    """What somebody gets in place of a page, of which nothing stays in memory."""
    ui.context.client.delete()
    return Response(s.t(f"error.{word}"), status, media_type="text/plain")


def _refused(s: Session, error: DanluError) -> None:
    """What is shown when not even the frame of a page can be."""
    _look(s)
    s.toasts = box("dl-toasts")
    with box("dl-main", "main"), box("dl-page"):
        _brand(s)
        error_panel(s, error)


def _address(request: Request) -> str:
    """The page that was asked for, with its options."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def _may_end(s: Session, page_id: str) -> None:
    """What the page says by itself when the session ends while it is open."""
    words = {name: s.t(f"sign_in.{key}") for name, key in (("title", "again_title"), ("text", "again_text"), ("open", "open"))}
    told = json.dumps({"page": page_id, **words}).replace("<", "\\u003c")
    ui.add_head_html(f"<script>window.danluSession = {told}</script>")


def _told(s: Session, error: Exception) -> None:
    """Show what an action met that nobody foresaw."""
    if isinstance(error, asyncio.CancelledError):
        return
    if not isinstance(error, DanluError):
        error = _defect()
    error_toast(s, error)


def broken() -> None:
    """What is shown when a page met what nobody foresaw. What that says is in the log: it can hold anything."""
    request = ui.context.client.request
    _refused(Session(STUDIO.opened(), request, STUDIO.actor, views.View()), _defect())


def _defect() -> InternalError:
    return InternalError("the page met a defect", why="a defect in Danlu; the server's log has its traceback", fix="load the page again; report it")


def _look(s: Session) -> None:
    """Language and colours of this visit, before anything is drawn."""
    client = ui.context.client
    client.page = copy.copy(client.page)
    client.page.language = "zh-CN" if s.language == "zh" else "en-US"
    client.page.dark = {"auto": None, "light": False, "dark": True}[s.view.theme]
    lost = json.dumps([s.t("shell.lost"), s.t("shell.lost_text")])
    ui.add_head_html(
        f'<script>document.documentElement.dataset.theme = "{s.view.theme}"; window.danluLost = {lost}</script>'
        f'<link rel="stylesheet" href="{asset("studio.css")}"><script src="{asset("studio.js")}"></script>'
    )


@cache
def asset(name: str) -> str:
    """Address of a file of the studio, different for each content."""
    content = (Path(__file__).parent / "static" / name).read_bytes()
    return f"/studio-files/{name}?{hashlib.sha256(content).hexdigest()[:12]}"


async def _navigation(s: Session, current: str, actor: Actor) -> None:
    Text(s.t("shell.skip"), "a", "dl-skip").props("href=#main")
    with box("dl-topbar"):
        menu = box("dl-btn quiet", "button").props("type=button aria-expanded=false")
        menu._props["aria-label"] = s.t("shell.menu")
        with menu:
            icon("menu")
        menu.on("click", js_handler="() => window.danlu.menu()")
        _brand(s)
    box("dl-scrim").on("click", js_handler="() => window.danlu.menu()")
    projects = await s.projects()
    project = await s.project()
    with box("dl-nav", "nav") as nav:
        nav._props["aria-label"] = s.t("shell.navigation")
        _brand(s)
        if len(projects) > 1 and project is not None:
            _project_choice(s, {found.id: found.name for found in projects}, project.id)
        for group, entries in NAVIGATION.items():
            if group != "work":
                Text(s.t(f"shell.group_{group}"), "div", "dl-navgroup")
            for entry in entries:
                with link("", entry.href, "dl-navlink") as made:
                    if entry.name == current:
                        made.props("aria-current=page")
                    icon(entry.symbol)
                    Text(s.t(f"shell.nav_{entry.name}"))
        with box("dl-navfoot"):
            switches(s)
            if actor.session_id is not None:
                with box("dl-row between").style("flex-wrap: nowrap"):
                    Text(actor.name, "span", "dl-clip dl-muted")
                    button(s.t("shell.sign_out"), classes="small").on("click", js_handler="() => window.danlu.signOut()")


def _brand(s: Session) -> None:
    with box("dl-brand", "a").props("href=/"):
        ui.html(MARK, sanitize=False)
        Text(s.t("shell.brand"))


def _project_choice(s: Session, names: dict[str, str], chosen: str) -> None:
    async def change(event: Any) -> None:
        await s.prefer(project_id=event.value)
        ui.navigate.to("/")

    select = ui.select(names, value=chosen, on_change=change).props("outlined dense options-dense")
    select._props["aria-label"] = s.t("shell.project")


def switches(s: Session) -> None:
    """Language and theme, on every page."""

    def switch(name: str, value: str, label: str, options: list[tuple[str, str]]) -> None:
        async def change(chosen: str) -> None:
            await s.prefer(**{name: chosen})
            ui.run_javascript("location.reload()")

        with box("dl-seg").props("role=group") as group:
            group._props["aria-label"] = label
            for key, text in options:
                pressed = "true" if key == value else "false"
                made = Text(text, "button").props(f"type=button aria-pressed={pressed}")
                if name == "language":
                    made.props(f"lang={key}")
                made.on("click", lambda _, key=key: change(key), [])

    switch("language", s.language, s.t("shell.language"), [("zh", "\u4e2d\u6587"), ("en", "English")])
    switch("theme", s.view.theme, s.t("shell.theme"), [(name, s.t(f"shell.theme_{name}")) for name in ("auto", "light", "dark")])


def escaped(text: str) -> str:
    """A text for use inside HTML that the studio itself writes."""
    return html.escape(text)
