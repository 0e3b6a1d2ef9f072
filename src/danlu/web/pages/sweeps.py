"""Sweeps: the list, and one of them live: its members ranked, their curves together, what to do with the best."""

from __future__ import annotations

from functools import partial
from typing import Any

from nicegui import ui

from danlu.errors import error_from
from danlu.services.platform import chat, runs, sweeps
from danlu.services.platform.sweeps import ListedSweep, MemberCurves, SweepTable
from danlu.store.runs import Run
from danlu.web.components.data_table import DataTable
from danlu.web.components.elements import STATE_TONES, Text, badge, box, button, card, empty, facts, moment, paragraph, state_badge
from danlu.web.components.jobs import ask_to_stop
from danlu.web.components.messages import error_panel, guarded
from danlu.web.components.sweep_parts import SHOWN_CURVES, MemberCharts, MemberTable, facts_of, settings_line, tried
from danlu.web.rights import Rights, rights_in
from danlu.web.session import Session
from danlu.web.template import page

PAGE = 25
TICK_SECONDS = 2.0
IDLE_TICKS = 5
"""A sweep that is over is looked at every so many ticks: it can be resumed."""
Found = tuple[Run, SweepTable, list[MemberCurves]]


@page("/sweeps", title="sweeps.title", nav="sweeps")
async def show_all(s: Session) -> None:
    """All sweeps of the chosen project."""
    project = await s.project()
    with box("dl-head"):
        with box("dl-col"):
            Text(s.t("sweeps.title"), "h1")
            paragraph(s.t("sweeps.intro"), "dl-sub")
        if project is not None:
            button(s.t("sweeps.new"), href="/sweeps/new", classes="primary", symbol="add")
    first = await _read(s, project.id, None) if project is not None else ([], None)
    if project is None or not first[0]:
        with empty("tune", s.t("sweeps.empty_title"), s.t("sweeps.empty_text")):
            button(s.t("sweeps.new") if project is not None else s.t("home.title"), href="/sweeps/new" if project is not None else "/", classes="primary")
        return
    columns = [
        {"name": "name", "label": s.t("sweeps.column_name")},
        {"name": "state", "label": s.t("sweeps.column_state"), "type": "badge"},
        {"name": "tried", "label": s.t("sweeps.column_tried")},
        {"name": "members", "label": s.t("sweeps.column_members"), "align": "right"},
        {"name": "verdict", "label": s.t("sweeps.column_verdict"), "type": "badge"},
        {"name": "created", "label": s.t("sweeps.column_created"), "type": "time"},
    ]
    with box("dl-card flush", "section"):
        DataTable(s, s.t("sweeps.title"), columns, partial(_read, s, project.id), first)


async def _read(s: Session, project_id: str, after: str | None) -> tuple[list[dict[str, Any]], str | None]:
    found = await s.do(sweeps.list_sweeps, project_id, limit=PAGE, after=after)
    return [_row(s, one) for one in found.items], found.next


def _row(s: Session, one: ListedSweep) -> dict[str, Any]:
    run = one.run
    return {
        "key": run.id,
        "href": f"/sweeps/{run.id}",
        "name": run.name,
        "state": [s.t(f"state.{run.state}"), STATE_TONES.get(run.state, "")],
        "tried": tried(s, one.sweep),
        "members": one.num_members,
        "verdict": [s.t(f"state.{run.verdict}"), STATE_TONES.get(run.verdict, "")] if run.verdict else None,
        "created": run.created_at,
    }


@page("/sweeps/{run_id}", title="sweeps.title", nav="sweeps")
async def show(s: Session) -> None:
    """One sweep; nothing of it lives in this page."""
    found = await _look(s, s.path("run_id"))
    view = View(s, found, await rights_in(s, found[0].project_id))
    ui.timer(TICK_SECONDS, guarded(s, view.look_again), immediate=False)


async def _look(s: Session, run_id: str) -> Found:
    run = await s.do(runs.get_run, run_id)
    table = await s.do(sweeps.get_sweep, run_id)
    names = [member.name for member in table.members if member.state != "waiting"][:SHOWN_CURVES]
    return run, table, await s.do(sweeps.get_sweep_curves, run_id, names=",".join(names)) if names else []


class View:
    """The open page."""

    def __init__(self, s: Session, found: Found, rights: Rights) -> None:
        self.s, self.rights, self.ticks = s, rights, 0
        self.run, self.table, self.curves = found
        self.head = box("dl-col wide")
        with card():
            self.facts = box("dl-col")
        self.members = MemberTable(s, self.table)
        self.charts = MemberCharts(s, self.run.name or self.run.id)
        self._draw_head()
        self._draw()

    async def look_again(self) -> None:
        """Show what has changed since."""
        self.ticks += 1
        if self.run.is_over and self.ticks % IDLE_TICKS:
            return
        run, before = self.run, self.table
        self.run, self.table, self.curves = await _look(self.s, self.run.id)
        if (run.version, before.state, before.best) != (self.run.version, self.table.state, self.table.best):
            self._draw_head()
        if before != self.table:
            self.members.update(self.table)
        self._draw()

    def _draw(self) -> None:
        self.facts.clear()
        with self.facts:
            facts(facts_of(self.s, self.table))
        self.charts.update(self.table, self.curves)

    def _draw_head(self) -> None:
        s, run, table = self.s, self.run, self.table
        self.head.clear()
        with self.head:
            with box("dl-head"):
                with box("dl-col"):
                    Text(run.name or run.id, "h1")
                    with box("dl-row dl-muted"):
                        if table.state == "proving":
                            badge(s.t("sweeps.proving"), "accent")
                        else:
                            state_badge(s, run.state)
                        if run.verdict:
                            state_badge(s, run.verdict)
                        moment(run.finished_at or run.started_at or run.created_at)
                    paragraph(tried(s, table.sweep), "dl-muted")
                    if table.sweep["space"] and not run.is_over:
                        paragraph(s.t("sweeps.searching"), "dl-muted dl-small")
                with box("dl-row dl-noprint"):
                    self._buttons()
            if run.error:
                error_panel(s, error_from({"code": "", "what": "", "why": "", "fix": ""} | run.error))
            best = next((member for member in table.members if member.name == table.best), None)
            if best is not None:
                with card(s.t("sweeps.best")):
                    settings_line(s, best.settings)

    def _buttons(self) -> None:
        s, run, may = self.s, self.run, self.rights.may
        if run.state == "succeeded":
            button(s.t("sweeps.best_run"), href=f"/runs/{run.id}", classes="primary")
            button(s.t("run.proof"), href=f"/runs/{run.id}/proof")
            if may(chat.answer):
                button(s.t("shell.nav_chat"), href=f"/chat?project={run.project_id}&model={run.id}")
            if may(runs.submit_run):
                button(s.t("sweeps.continue_best"), href=f"/new-run?from={run.id}")
        if run.state in ("paused", "failed", "cancelled") and may(runs.resume_run):
            button(s.t("run.continue"), guarded(s, self._resume), classes="primary", symbol="play_arrow")
        if run.state in ("queued", "running") and may(runs.stop_run):
            button(s.t("run.stop"), guarded(s, partial(ask_to_stop, s, run.id, "/sweeps")), classes="danger")
        if run.state != "succeeded":
            button(s.t("sweeps.details"), href=f"/runs/{run.id}")
        if may(sweeps.submit_sweep):
            button(s.t("sweeps.again"), href=f"/sweeps/new?from={run.id}")

    async def _resume(self) -> None:
        await self.s.do(runs.resume_run, self.run.id)
        self.ticks = -1
        await self.look_again()
