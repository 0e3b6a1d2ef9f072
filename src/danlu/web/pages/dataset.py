"""One dataset: what the data doctor says, its rows, its versions, and what to do next."""

from __future__ import annotations

from functools import partial
from typing import Any

from nicegui import ui

from danlu.data.reasons import in_chinese
from danlu.errors import ConflictError
from danlu.services.platform import datasets, rows
from danlu.services.platform.rows import FindingKind, Fixes
from danlu.store.datasets import Dataset, DatasetVersion
from danlu.web import numbers
from danlu.web.components.data_table import DataTable, Rows
from danlu.web.components.drop_zone import DropZone
from danlu.web.components.elements import Text, box, button, card, facts, fold, moment, note, paragraph, segmented
from danlu.web.components.messages import confirm, guarded
from danlu.web.components.preview import waiting_card
from danlu.web.components.row_table import RowTable
from danlu.web.live import refresh_every
from danlu.web.session import Session
from danlu.web.template import page

FINDINGS = 10
VERSIONS = 50


@page("/datasets/{dataset_id}", title="datasets.title", nav="datasets")
async def show(s: Session) -> None:
    """The version in the address, else the newest."""
    dataset = await s.do(datasets.get_dataset, s.path("dataset_id"))
    versions = (await s.do(datasets.list_dataset_versions, dataset.id, limit=VERSIONS)).items
    wanted = s.query("version")
    version = next((one for one in versions if str(one.number) == wanted), versions[0])
    with box("dl-head"):
        with box("dl-col"):
            Text(dataset.name, "h1")
            with box("dl-row dl-muted"):
                Text(s.t("datasets.version", number=version.number))
                Text(numbers.size(version.size_bytes))
                moment(version.created_at)
        with box("dl-row"):
            button(s.t("datasets.next_train"), href=f"/new-run?project={dataset.project_id}&dataset={dataset.name}@{version.number}", classes="primary")
            button(s.t("sweeps.try_settings"), href=f"/sweeps/new?project={dataset.project_id}&dataset={dataset.name}@{version.number}")
    place = box("dl-col wide")
    await refresh_every(1.0, partial(s.do, datasets.get_dataset_version, version.id), lambda found: _doctor(s, place, found), lambda found: found.report)
    with card(s.t("datasets.preview"), "flush"):
        await RowTable(s, version).turn(0)
    _versions(s, dataset, version, versions)


def _doctor(s: Session, place: ui.element, version: DatasetVersion) -> None:
    """The report, or that it is being made."""
    report = version.report
    place.clear()
    with place:
        if report is None:
            with card(s.t("datasets.doctor")):
                waiting_card(s)
                paragraph(s.t("datasets.doctor_waiting"), "dl-muted dl-small")
            return
        with card(s.t("datasets.doctor"), tip=s.t("datasets.doctor_tip"), s=s):
            facts(_numbers(s, report))
            for warning in report["warnings"]:
                note(warning[s.language], "warn")
            if report["dropped"] or report["duplicate"] or report["fixed"] or report["near_duplicate"]:
                _fixes(s, version)
        ui.timer(0.05, guarded(s, lambda: _rest(s, place, version)), once=True)


def _numbers(s: Session, report: dict[str, Any]) -> list[tuple[str, str]]:
    told = [(s.t(f"datasets.{name}"), numbers.count(report[name])) for name in ("rows_in", "usable", "dropped", "duplicate", "near_duplicate", "fixed")]
    length = report["completion_chars"]
    shares = {"zh": "\u4e2d\u6587", "en": "English" if s.language == "en" else "\u82f1\u6587", "other": "\u2026"}
    languages = ", ".join(f"{shares[name]} {share:.0%}" for name, share in report["languages"].items() if share >= 0.005)
    return [
        *told,
        (s.t("datasets.format"), f"{report['format']} ({report['container']})"),
        (s.t("datasets.length"), s.t("datasets.length_value", middle=numbers.count(length["p50"]), longest=numbers.count(length["max"]))),
        (s.t("datasets.languages"), languages or "\u2013"),
    ]


