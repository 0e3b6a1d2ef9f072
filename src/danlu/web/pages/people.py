"""Who uses the installation and its projects: users, invitations, members with their roles."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, get_args

from nicegui import ui
from pydantic import ValidationError

from danlu.errors import ConflictError, NotFoundError
from danlu.services.platform import invitations, projects, users
from danlu.services.platform.access import Role
from danlu.services.platform.invitations import Invitation, MadeInvitation, NewInvitation
from danlu.services.platform.projects import Membership
from danlu.services.platform.users import NewUser, UserChange, UserView
from danlu.store.members import Member
from danlu.store.projects import Project
from danlu.web.components.elements import Text, badge, box, button, card, moment, note, paragraph
from danlu.web.components.fields import choice, labelled_choice, password_field, text_field
from danlu.web.components.messages import confirm, copy_button, guarded
from danlu.web.components.tabs import settings_head
from danlu.web.session import Session, aside
from danlu.web.template import page

Redraw = Callable[[], Awaitable[None]]
SHOWN = 200


@page("/settings/people", title="people.tab", nav="settings")
async def show(s: Session) -> None:
    """Users and invitations for administrators; members of the chosen project for everybody in it."""
    settings_head(s)
    if s.user_id is None:
        with card(s.t("people.first_title")):
            _first(s)
        return
    actor = await aside(lambda: s.actor)
    project = await s.project()
    if project is not None:
        with card(s.t("people.members", project=project.name), "flush"):
            await _members(s, project)
    if actor.is_operator:
        with card(s.t("people.users"), "flush"):
            draw = await _users(s)
        with card(s.t("people.invitations")):
            await _invitations(s, draw)


def _first(s: Session) -> None:
    paragraph(s.t("people.first_text"), "dl-muted")

    async def make() -> None:
        text = str(name.value or "").strip()
        if not text or not password.value:
            (password if text else name).run_method("focus")
            return
        await s.do(users.create_user, _new_admin(text, str(password.value)))
        ui.navigate.to("/sign-in?next=/settings/people")

    with box("dl-row"):
        name = text_field(s.t("sign_in.name"), maxlength=80)
        password = password_field(s.t("sign_in.password"))
    paragraph(s.t("sign_in.password_help"), "dl-small dl-muted")
    with box("dl-row"):
        button(s.t("people.first"), guarded(s, make), classes="primary")


def _new_admin(name: str, password: str) -> NewUser:
    """Raises: ConflictError."""
    try:
        return NewUser(name=name, password=password, is_admin=True)
    except ValidationError as error:
        why = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise ConflictError("this account cannot be made", why=why, fix=f"choose another name or password: {why}") from error


async def _members(s: Session, project: Project) -> None:
    me = await s.do(projects.list_members, project.id)
    actor = await aside(lambda: s.actor)
    may_change = actor.is_operator or any(member.user_id == s.user_id and member.role == "admin" for member in me)
    place = box("dl-list", "ul")
    roles = {one: s.t(f"people.role_{one}") for one in get_args(Role)}

    def draw(found: list[Member]) -> None:
        place.clear()
        with place:
            if not found:
                with box("", "li"):
                    Text(s.t("people.members_none"), "span", "dl-muted")
            for member in found:
                with box("", "li"):
                    Text(member.name, "div", "dl-strong dl-text").props("translate=no")
                    if may_change:
                        with box("dl-row"):
                            choice(s.t("people.role"), roles, member.role, guarded(s, partial(give, member)))
                            button(s.t("people.remove"), guarded(s, partial(remove, member)), classes="small")
                    else:
                        badge(roles[member.role])

    async def give(member: Member, event: Any) -> None:
        draw(await s.do(projects.set_member, project.id, member.user_id, Membership(role=event.value)))

    async def remove(member: Member) -> None:
        await s.do(projects.remove_member, project.id, member.user_id)
        draw(await s.do(projects.list_members, project.id))

    async def add() -> None:
        text = str(name.value or "").strip()
        if not text:
            name.run_method("focus")
            return
        found = await s.do(users.find_person, text)
        if not found:
            raise NotFoundError(s.t("people.nobody", name=text[:80]), why=s.t("people.nobody_fix"), fix=s.t("people.nobody_fix"))
        draw(await s.do(projects.set_member, project.id, found[0].id, Membership(role=role.value)))
        name.value = ""

    draw(me)
    if may_change:
        with box("dl-tablefoot"), box("dl-row"):
            name = text_field(s.t("people.add_name"), maxlength=80)
            role = choice(s.t("people.role"), roles, "editor")
            button(s.t("people.add"), guarded(s, add))


async def _users(s: Session) -> Redraw:
    told, place = box().style("padding: 0 16px"), box("dl-list", "ul")

    async def draw() -> None:
        found = (await s.do(users.list_users, limit=SHOWN)).items
        place.clear()
        with place:
            for user in found:
                _user(s, user, draw, told)

    await draw()
    return draw


def _user(s: Session, user: UserView, draw: Redraw, told: ui.element) -> None:
    async def change(body: UserChange) -> None:
        await s.do(users.change_user, user.id, body, version=user.version)
        await draw()

    async def reset() -> None:
        _link(s, told, await s.do(invitations.invite_again, user.id), "/invitation?reset=1")

    async def delete() -> None:
        if await confirm(s, s.t("people.delete_title"), s.t("people.delete_text", name=user.name), do=s.t("people.delete"), danger=True):
            await s.do(users.delete_user, user.id)
            await draw()

    with box("", "li"):
        with box():
            with box("dl-row"):
                Text(user.name, "span", "dl-strong dl-text").props("translate=no")
                if user.is_admin:
                    badge(s.t("people.admin"), "accent")
                if not user.is_active:
                    badge(s.t("people.locked"), "bad")
            Text(user.email or "", "div", "dl-small dl-muted dl-text").props("translate=no")
        with box("dl-row"):
            button(
                s.t("people.step_down" if user.is_admin else "people.become_admin"),
                guarded(s, partial(change, UserChange(is_admin=not user.is_admin))),
                classes="small",
            )
            button(
                s.t("people.lock" if user.is_active else "people.unlock"),
                guarded(s, partial(change, UserChange(is_active=not user.is_active))),
                classes="small",
            )
            button(s.t("people.reset"), guarded(s, reset), classes="small")
            button(s.t("people.delete"), guarded(s, delete), classes="small danger")


async def _invitations(s: Session, draw_users: Redraw) -> None:
    names = {"": s.t("people.invite_project_none")} | {project.id: project.name for project in await s.projects()}
    roles = {one: s.t(f"people.role_{one}") for one in get_args(Role)}
    with box("dl-row bottom") as row:
        email = text_field(s.t("people.email"), maxlength=254)
        project = labelled_choice(s.t("people.invite_project"), names, next(reversed(names)) if len(names) == 2 else "")
        role = labelled_choice(s.t("people.role"), roles, "editor")
    told = box()
    place = box("dl-list", "ul")

    async def draw() -> None:
        found = await s.do(invitations.list_invitations)
        place.clear()
        with place:
            if not found:
                with box("", "li"):
                    Text(s.t("people.invitations_none"), "span", "dl-muted")
            for one in found:
                _invitation(s, one, names, draw)

    async def invite() -> None:
        body = _invited(str(email.value or "").strip(), project.value, role.value)
        _link(s, told, await s.do(invitations.invite, body), "/invitation")
        email.value = ""
        await draw()
        await draw_users()

    with row:
        button(s.t("people.invite"), guarded(s, invite), classes="primary")
    await draw()


def _invited(email: str, project_id: str, role: Role) -> NewInvitation:
    """Raises: ConflictError."""
    try:
        return NewInvitation(email=email or None, project_id=project_id or None, role=role)
    except ValidationError as error:
        raise ConflictError(f"{email[:80]!r} is no e-mail address", why="it needs a name, an @ and a host", fix="correct it, or leave it empty") from error


def _invitation(s: Session, one: Invitation, names: dict[str, str], draw: Redraw) -> None:
    async def withdraw() -> None:
        await s.do(invitations.withdraw_invitation, one.id)
        await draw()

    with box("", "li"):
        with box():
            Text(one.email or s.t("people.unnamed"), "div", "dl-strong dl-text")
            with box("dl-row dl-small dl-muted"):
                if one.project_id in names and one.role is not None:
                    Text(names[one.project_id], "span", "dl-clip")
                    Text(s.t(f"people.role_{one.role}"))
                Text(s.t("people.expires"))
                moment(one.expires_at)
        button(s.t("people.withdraw"), guarded(s, withdraw), classes="small")


def _link(s: Session, place: ui.element, made: MadeInvitation, path: str) -> None:
    """Show the address of an invitation; its token stands behind the #, so that it is sent to no server and stands in no log."""
    base = s.platform.settings.network.public_url or f"{s.request.url.scheme}://{s.request.url.netloc}"
    address = f"{base}{path}#{made.token}"
    place.clear()
    with place, note(s.t("people.invitation_made"), "good"):
        Text(address, "code", "dl-mono dl-text").props("id=link")
        with box("dl-row"):
            copy_button(s, address, s.t("people.invitation_copy"))
