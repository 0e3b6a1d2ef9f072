"""Language, colours, forms; where things are kept."""

from __future__ import annotations

import shutil

from nicegui import ui

import danlu
from danlu.services.forecasts import free_device
from danlu.web import numbers
from danlu.web.components.elements import box, button, card, pairs, paragraph, segmented
from danlu.web.components.messages import guarded
from danlu.web.components.tabs import settings_head
from danlu.web.session import Session, aside
from danlu.web.template import page, switches


@page("/settings", title="settings.title", nav="settings")
async def show(s: Session) -> None:
    """What can be chosen for oneself, and facts about the installation."""
    settings_head(s)
    with box("dl-grid2"):
        with card(s.t("settings.look")):
            paragraph(s.t("settings.look_text"), "dl-muted")
            with box("dl-row"):
                switches(s)
        with card(s.t("settings.form")):
            paragraph(s.t("settings.form_text"), "dl-muted")
            with box("dl-row"):
                names = {"simple": s.t("basic.simple"), "advanced": s.t("basic.advanced")}
                chosen = "advanced" if s.view.is_advanced else "simple"
                segmented(names, chosen, lambda name: s.prefer(is_advanced=name == "advanced"), s.t("settings.form"))
        with card(s.t("settings.tour")):
            paragraph(s.t("settings.tour_text"), "dl-muted")

            async def again() -> None:
                await s.prefer(has_seen_tour=False)
                ui.navigate.to("/")

            with box("dl-row"):
                button(s.t("settings.tour_again"), guarded(s, again))
        if s.actor.is_operator:
            with card(s.t("settings.about")):
                await _about(s)


async def _about(s: Session) -> None:
    database, place = s.platform.database, await aside(free_device)
    pairs(
        [
            (s.t("settings.version"), f"Danlu {danlu.__version__}"),
            (s.t("settings.home"), str(s.platform.home)),
            (s.t("settings.database"), "SQLite" if database.is_sqlite else "PostgreSQL"),
            (s.t("settings.disk"), numbers.size(shutil.disk_usage(s.platform.home).free)),
            (s.t("settings.memory"), numbers.size(place.available_bytes)),
        ]
    )
    paragraph(s.t("preview.memory_means"), "dl-muted dl-small")
