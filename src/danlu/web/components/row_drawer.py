"""One row of a dataset version in a drawer at the side: changed or left out in a new version, or seen as a model reads it."""

from __future__ import annotations

from functools import partial

import orjson
from nicegui import ui

from danlu.data.table_of_rows import FileRow
from danlu.errors import OutdatedError
from danlu.services.platform import datasets, rows
from danlu.services.platform.rows import RowEdits
from danlu.store.datasets import DatasetVersion
from danlu.web.components.elements import Text, box, button, link, note, paragraph
from danlu.web.components.fields import text_area
from danlu.web.components.messages import choose, guarded
from danlu.web.components.token_view import TokenView
from danlu.web.rights import Rights
from danlu.web.session import Session


def open_row(s: Session, version: DatasetVersion, newest: int, row: FileRow, rights: Rights) -> None:
    """Open the drawer; `newest` is the number of the newest version that the page knows."""
    with ui.dialog().props("position=right full-height transition-show=none transition-hide=none") as dialog, box("dl-drawer") as drawer:
        drawer.props("role=dialog aria-modal=true")
        drawer._props["aria-label"] = s.t("datasets.edit_title", number=row.number)
        with box("dl-col wide"):
            Text(s.t("datasets.edit_title", number=row.number), "h2")
            RowEditor(s, version, newest, row, dialog, rights.why_not(rows.edit_rows)).build()
            if rights.may(datasets.show_example):
                TokenView(s, version, row.number).build()
    dialog.on("hide", dialog.delete, [])
    dialog.open()


class RowEditor:
    """The row as JSON."""

    def __init__(self, s: Session, version: DatasetVersion, newest: int, row: FileRow, dialog: ui.dialog, why_not: str | None) -> None:
        self.s, self.version, self.newest, self.row, self.dialog, self.why_not = s, version, newest, row, dialog, why_not

    def build(self) -> None:
        """Draw it with its buttons."""
        s, row = self.s, self.row
        content = orjson.dumps(row.row, option=orjson.OPT_INDENT_2).decode() if row.row is not None else ""
        if self.why_not is not None:
            note(self.why_not)
        elif row.is_cut:
            note(s.t("datasets.edit_cut"), "warn")
        else:
            paragraph(s.t("datasets.edit_text"), "dl-muted dl-small")
        self.field = text_area(s.t("datasets.edit_title", number=row.number), content, rows=18, is_code=True)
        if row.is_cut or self.why_not is not None:
            self.field.props("readonly")
        self.told = Text("", "p", "dl-bad dl-small").props("role=alert")
        self.elsewhere = box("dl-row")
        with box("dl-row"):
            if not row.is_cut and self.why_not is None:
                button(s.t("datasets.edit_save"), guarded(s, self._changed), classes="primary")
            if self.why_not is None:
                button(s.t("datasets.delete_row"), guarded(s, partial(self._save, RowEdits(delete=[row.number]))), classes="danger")
            button(s.t("basic.close"), self.dialog.close, classes="quiet")

    async def _changed(self) -> None:
        try:
            value = orjson.loads(str(self.field.value or ""))
        except orjson.JSONDecodeError as error:
            self.told.text = self.s.t("datasets.no_json", reason=self.s.t("datasets.no_json_place", line=error.lineno, column=error.colno))
            return
        if not isinstance(value, dict):
            self.told.text = self.s.t("datasets.no_json", reason=type(value).__name__)
            return
        self.told.text = ""
        await self._save(RowEdits(replace={self.row.number: value}))

    async def _save(self, edits: RowEdits, version_id: str | None = None, newest: int | None = -1) -> None:
        try:
            made = await self.s.do(rows.edit_rows, version_id or self.version.id, edits, newest=self.newest if newest == -1 else newest)
        except OutdatedError:
            await self._overtaken(edits)
            return
        ui.navigate.to(f"/datasets/{self.version.dataset_id}?version={made.version.number}")

    async def _overtaken(self, edits: RowEdits) -> None:
        """Somebody has made a version in between: say it, and offer to put the change onto that one where the row is still the same there."""
        s, row = self.s, self.row
        newest = (await s.do(datasets.list_dataset_versions, self.version.dataset_id, limit=1)).items[0]
        there = (await s.do(rows.preview_rows, newest.id, limit=1, from_number=row.number)).items
        is_same = bool(there) and (there[0].number, there[0].row) == (row.number, row.row) and not row.is_cut
        outcomes = {"onto": (s.t("datasets.newer_onto", number=newest.number), "primary")} if is_same else {}
        outcomes["beside"] = (s.t("datasets.newer_beside"), "danger")
        text = s.t("datasets.newer_same" if is_same else "datasets.newer_changed", number=newest.number)
        chosen = await choose(s, s.t("datasets.newer_title"), text, outcomes)
        if chosen == "onto":
            await self._save(edits, newest.id, newest.number)
        elif chosen == "beside":
            await self._save(edits, newest=None)
        else:  # the drawer stays with what was written
            self.elsewhere.clear()
            with self.elsewhere:
                link(s.t("datasets.newer_look"), f"/datasets/{self.version.dataset_id}", new_tab=True)