def _fixes(s: Session, version: DatasetVersion) -> None:
    near = {"drop": False}

    async def fix() -> None:
        made = await s.do(rows.fix_rows, version.id, Fixes(drop_near_duplicates=near["drop"]))
        ui.navigate.to(f"/datasets/{version.dataset_id}?version={made.version.number}")

    paragraph(s.t("datasets.fix_text"), "dl-muted dl-small")
    with box("dl-row"):
        button(s.t("datasets.fix"), guarded(s, fix), symbol="auto_fix_high")
        box_near = ui.checkbox(s.t("datasets.fix_near"), on_change=lambda event: near.update(drop=bool(event.value)))
        box_near.props("dense")


async def _rest(s: Session, place: ui.element, version: DatasetVersion) -> None:
    """What takes a moment to read: findings with their rows, and the split."""
    try:
        split = await s.do(rows.preview_split, version.id)
        first = await _findings(s, version.id, None, None)
    except ConflictError:
        return  # looked over elsewhere: what it kept is not on this machine
    with place:
        with card(s.t("datasets.split")):
            paragraph(s.t("datasets.split_text", train=split.train, validation=split.validation, test=split.test))
        with card(s.t("datasets.findings"), "flush"):
            if not first[0]:
                paragraph(s.t("datasets.findings_none"), "dl-muted").style("padding: 0 16px 16px")
                return
            columns = [
                {"name": "number", "label": s.t("datasets.column_number")},
                {"name": "action", "label": s.t("datasets.column_finding"), "type": "badge"},
                {"name": "reason", "label": s.t("datasets.column_reason")},
            ]
            chosen: dict[str, Any] = {"kind": None}

            def draw(found: Rows) -> None:
                holder.clear()
                with holder:
                    DataTable(s, s.t("datasets.findings"), columns, lambda after: _findings(s, version.id, chosen["kind"], after), found)

            async def filtered(kind: str) -> None:
                chosen["kind"] = None if kind == "all" else kind
                draw(await _findings(s, version.id, chosen["kind"], None))

            names = {"all": s.t("datasets.all")} | {kind: s.t(f"datasets.{kind}") for kind in ("dropped", "duplicate", "near_duplicate", "fixed")}
            with box("dl-row").style("padding: 0 16px 8px"):
                segmented(names, "all", guarded(s, filtered), s.t("datasets.findings"))
            holder = box()
            draw(first)


async def _findings(s: Session, version_id: str, kind: FindingKind | None, after: str | None) -> Rows:
    found = await s.do(rows.list_findings, version_id, offset=int(after or 0), limit=FINDINGS, kind=kind)
    tones = {"dropped": "bad", "fixed": "accent"}
    shown = [
        {
            "key": str(one.number),
            "number": one.number,
            "action": [s.t(f"datasets.action_{one.action}"), tones.get(one.action, "warn")],
            "reason": "; ".join(in_chinese(reason) if s.language == "zh" else reason for reason in one.reasons)
            + (f" ({s.t('datasets.edit_title', number=one.same_as)})" if one.same_as is not None else ""),
        }
        for one in found.items
    ]
    return shown, None if found.next is None else str(found.next)


def _versions(s: Session, dataset: Dataset, version: DatasetVersion, versions: list[DatasetVersion]) -> None:
    async def delete() -> None:
        if await confirm(s, s.t("datasets.delete_title"), s.t("datasets.delete_text"), do=s.t("datasets.delete"), danger=True):
            await s.do(datasets.delete_dataset, dataset.id)
            ui.navigate.to("/datasets")

    with card(s.t("datasets.versions")):
        with box("dl-col"):
            for one in versions:
                with box("dl-row between"):
                    with box("dl-row"):
                        made = Text(s.t("datasets.version", number=one.number), "a", "dl-strong" if one.id == version.id else "")
                        made._props["href"] = f"/datasets/{dataset.id}?version={one.number}"
                        Text(f"{one.file_name}, {numbers.size(one.size_bytes)}", "span", "dl-muted dl-small")
                    moment(one.created_at).classes("dl-muted dl-small")
        with fold(s.t("datasets.new_version")):
            DropZone(s, dataset.project_id, dataset.id)
        with box("dl-row"):
            button(s.t("datasets.delete"), guarded(s, delete), classes="small danger")
