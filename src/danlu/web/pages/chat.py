"""Talk to one model, or compare several side by side."""

from __future__ import annotations

import json
from typing import Any

from nicegui import ui

from danlu.services.platform import views
from danlu.web.components.conversation import Conversation, answerers
from danlu.web.components.elements import Text, box, button, no_project, paragraph
from danlu.web.components.fields import choice
from danlu.web.components.messages import guarded, toast
from danlu.web.components.votes_card import VotesCard
from danlu.web.rights import rights_in
from danlu.web.session import Session
from danlu.web.template import page

NUM_PANES = (2, 3, 4)


@page("/chat", title="chat.title", nav="chat")
async def chat(s: Session) -> None:
    """One model; `?model=` chooses it."""
    await _show(s, "chat", s.t("chat.title"), s.t("chat.intro"), 1)


@page("/compare", title="chat.compare_title", nav="compare")
async def compare(s: Session) -> None:
    """Two to four models; `?models=` chooses them."""
    wanted = s.query("panes") or str(len((s.query("models") or "").split(",")))
    count = int(wanted) if wanted.isdigit() and int(wanted) in NUM_PANES else 2
    await _show(s, f"compare{count}", s.t("chat.compare_title"), s.t("chat.compare_text"), count)


async def _show(s: Session, draft_name: str, title: str, text: str, num_panes: int) -> None:
    project = await s.project()
    with box("dl-head"):
        with box("dl-col"):
            Text(title, "h1")
            paragraph(text, "dl-sub")
        corner = box("dl-row")
    if project is None:
        no_project(s, "chat_bubble_outline" if num_panes == 1 else "compare")
        return
    names, rights = await answerers(s, project.id), await rights_in(s, project.id)
    talk = Conversation(s, project.id, names, f"{draft_name}-{project.id}", min(num_panes, max(1, len(names))), rights)
    talk.restore((await s.do(views.get_draft, talk.draft_name)).values)
    talk.parameters.take(s.request.query_params)
    talk.is_blind = talk.is_blind or (num_panes > 1 and s.query("blind") == "1")
    talk.choose([name for name in (s.query("models") or s.query("model") or "").split(",") if name in names][: len(talk.panes)])
    with corner:
        _corner(s, talk, num_panes)
    talk.draw()
    if num_panes > 1:
        counted = VotesCard(s, project.id, names, rights)
        talk.on_vote = counted.draw
        await counted.draw()


def _corner(s: Session, talk: Conversation, num_panes: int) -> None:
    if num_panes > 1:

        async def blind(event: Any) -> None:
            await talk.hide_names(bool(event.value))

        def other_number(event: Any) -> None:
            chosen = ",".join(pane.model for pane in talk.panes[: event.value])
            ui.navigate.to(f"/compare?project={talk.project_id}&panes={event.value}&models={chosen}")

        ui.checkbox(s.t("chat.blind"), value=talk.is_blind, on_change=guarded(s, blind)).props("dense")
        with box("dl-row tight"):
            Text(s.t("chat.num_panes"), "span", "dl-muted")
            choice(s.t("chat.num_panes"), {number: str(number) for number in NUM_PANES}, num_panes, other_number).style("min-width: 72px")

    def share() -> None:
        ui.run_javascript(f"window.danlu.copy(location.origin + {json.dumps(talk.address())})")
        toast(s, s.t("chat.shared"), tone="good")

    button(s.t("chat.share_link"), share, classes="small", symbol="link")
