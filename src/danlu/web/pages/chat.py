"""Talk to one model, or compare several side by side."""

from __future__ import annotations

import json
from typing import Any

from nicegui import ui

from danlu.services.platform import views
from danlu.web.components.conversation import Conversation, answerers, no_project
from danlu.web.components.elements import Text, box, button, paragraph
from danlu.web.components.fields import choice
from danlu.web.components.messages import guarded
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
        no_project(s)
        return
    names = await answerers(s, project.id)
    talk = Conversation(s, project.id, names, f"{draft_name}-{project.id}", min(num_panes, max(1, len(names))))
    talk.restore((await s.do(views.get_draft, talk.draft_name)).values)
    asked = [name for name in (s.query("models") or s.query("model") or "").split(",") if name in names]
    for pane, name in zip(talk.panes, asked, strict=False):
        if pane.model != name:
            pane.model, pane.answers, talk.questions = name, [], []
    if not talk.questions:
        for pane in talk.panes:
            pane.answers = []
    with corner:
        _corner(s, talk, num_panes)
    talk.draw()


def _corner(s: Session, talk: Conversation, num_panes: int) -> None:
    if num_panes > 1:

        async def blind(event: Any) -> None:
            talk.is_blind = bool(event.value)
            await talk.keep()
            ui.run_javascript("location.reload()")

        ui.checkbox(s.t("chat.blind"), value=talk.is_blind, on_change=guarded(s, blind)).props("dense")
        choice(
            s.t("chat.compare_title"), {number: str(number) for number in NUM_PANES}, num_panes, lambda event: ui.navigate.to(f"/compare?panes={event.value}")
        ).style("min-width: 72px")

    def share() -> None:
        path = "/chat?model=" if num_panes == 1 else "/compare?models="
        models = ",".join(pane.model for pane in talk.panes)
        ui.run_javascript(f"window.danlu.copy(location.origin + {json.dumps(path + models)})")

    button(s.t("chat.share"), share, classes="small", symbol="link")
