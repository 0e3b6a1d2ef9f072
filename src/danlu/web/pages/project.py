"""The runs of a project, page by page."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from danlu.services.platform import runs
from danlu.store.runs import Run
from danlu.web.components.data_table import Choice, DataTable
from danlu.web.components.elements import STATE_TONES, Text, box, button, empty, paragraph
from danlu.web.pages.compare_runs import MOST_RUNS
from danlu.web.session import Session
from danlu.web.template import page

PAGE = 25


@page("/runs", title="project.title", nav="runs")
async def show(s: Session) -> None:
    """All runs of the chosen project."""
    project = await s.project()
    with box("dl-head"):
        with box("dl-col"):
            Text(s.t("project.title"), "h1")
            if project is not None:
                paragraph(project.name, "dl-sub")
        button(s.t("shell.nav_new_run"), href="/new-run", classes="primary", symbol="add")
    if project is None:
        with empty("show_chart", s.t("project.empty_title"), s.t("home.project_text")):
            button(s.t("home.title"), href="/", classes="primary")
        return
    first = await s.do(runs.list_runs, project.id, limit=PAGE)
    if not first.items:
        with empty("show_chart", s.t("project.empty_title"), s.t("project.empty_text")):
            button(s.t("shell.nav_new_run"), href="/new-run", classes="primary")
        return

    async def read(after: str | None) -> tuple[list[dict[str, Any]], str | None]:
        found = await s.do(runs.list_runs, project.id, limit=PAGE, after=after)
        return [_row(s, run) for run in found.items], found.next

    columns = [
        {"name": "name", "label": s.t("project.column_name")},
        {"name": "state", "label": s.t("project.column_state"), "type": "badge"},
        {"name": "verdict", "label": s.t("project.column_verdict"), "type": "badge"},
        {"name": "base", "label": s.t("project.column_base")},
        {"name": "created", "label": s.t("project.column_created"), "type": "time"},
    ]
    place = box("dl-row dl-noprint")
    choice = Choice(s.t("compare_runs.tick"), lambda: _compare_button(s, place, choice))
    choice.on_change()
    with box("dl-card flush", "section"):
        DataTable(s, s.t("project.title"), columns, read, ([_row(s, run) for run in first.items], first.next), choice=choice)


def _compare_button(s: Session, place: ui.element, choice: Choice) -> None:
    """The way to the page that puts the ticked runs side by side; grey until it can."""
    place.clear()
    why_not = None if 2 <= len(choice.keys) <= MOST_RUNS else s.t("compare_runs.go_why_not")
    with place:
        href = f"/runs/compare?runs={','.join(choice.keys)}"
        button(s.t("compare_runs.go", number=len(choice.keys)), href=href, symbol="stacked_line_chart", why_not=why_not)


def _row(s: Session, run: Run) -> dict[str, Any]:
    return {
        "key": run.id,
        "href": f"/runs/{run.id}",
        "name": run.name,
        "state": [s.t(f"state.{run.state}"), STATE_TONES.get(run.state, "")],
        "verdict": [s.t(f"state.{run.verdict}"), STATE_TONES.get(run.verdict, "")] if run.verdict else None,
        "base": run.base_model.rpartition("/")[2] if run.base_model.startswith("/") else run.base_model,
        "created": run.created_at,
    }
