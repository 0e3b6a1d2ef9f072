"""One's own account: where one is signed in, API keys, the password."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import get_args

from nicegui import ui

from danlu.services.platform import keys, sessions, users
from danlu.services.platform.access import Role
from danlu.services.platform.keys import KeyView, NewKey
from danlu.services.platform.sessions import SessionView
from danlu.services.platform.users import PasswordChange
from danlu.web.components.elements import Text, badge, box, button, card, empty, moment, note, paragraph
from danlu.web.components.fields import labelled_choice, password_field, text_field
from danlu.web.components.messages import confirm, copy_button, guarded
from danlu.web.components.tabs import settings_head
from danlu.web.session import Session
from danlu.web.template import page

Redraw = Callable[[], Awaitable[None]]
BROWSERS = {"Edg/": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "Chrome/": "Chrome", "Safari/": "Safari"}
"""What in the name that a browser gives itself tells which one it is, the telling first."""
VALID_DAYS = (7, 30, 90, 365)


@page("/settings/account", title="account.tab", nav="settings")
async def show(s: Session) -> None:
    """Sessions, keys, password."""
    settings_head(s)
    if s.user_id is None:
        with empty("person_outline", s.t("account.owner_title"), s.t("account.owner_text")):
            button(s.t("people.first"), href="/settings/people", classes="primary")
        return
    with card(s.t("account.keys")):
        paragraph(s.t("account.keys_text"), "dl-muted")
        await _keys(s)
    with box("dl-grid2"):
        with card(s.t("account.sessions"), "flush"):
            await _sessions(s)
        with card(s.t("account.password")):
            _password(s)


async def _keys(s: Session) -> None:
    form, place = box("dl-col"), box("dl-list", "ul")

    async def draw() -> None:
        found = await s.do(keys.list_keys)
        place.clear()
        with place:
            if not found:
                with box("", "li"):
                    Text(s.t("account.key_none"), "span", "dl-muted")
            for key in reversed(found):
                _key(s, key, draw)

    with form:
        await _new_key(s, draw)
    await draw()


async def _new_key(s: Session, draw: Redraw) -> None:
    projects = {"": s.t("account.key_project_all")} | {project.id: project.name for project in await s.projects()}
    valid = {days: s.t("account.days", days=days) for days in VALID_DAYS} | {0: s.t("account.for_ever")}

    async def make() -> None:
        text = str(name.value or "").strip()
        if not text:
            name.run_method("focus")
            return
        key = await s.do(keys.create_key, NewKey(name=text[:100], role=role.value, project_id=project.value or None, valid_days=days.value or None))
        name.value = ""
        made.clear()
        with made, note(s.t("account.key_made"), "good"):
            Text(key.secret, "code", "dl-mono dl-text").props("id=secret")
            with box("dl-row"):
                copy_button(s, key.secret, s.t("account.key_copy"))
        await draw()

    with box("dl-row bottom"):
        name = text_field(s.t("account.key_name"), maxlength=100)
        role = labelled_choice(s.t("account.key_role"), {one: s.t(f"people.role_{one}") for one in get_args(Role)}, "viewer")
        project = labelled_choice(s.t("account.key_project"), projects, "")
        days = labelled_choice(s.t("account.key_valid"), valid, 90)
        button(s.t("account.make_key"), guarded(s, make), classes="primary")
    made = box()


def _key(s: Session, key: KeyView, draw: Redraw) -> None:
    async def revoke() -> None:
        if await confirm(s, s.t("account.revoke_title"), s.t("account.revoke_text", name=key.name), do=s.t("account.revoke"), danger=True):
            await s.do(keys.revoke_key, key.id)
            await draw()

    with box("", "li"):
        with box():
            Text(key.name, "div", "dl-strong dl-text").props("translate=no")
            with box("dl-row dl-small dl-muted"):
                Text(f"{key.prefix}_\u2026", "span", "dl-mono")
                Text(s.t(f"people.role_{key.role}"))
                Text(s.t("account.seen"))
                moment(key.seen_at)
                if key.expires_at is not None:
                    Text(s.t("account.expires"))
                    moment(key.expires_at)
        if key.revoked_at is not None:
            badge(s.t("account.revoked"))
        else:
            button(s.t("account.revoke"), guarded(s, revoke), classes="small danger")


async def _sessions(s: Session) -> None:
    place = box("dl-list", "ul")

    async def draw() -> None:
        found = await s.do(sessions.list_sessions)
        place.clear()
        with place:
            for session in found:
                _session(s, session, draw)

    async def end_all() -> None:
        if await confirm(s, s.t("account.end_all"), s.t("account.end_all_text"), do=s.t("account.end_all"), danger=True):
            await s.do(sessions.end_sessions)
            ui.navigate.to("/sign-in")

    await draw()
    with box("dl-tablefoot"):
        button(s.t("account.end_all"), guarded(s, end_all), classes="small")


def _session(s: Session, session: SessionView, draw: Redraw) -> None:
    async def end() -> None:
        await s.do(sessions.end_session, session.id)
        await draw()

    with box("", "li"):
        with box():
            Text(next((name for sign, name in BROWSERS.items() if sign in session.agent), s.t("account.agent_other")), "div", "dl-strong")
            with box("dl-row dl-small dl-muted"):
                Text(session.address or "\u2013", "span", "dl-mono")
                Text(s.t("account.seen"))
                moment(session.seen_at)
        if session.is_current:
            badge(s.t("account.current"), "accent")
        else:
            button(s.t("account.end"), guarded(s, end), classes="small")


def _password(s: Session) -> None:
    paragraph(s.t("account.password_text"), "dl-muted")
    current, new = password_field(s.t("account.current_password")), password_field(s.t("account.new_password"))
    current.props("autocomplete=current-password")
    paragraph(s.t("sign_in.password_help"), "dl-small dl-muted")

    async def change() -> None:
        if not current.value or not new.value:
            (new if current.value else current).run_method("focus")
            return
        await s.do(users.change_password, PasswordChange(current=current.value, new=new.value))
        ui.navigate.to("/sign-in?next=/settings/account")

    with box("dl-row"):
        button(s.t("account.change"), guarded(s, change))
