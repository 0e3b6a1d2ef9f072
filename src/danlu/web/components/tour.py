"""The tour of the first visit: what to do first, where things are, what the proof means. Shown by static/tour.js over the home page."""

from __future__ import annotations

import json
from typing import NamedTuple

from nicegui import ui

from danlu.web.components.elements import box
from danlu.web.components.messages import guarded
from danlu.web.session import Session


class Step(NamedTuple):
    """One thing that is pointed at: the first of these places that is on the page."""

    name: str
    at: tuple[str, ...]


STEPS = (
    Step("start", ("[data-tour=start]",)),
    Step("data", (".dl-navlink[href='/datasets']",)),
    Step("train", (".dl-navlink[href='/new-run']",)),
    Step("runs", (".dl-navlink[href='/runs']",)),
    Step("proof", ("[data-tour=waiting]", ".dl-navlink[href='/runs']")),
    Step("chat", (".dl-navlink[href='/chat']",)),
    Step("help", (".dl-navlink[href='/help']",)),
)


def tour(s: Session, assets: dict[str, str], *, is_empty: bool) -> None:
    """Show the tour until it is over; that it is over is kept with the user. `assets` are the addresses of its files."""
    steps = []
    for step in STEPS:
        name = "first" if step.name == "start" and is_empty else step.name
        steps.append({"at": step.at, "title": s.t(f"home.tour_{name}"), "text": s.t(f"home.tour_{name}_text")})
    words = {name: s.t(f"home.tour_{name}") for name in ("back", "count", "done", "next", "skip")}
    told = json.dumps({"steps": steps, **words}).replace("<", "\\u003c")

    async def over() -> None:
        await s.prefer(has_seen_tour=True)

    box("", "button").props("type=button hidden id=tour-over").on("click", guarded(s, over), [])
    ui.add_head_html(
        f'<link rel="stylesheet" href="{assets["tour.css"]}"><script>window.danluTour = {told}</script><script defer src="{assets["tour.js"]}"></script>'
    )
