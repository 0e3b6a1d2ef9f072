"""Runs as files for other tools: made, verified, downloaded."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from nicegui import ui

from danlu.errors import error_from
from danlu.services.platform import exports, jobs, runs
from danlu.services.platform.exports import ExportContent, NewExport
from danlu.store.jobs import Job
from danlu.web import numbers
from danlu.web.components.elements import Text, badge, box, button, card, fold, icon, link, moment, no_project, paragraph
from danlu.web.components.fields import labelled_choice
from danlu.web.components.messages import confirm, error_panel, guarded, toast
from danlu.web.live import Lines, refresh_every
from danlu.web.rights import Rights, rights_in
from danlu.web.session import Session
from danlu.web.template import page

FORMS = ("adapter", "merged")
SHOWN = 50
SHOWN_FAILURES = 5
FAILURE_SECONDS = 24 * 3600.0
"""So long it is told that an export failed."""
Found = tuple[list[ExportContent], int, list[Job]]
"""(exports, how many are on their way, jobs that failed)."""


@page("/exports", title="models.exports", nav="exports")
async def show(s: Session) -> None:
    """What was exported of the chosen project; `?run=` chooses a run to export."""
    project = await s.project()
    with box("dl-col"):
        Text(s.t("models.exports"), "h1")
        paragraph(s.t("models.export_text"), "dl-sub")
    if project is None:
        no_project(s, "ios_share")
        return
    finished = (await s.do(runs.list_runs, project.id, state="succeeded", limit=SHOWN)).items
    names = {run.id: run.name or run.id for run in finished}
    rights = await rights_in(s, project.id)
    with card(s.t("models.export_new")):
        if not names:
            paragraph(s.t("models.export_none"), "dl-muted")
            with box("dl-row"):
                button(s.t("shell.nav_new_run"), href="/new-run", classes="primary")
        else:
            _form(s, names, rights)
    waiting_text = paragraph(s.t("models.export_started"), "dl-muted")
    with box("dl-card dl-empty", "section") as empty:
        icon("ios_share")
        paragraph(s.t("models.export_empty"))
    newest: list[ExportContent] = []
    failures: Lines[Job, Shown] = Lines(box("dl-col wide dl-lines"), lambda job: _failure(s, job, names, rights))

    async def delete(export_id: str) -> None:
        if await confirm(s, s.t("models.delete_title"), s.t("models.delete_text"), do=s.t("models.delete"), danger=True):
            await s.do(exports.delete_export, export_id)
            await look()

    offered = delete if rights.may(exports.delete_export) else None
    made: Lines[ExportContent, Shown] = Lines(
        box("dl-col wide dl-lines"), lambda content: _export(s, content, names, offered, is_newest=content in newest), lambda content: content.export.id
    )
    known: dict[str, ExportContent] = {}

    async def read() -> Found:
        found = await s.do(exports.list_exports, project.id, limit=SHOWN)
        for one in found.items:
            if one.id not in known:  # what is in an export never changes
                known[one.id] = await s.do(exports.get_export, one.id)
        waiting = await s.do(jobs.list_queue, project_id=project.id)
        failed = await s.do(jobs.list_jobs, project.id, state="failed", kind="export", limit=SHOWN_FAILURES)
        recent = [job for job in failed.items if (job.finished_at or 0) > time.time() - FAILURE_SECONDS]
        return [known[one.id] for one in found.items], sum(job.kind == "export" for job in waiting), recent

    def tell(found: Found) -> None:
        contents, num_waiting, failed = found
        waiting_text.set_visibility(num_waiting > 0)
        empty.set_visibility(bool(names) and not contents and not num_waiting)
        newest[:] = contents[:1]
        failures.show(failed)
        made.show(contents)

    look = await refresh_every(2.0, read, tell)


@dataclass(frozen=True)
class Shown:
    """A part of the page that stands for one export or failure."""

    element: ui.element


def _form(s: Session, names: dict[str, str], rights: Rights) -> None:
    wanted = s.query("run")
    chosen: dict[str, Any] = {"run": wanted if wanted in names else next(iter(names)), "form": FORMS[0]}

    async def start() -> None:
        await s.do(exports.submit_export, chosen["run"], NewExport(type=chosen["form"]))
        toast(s, s.t("models.export_started"), tone="good")

    with box("dl-row bottom"):
        labelled_choice(s.t("models.run"), names, chosen["run"], lambda event: chosen.update(run=event.value))
        labelled_choice(
            s.t("models.form"), {name: s.t(f"models.export_{name}") for name in FORMS}, chosen["form"], lambda event: chosen.update(form=event.value)
        )
        button(s.t("models.export"), guarded(s, start), classes="primary", why_not=rights.why_not(exports.submit_export))
    for name in FORMS:
        paragraph(f"{s.t(f'models.export_{name}')}{s.t('basic.colon')}{s.t(f'models.export_{name}_text')}", "dl-small dl-muted")


def _failure(s: Session, job: Job, names: dict[str, str], rights: Rights) -> Shown:
    made = error_panel(s, error_from({"code": "", "what": "", "why": "", "fix": ""} | (job.error or {})))
    with made, box("dl-row"):
        if rights.may(jobs.resume_job):
            button(s.t("models.export_again"), guarded(s, partial(s.do, jobs.resume_job, job.id)), classes="small")
        Text(names.get(job.run_id or "", job.run_id or ""), "span", "dl-muted dl-small")
        moment(job.finished_at).classes("dl-muted dl-small")
    return Shown(made)


def _export(s: Session, content: ExportContent, names: dict[str, str], delete: Callable[[str], Awaitable[None]] | None, *, is_newest: bool) -> Shown:
    """One export; `delete` is left out where it is not to be offered. The files of the newest one are seen at once."""
    export = content.export
    with box("dl-card", "section") as made:
        with box("dl-row between"):
            with box("dl-row"):
                Text(s.t(f"models.export_{export.type}") if export.type in FORMS else export.type, "h2")
                badge(s.t("models.verified"), "good")
                link(names.get(export.run_id, export.run_id), f"/runs/{export.run_id}")
            with box("dl-row"):
                Text(numbers.size(export.size_bytes), "span", "dl-muted dl-small")
                moment(export.created_at).classes("dl-muted dl-small")
                if delete is not None:
                    button(s.t("models.delete"), guarded(s, partial(delete, export.id)), classes="small danger")
        with fold(s.t("models.download")).props("open" if is_newest else ""), box("dl-col"):
            for file in content.files:
                with box("dl-row between"):
                    link(file.name, f"/studio-export/{export.id}?name={quote(file.name, safe='')}")
                    Text(numbers.size(file.size_bytes), "span", "dl-muted dl-small")
    return Shown(made)
