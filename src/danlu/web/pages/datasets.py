"""The datasets of a project; bringing data in."""

from __future__ import annotations

from functools import partial
from typing import Any

from nicegui import ui

from danlu import bundled
from danlu.services.platform import datasets, uploads
from danlu.services.platform.datasets import NewDataset
from danlu.store.datasets import ListedDataset
from danlu.web import numbers
from danlu.web.components.data_table import DataTable
from danlu.web.components.drop_zone import DropZone, open_uploads
from danlu.web.components.elements import Text, box, button, card, empty, note, paragraph
from danlu.web.components.messages import guarded
from danlu.web.rights import Rights, rights_in
from danlu.web.session import Session
from danlu.web.template import page

PAGE = 25


@page("/datasets", title="datasets.title", nav="datasets")
async def show(s: Session) -> None:
    """All datasets of the chosen project, a place to drop files, and the examples."""
    project = await s.project()
    with box("dl-col"):
        Text(s.t("datasets.title"), "h1")
        paragraph(project.name if project is not None else s.t("datasets.empty_text"), "dl-sub")
    if project is None:
        with empty("dataset", s.t("datasets.empty_title"), s.t("datasets.no_project")):
            button(s.t("home.title"), href="/", classes="primary")
        return
    rights = await rights_in(s, project.id)
    first = await s.do(datasets.list_datasets, project.id, limit=PAGE)
    if first.items:
        columns = [
            {"name": "name", "label": s.t("datasets.column_name")},
            {"name": "usable", "label": s.t("datasets.column_usable"), "align": "right"},
            {"name": "version", "label": s.t("datasets.versions"), "align": "right"},
            {"name": "created", "label": s.t("datasets.column_created"), "type": "time"},
        ]

        async def read(after: str | None) -> tuple[list[dict[str, Any]], str | None]:
            found = await s.do(datasets.list_datasets, project.id, limit=PAGE, after=after)
            return [_row(s, one) for one in found.items], found.next

        with box("dl-card flush", "section"):
            DataTable(s, s.t("datasets.title"), columns, read, ([_row(s, one) for one in first.items], first.next))
    with card(s.t("datasets.add") if first.items else s.t("datasets.empty_title")):
        if not first.items:
            paragraph(s.t("datasets.empty_text"), "dl-muted")
        why_not = rights.why_not(uploads.begin_upload)
        if why_not is not None:
            note(why_not)
        else:
            DropZone(s, project.id)
            await open_uploads(s, project.id, box("dl-col"))
    _examples(s, project.id, rights)


def _row(s: Session, one: ListedDataset) -> dict[str, Any]:
    newest = one.newest
    rows = "\u2013"
    if newest is not None and newest.usable is not None:
        rows = s.t("datasets.usable_of", usable=numbers.count(newest.usable), rows=numbers.count(newest.rows_in))
    number = numbers.count(newest.number) if newest is not None else "\u2013"
    return {"key": one.id, "href": f"/datasets/{one.id}", "name": one.name, "usable": rows, "version": number, "created": one.created_at}


def _examples(s: Session, project_id: str, rights: Rights) -> None:
    async def load(name: str) -> None:
        made = await s.do(datasets.create_dataset, project_id, NewDataset(example=name))
        ui.navigate.to(f"/datasets/{made.id}")

    with card(s.t("datasets.examples")), box("dl-grid2"):
        for name in bundled.example_names():
            stem = name.removeprefix(bundled.PREFIX)
            with box("dl-row between").style("flex-wrap: nowrap"):
                with box().style("min-width: 0"):
                    Text(s.t(f"new_run.data_{stem}"), "div", "dl-strong")
                    Text(s.t(f"new_run.data_{stem}_text"), "div", "dl-small dl-muted")
                button(s.t("home.example"), guarded(s, partial(load, name)), classes="small", why_not=rights.why_not(datasets.create_dataset))
