"""How it works, common questions, and the words."""

from __future__ import annotations

from nicegui import ui

from danlu.web.components.elements import Text, box, button, card, fold, paragraph
from danlu.web.components.messages import guarded
from danlu.web.session import Session
from danlu.web.template import page
from danlu.web.words import CATALOGUE

STEPS = ("how_1", "how_2", "how_3", "how_4")
QUESTIONS = ("q_close", "q_how_many", "q_network", "q_stop")


@page("/help", title="help.title", nav="help")
async def show(s: Session) -> None:
    """One page to read."""
    with box("dl-head"):
        Text(s.t("help.title"), "h1")

        async def again() -> None:
            await s.prefer(has_seen_tour=False)
            ui.navigate.to("/")

        button(s.t("settings.tour_again"), guarded(s, again))
    with card(s.t("help.how")), box("dl-col", "ol").style("padding-left: 20px"):
        for step in STEPS:
            Text(s.t(f"help.{step}"), "li")
    with card(s.t("help.questions")):
        for name in QUESTIONS:
            with fold(s.t(f"help.{name}")):
                paragraph(s.t(f"help.{name}_a"))
    names = sorted({key.removeprefix("glossary.").removesuffix("_means") for key in CATALOGUE if key.startswith("glossary.")})
    with card(s.t("help.glossary")), box("dl-terms", "dl"):
        for name in names:
            with box():
                Text(s.t(f"glossary.{name}"), "dt", "dl-strong")
                Text(s.t(f"glossary.{name}_means"), "dd", "dl-muted")
