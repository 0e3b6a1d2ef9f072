"""The rows of a dataset version, page by page, with search; a row opens in a drawer at the side, where it is edited."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson
from nicegui import ui

from danlu.data.table_of_rows import FileRow, Rows
from danlu.services.platform import rows
from danlu.services.platform.rows import RowEdits
from danlu.store.datasets import DatasetVersion
from danlu.web.components.column_mapping import ColumnRoles
from danlu.web.components.elements import Text, box, button, paragraph
from danlu.web.components.fields import text_area, text_field
from danlu.web.components.messages import guarded
from danlu.web.components.token_view import show_tokens
from danlu.web.session import Session

PAGE = 20
MAX_COLUMNS = 6
CELL_CHARS = 160


class RowTable:
    """Rows from an offset on."""

    def __init__(self, s: Session, version: DatasetVersion) -> None:
        self.s, self.version = s, version
        self.contains = ""
        self.trail: list[int] = []
        """Offsets of the pages before this one."""
        with box("dl-row").style("padding: 0 16px 12px"):
            field = text_field(s.t("datasets.search"), maxlength=200)
            field.props("type=search debounce=400")
            field.on("update:model-value", guarded(s, lambda: self._search(str(field.value or ""))), [])
            button(s.t("datasets.map"), guarded(s, self._map), classes="small", symbol="view_column")
        self.mapping_place = box()
        self.place = box()
        self.mapping: ColumnRoles | None = None
        """What is said of the columns, while that is open."""
        self.offset = 0

    async def _search(self, text: str) -> None:
        self.contains, self.trail = text, []
        await self.turn(0)

    async def _map(self) -> None:
        """Open or close the choices in the head of the table."""
        self.mapping_place.clear()
        if self.mapping is None:
            found = await self.s.do(rows.preview_rows, self.version.id, limit=PAGE)
            with self.mapping_place:
                self.mapping = ColumnRoles(self.s, self.version, _names(found))
            self.mapping.draw()
        else:
            self.mapping = None
        await self.turn(self.offset)

    async def turn(self, offset: int) -> None:
        """Show the rows from `offset` on."""
        self.offset = offset
        found = await self.s.do(rows.preview_rows, self.version.id, offset=offset, limit=PAGE, contains=self.contains or None)
        while self.contains and not found.items and found.next is not None:
            found = await self.s.do(rows.preview_rows, self.version.id, offset=found.next, limit=PAGE, contains=self.contains)
        self.place.clear()
        with self.place:
            self._draw(offset, found)

    def _draw(self, offset: int, found: Rows) -> None:
        s = self.s
        if not found.items:
            paragraph(s.t("datasets.row_missing"), "dl-muted").style("padding: 0 16px 16px")
            return
        names = _names(found)[:MAX_COLUMNS] if self.mapping is None else list(self.mapping.roles)
        with box("dl-scroll"), box("dl-table cards" if self.mapping is None else "dl-table", "table"):  # cards have no head to choose in
            Text(s.t("datasets.preview"), "caption", "dl-skip")
            with box("", "thead"), box("", "tr"):
                Text(s.t("datasets.column_number"), "th").props("scope=col")
                for name in names:
                    with box("", "th").props("scope=col"):
                        Text(name)
                        if self.mapping is not None:
                            self.mapping.head(name)
            with box("", "tbody"):
                for row in found.items:
                    self._row(row, names)
        with box("dl-tablefoot"):
            status = s.t("datasets.rows_status", first=found.items[0].number, last=found.items[-1].number, total=f"{found.total:,}")
            Text(status, "span", "dl-small dl-muted").props("aria-live=polite")
            with box("dl-row"):
                if self.trail:
                    button(s.t("basic.previous"), guarded(s, self._back), classes="small")
                if found.next is not None:
                    button(s.t("basic.next"), guarded(s, partial(self._forward, offset, found.next)), classes="small")

    async def _back(self) -> None:
        await self.turn(self.trail.pop())

    async def _forward(self, offset: int, following: int) -> None:
        self.trail.append(offset)
        await self.turn(following)

    def _row(self, row: FileRow, names: list[str]) -> None:
        s = self.s
        with box("", "tr"):
            with box("", "td"):
                opener = Text(str(row.number), "button", "dl-btn small quiet").props("type=button")
                opener._props["aria-label"] = s.t("datasets.edit_title", number=row.number)
                opener.on("click", lambda: self._open(row), [])
            if row.row is None:
                Text(f"{s.t('datasets.problem')}: {row.problem}", "td", "dl-bad").props(f"colspan={max(1, len(names))}")
                return
            for name in names:
                cell = Text(_cell(row.row.get(name)), "td")
                cell._props["data-label"] = name

    def _open(self, row: FileRow) -> None:
        """The row as JSON in a drawer, to be changed or left out."""
        s = self.s
        with ui.dialog().props("position=right full-height transition-show=none transition-hide=none") as dialog, box("dl-drawer") as drawer:
            drawer.props("role=dialog aria-modal=true")
            drawer._props["aria-label"] = s.t("datasets.edit_title", number=row.number)
            with box("dl-col wide"):
                Text(s.t("datasets.edit_title", number=row.number), "h2")
                paragraph(s.t("datasets.edit_text"), "dl-muted dl-small")
                content = orjson.dumps(row.row, option=orjson.OPT_INDENT_2).decode() if row.row is not None else ""
                field = text_area(s.t("datasets.edit_title", number=row.number), content, rows=18, is_code=True)
                told = Text("", "p", "dl-bad dl-small").props("role=alert")

                async def save(edits: RowEdits) -> None:
                    made = await s.do(rows.edit_rows, self.version.id, edits)
                    ui.navigate.to(f"/datasets/{self.version.dataset_id}?version={made.version.number}")

                async def changed() -> None:
                    try:
                        value = orjson.loads(str(field.value or ""))
                    except orjson.JSONDecodeError as error:
                        told.text = s.t("datasets.no_json", reason=str(error))
                        return
                    if not isinstance(value, dict):
                        told.text = s.t("datasets.no_json", reason=type(value).__name__)
                        return
                    await save(RowEdits(replace={row.number: value}))

                with box("dl-row"):
                    button(s.t("datasets.edit_save"), guarded(s, changed), classes="primary")
                    button(s.t("datasets.delete_row"), guarded(s, partial(save, RowEdits(delete=[row.number]))), classes="danger")
                    button(s.t("basic.close"), dialog.close, classes="quiet")
                tokens = box("dl-col")
                with tokens:
                    button(s.t("datasets.tokens"), guarded(s, lambda: show_tokens(s, tokens, self.version.id, row.number)), classes="small")
        dialog.on("hide", dialog.delete, [])
        dialog.open()


def _names(found: Rows) -> list[str]:
    """Columns of some rows, in the order they appear."""
    return list(dict.fromkeys(name for row in found.items for name in (row.row or {})))


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else "" if value is None else orjson.dumps(value).decode()
    return text if len(text) <= CELL_CHARS else text[:CELL_CHARS] + "\u2026"
