"""What the data doctor says of a version: that it works, that it failed and why, or its report with findings that lead to their rows."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from danlu.data.reasons import in_chinese
from danlu.errors import ConflictError, FormatError, error_from
from danlu.services.platform import datasets, jobs, rows
from danlu.services.platform.rows import FindingKind, Fixes
from danlu.store.datasets import DatasetVersion
from danlu.store.jobs import Job
from danlu.web import numbers
from danlu.web.components.data_table import DataTable, Rows
from danlu.web.components.elements import Text, box, button, card, facts, icon, link, note, paragraph, segmented
from danlu.web.components.messages import error_panel, guarded
from danlu.web.components.newer_version import told_of_newer
from danlu.web.components.row_table import RowTable
from danlu.web.rights import Rights
from danlu.web.session import Session
from danlu.web.words import CATALOGUE

FINDINGS = 10
JOBS_LOOKED_AT = 50
FEW_HELD_OUT = 50
"""With fewer rows only large gains show (docs/limits.md)."""


class DataDoctor:
    """The doctor's part of the page; `look` brings it up to date."""

    def __init__(self, s: Session, version: DatasetVersion, newest: int, *, table: RowTable, rights: Rights) -> None:
        self.s, self.version, self.newest, self.table, self.rights = s, version, newest, table, rights
        self.place = box("dl-col wide")
        self.job: Job | None = None
        self.shown: Any = ()

    @property
    def is_waiting(self) -> bool:
        """Whether something will change by itself."""
        return self.job is not None and not self.job.is_over

    async def look(self) -> None:
        """See where it stands, and show it if that is news."""
        s = self.s
        if self.shown and not self.is_waiting:
            return
        if self.job is not None:
            self.job = await s.do(jobs.get_job, self.job.id)
        self.version = await s.do(datasets.get_dataset_version, self.version.id)
        if self.job is None and self.version.report is None:
            self.job = await self._job()
        shown = (self.version.report is None, None if self.job is None else self.job.state)
        if shown == self.shown:
            return
        was_waiting, self.shown = bool(self.shown), shown
        self.place.clear()
        with self.place:
            self._draw()
        if was_waiting and not self.is_waiting:
            await self.table.again()

    async def _job(self) -> Job | None:
        """The newest job that looks this version over."""
        found = await self.s.do(jobs.list_jobs, self.version.project_id, kind="inspect", limit=JOBS_LOOKED_AT)
        return next((job for job in found.items if job.payload.get("dataset_version_id") == self.version.id), None)

    async def _again(self) -> None:
        self.job = await self.s.do(datasets.inspect_dataset, self.version.id)
        await self.look()

    async def _go_on(self) -> None:
        assert self.job is not None
        self.job = await self.s.do(jobs.resume_job, self.job.id)
        await self.look()

    def _draw(self) -> None:
        s, report = self.s, self.version.report
        if self.is_waiting:
            self._waiting()
        elif report is None:
            self._no_report()
        else:
            with card(s.t("datasets.doctor"), tip=s.t("datasets.doctor_tip"), s=s):
                facts(_numbers(s, report))
                for warning in report["warnings"]:
                    note(warning[s.language], "warn")
                if self.rights.may(rows.fix_rows) and (report["dropped"] or report["duplicate"] or report["fixed"] or report["near_duplicate"]):
                    self._fixes()
            ui.timer(0.05, guarded(s, self._rest), once=True)

    def _waiting(self) -> None:
        s, job = self.s, self.job
        assert job is not None
        is_paused = job.state in ("pausing", "paused")
        with card(s.t("datasets.doctor")):
            with box("dl-row"):
                if is_paused:
                    icon("pause")
                else:
                    ui.spinner(size="18px").props("aria-hidden=true")
                state = "paused" if is_paused else "queued" if job.state in ("queued", "waiting") else "waiting"
                Text(s.t(f"datasets.doctor_{state}"), "span", "dl-muted").props("role=status")
            with box("dl-row"):
                if job.state == "paused" and self.rights.may(jobs.resume_job):
                    button(s.t("queue.resume"), guarded(s, self._go_on), classes="small")
                link(s.t("shell.nav_queue"), "/queue", "dl-small")

    def _no_report(self) -> None:
        """The job failed or was stopped, or there has been none: what happened, and a way on."""
        s, job = self.s, self.job
        ended = job.state if job is not None and job.state in ("failed", "cancelled") else "none"
        error = error_from(job.error) if job is not None and job.error else None
        is_of_columns = isinstance(error, FormatError) and self.table.has_columns  # rows that can be read, and nobody knows what they mean
        if error is not None and not is_of_columns:
            error_panel(s, error)
        with card(s.t("datasets.doctor")):
            paragraph(s.t("datasets.doctor_columns" if is_of_columns else f"datasets.doctor_{ended}"))
            with box("dl-row"):
                if is_of_columns and self.rights.may(rows.map_columns):
                    button(s.t("datasets.map"), guarded(s, self.table.choose_columns), classes="primary", symbol="view_column")
                button(s.t("datasets.look_again"), guarded(s, self._again), symbol="refresh", why_not=self.rights.why_not(datasets.inspect_dataset))

    def _fixes(self) -> None:
        s, near = self.s, {"drop": False}

        async def fix(newest: int | None) -> None:
            made = await s.do(rows.fix_rows, self.version.id, Fixes(drop_near_duplicates=near["drop"]), newest=newest)
            ui.navigate.to(f"/datasets/{self.version.dataset_id}?version={made.version.number}")

        paragraph(s.t("datasets.fix_text"), "dl-muted dl-small")
        with box("dl-row"):
            button(s.t("datasets.fix"), guarded(s, lambda: told_of_newer(s, self.version.dataset_id, self.newest, fix)), symbol="auto_fix_high")
            box_near = ui.checkbox(s.t("datasets.fix_near"), on_change=lambda event: near.update(drop=bool(event.value)))
            box_near.props("dense")

    async def _rest(self) -> None:
        """What takes a moment to read: findings with their rows, and the split."""
        s = self.s
        try:
            split = await s.do(rows.preview_split, self.version.id)
            first = await self._findings(None, None)
        except ConflictError:  # what it kept was cleared away, or lies on another machine
            with self.place, card(s.t("datasets.findings")):
                paragraph(s.t("datasets.findings_away"), "dl-muted")
                with box("dl-row"):
                    why_not = self.rights.why_not(datasets.inspect_dataset)
                    button(s.t("datasets.look_again"), guarded(s, self._again), classes="small", symbol="refresh", why_not=why_not)
            return
        with self.place:
            with card(s.t("datasets.split")):
                paragraph(s.t("datasets.split_text", train=f"{split.train:,}", validation=f"{split.validation:,}", test=f"{split.test:,}"))
                if split.test < FEW_HELD_OUT:
                    note(s.t("datasets.split_few" if split.test else "new_run.rows_no_proof", number=split.test), "warn")
            with card(s.t("datasets.findings"), "flush"):
                if first[0]:
                    self._findings_table(first)
                else:
                    paragraph(s.t("datasets.findings_none"), "dl-muted").style("padding: 0 16px 16px")

    def _findings_table(self, first: Rows) -> None:
        s, chosen = self.s, {"kind": "all"}
        columns = [
            {"name": "number", "label": s.t("datasets.column_number"), "type": "button"},
            {"name": "action", "label": s.t("datasets.column_finding"), "type": "badge"},
            {"name": "reason", "label": s.t("datasets.column_reason")},
        ]

        def draw(found: Rows) -> None:
            holder.clear()
            with holder:
                DataTable(s, s.t("datasets.findings"), columns, lambda after: self._findings(chosen["kind"], after), found, on_row=self._jump)

        async def filtered(kind: str) -> None:
            chosen["kind"] = kind
            draw(await self._findings(kind, None))

        names = {"all": s.t("datasets.all")} | {kind: s.t(f"datasets.{kind}") for kind in ("dropped", "duplicate", "near_duplicate", "fixed")}
        with box("dl-row").style("padding: 0 16px 8px"):
            segmented(names, "all", guarded(s, filtered), s.t("datasets.findings"))
        holder = box()
        draw(first)

    async def _jump(self, number: str) -> None:
        await self.table.jump(int(number))

    async def _findings(self, kind: str | None, after: str | None) -> Rows:
        s, only = self.s, None if kind in (None, "all") else kind
        found = await s.do(rows.list_findings, self.version.id, offset=int(after or 0), limit=FINDINGS, kind=_kind(only))
        tones = {"dropped": "bad", "fixed": "accent"}
        shown = [
            {
                "key": str(one.number),
                "number": one.number,
                "action": [s.t(f"datasets.action_{one.action}"), tones.get(one.action, "warn")],
                "reason": s.t("basic.semicolon").join(in_chinese(reason) if s.language == "zh" else reason for reason in one.reasons)
                + (f" ({s.t('datasets.edit_title', number=one.same_as)})" if one.same_as is not None else ""),
            }
            for one in found.items
        ]
        return shown, None if found.next is None else str(found.next)


def _kind(name: str | None) -> FindingKind | None:
    kinds: dict[str, FindingKind] = {"dropped": "dropped", "fixed": "fixed", "duplicate": "duplicate", "near_duplicate": "near_duplicate"}
    return kinds.get(name or "")


def _numbers(s: Session, report: dict[str, Any]) -> list[tuple[str, str]]:
    told = [(s.t(f"datasets.{name}"), numbers.count(report[name])) for name in ("rows_in", "usable", "dropped", "duplicate", "near_duplicate", "fixed")]
    length, known = report["completion_chars"], f"datasets.format_{report['format']}"
    shares = {"zh": s.t("datasets.language_zh"), "en": s.t("datasets.language_en"), "other": "\u2026"}
    languages = s.t("basic.comma").join(f"{shares[name]} {share:.0%}" for name, share in report["languages"].items() if share >= 0.005)
    return [
        *told,
        (s.t("datasets.format"), f"{s.t(known) if known in CATALOGUE else report['format']} ({report['container']})"),
        (s.t("datasets.length"), s.t("datasets.length_value", middle=numbers.count(length["p50"]), longest=numbers.count(length["max"]))),
        (s.t("datasets.languages"), languages or "\u2013"),
    ]
