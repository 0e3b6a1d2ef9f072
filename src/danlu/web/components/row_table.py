"""The rows of a dataset version, page by page, with search and a way to any row; a row opens in a drawer at the side."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson
from nicegui import ui

from danlu.data.reasons import in_chinese
from danlu.data.table_of_rows import FileRow, Rows
from danlu.errors import DanluError, ForbiddenError, NotFoundError, SignInError
from danlu.services.platform import rows
from danlu.store.datasets import DatasetVersion
from danlu.web.components.column_mapping import ColumnRoles
from danlu.web.components.elements import Text, box, button, paragraph
from danlu.web.components.fields import text_field
from danlu.web.components.messages import error_toast, guarded, in_error_words, toast
from danlu.web.components.row_drawer import open_row
from danlu.web.rights import Rights
from danlu.web.session import Session

PAGE = 20
MAX_COLUMNS = 6
CELL_CHARS = 160
SOON_BYTES = 64_000_000
"""A file up to this size is read for the page at once; for a larger one the page waits for the doctor, or until somebody turns it."""


class RowTable:
    """Rows from an offset on."""

    def __init__(self, s: Session, version: DatasetVersion, newest: int, rights: Rights) -> None:
        self.s, self.version, self.newest, self.rights = s, version, newest, rights
        self.contains = ""
        self.trail: list[int] = []
        """Offsets of the pages before this one."""
        self.mapping: ColumnRoles | None = None
        """What is said of the columns, while that is open."""
        self.offset = 0
        self.marked: int | None = None
        """Number of the row that was asked for."""
        self.asked = 0
        """Counts questions, so that the answer to an older one never replaces a newer one's."""
        self.has_columns = False
        """Whether rows were read whose columns can be named."""

    def build(self) -> None:
        """Draw what stands around the rows."""
        s = self.s
        with box("dl-row").style("padding: 0 16px 12px"):
            field = text_field(s.t("datasets.search"), maxlength=200)
            field.props("type=search debounce=400")
            field.on("update:model-value", lambda: self._search(str(field.value or "")), [])
            number = text_field(s.t("datasets.go_to"), maxlength=12).style("flex: 0 1 128px")
            number.props("inputmode=numeric")
            number.on("keydown.enter", guarded(s, lambda: self._typed(str(number.value or ""))), [])
            if self.rights.may(rows.map_columns):
                button(s.t("datasets.map"), guarded(s, self.choose_columns), classes="small", symbol="view_column")
        self.mapping_place = box()
        self.place = box()

    async def _search(self, text: str) -> None:
        self.contains, self.trail = text, []
        try:
            await self.turn(0)
        except DanluError as error:
            error_toast(self.s, error)

    async def _typed(self, text: str) -> None:
        if text.strip().isdigit():
            await self.jump(int(text))

    async def choose_columns(self) -> None:
        """Open or close the choices in the head of the table."""
        if self.mapping is not None:
            self.mapping = None
            self.mapping_place.clear()
            await self.turn(self.offset)
            return
        found = await self.s.do(rows.preview_rows, self.version.id, limit=PAGE)
        if found.total is None or found.has_more_columns:
            toast(self.s, self.s.t("datasets.map_wait" if found.total is None else "datasets.map_too_many"))
            return
        with self.mapping_place:
            self.mapping = ColumnRoles(self.s, self.version, self.newest, found.columns, found.total)
        self.mapping.draw()
        await self.turn(self.offset)
        ui.run_javascript(f"document.getElementById('{self.mapping_place.html_id}')?.scrollIntoView({{ block: 'center' }})")

    async def again(self) -> None:
        """Show the same rows anew, now that all of them have been read."""
        await self.turn(self.offset)

    async def jump(self, number: int) -> None:
        """Show the row of this number, with those after it."""
        self.asked += 1
        mine, self.contains = self.asked, ""
        found = await self.s.do(rows.preview_rows, self.version.id, limit=PAGE, from_number=number)
        if mine != self.asked:
            return
        self.trail, self.marked = [], number
        self._show(found)
        ui.run_javascript(f"document.getElementById('{self.place.html_id}')?.scrollIntoView({{ block: 'nearest' }})")

    async def turn(self, offset: int) -> None:
        """Show the rows from `offset` on; a search goes on until it has found some or is at the end."""
        self.asked += 1
        mine, self.marked = self.asked, None
        while True:
            try:
                found = await self.s.do(rows.preview_rows, self.version.id, offset=offset, limit=PAGE, contains=self.contains or None)
            except (NotFoundError, SignInError, ForbiddenError):
                raise
            except DanluError as error:  # a file that nobody can read: the doctor says more
                self._tell(in_error_words(self.s, error).what)
                return
            if mine != self.asked:
                return
            if found.items or not self.contains or found.next is None:
                break
            offset = found.next
            self._tell(self.s.t("datasets.searching", number=f"{offset:,}", total=f"{found.total or 0:,}"))
        self._show(found)

    def _tell(self, text: str) -> None:
        self.place.clear()
        with self.place:
            paragraph(text, "dl-muted dl-text").props("role=status").style("padding: 0 16px 16px")

    def _show(self, found: Rows) -> None:
        self.offset, self.has_columns = found.offset, bool(found.columns)
        if not found.items:
            self._tell(self.s.t("datasets.row_missing"))
            return
        self.place.clear()
        with self.place:
            self._draw(found)
            if found.total is None and self.version.size_bytes <= SOON_BYTES:
                ui.timer(0.05, guarded(self.s, self._read_all), once=True)

    async def _read_all(self) -> None:
        """Have all rows read, now that the first are on show."""
        mine = self.asked
        found = await self.s.do(rows.preview_rows, self.version.id, limit=PAGE, from_number=0)
        if mine == self.asked:
            self._show(found)

    def _draw(self, found: Rows) -> None:
        s, mapping = self.s, self.mapping
        names = list(dict.fromkeys(name for row in found.items for name in (row.row or {})))[:MAX_COLUMNS] if mapping is None else mapping.shown
        with box("dl-scroll"), box("dl-table cards" if mapping is None else "dl-table cards choosing", "table"):
            Text(s.t("datasets.preview"), "caption", "dl-skip")
            with box("", "thead"), box("", "tr"):
                Text(s.t("datasets.column_number"), "th").props("scope=col")
                for name in names:
                    with box("", "th").props("scope=col"):
                        Text(_short(name))
                        if mapping is not None:
                            mapping.head(name)
            with box("", "tbody"):
                for row in found.items:
                    self._row(row, names)
        with box("dl-tablefoot"):
            Text(self._status(found), "span", "dl-small dl-muted").props("aria-live=polite")
            with box("dl-row"):
                if found.offset and not (self.contains and not self.trail):
                    button(s.t("basic.previous"), guarded(s, self._back), classes="small")
                if found.next is not None:
                    button(s.t("basic.next"), guarded(s, partial(self._forward, found.offset, found.next)), classes="small")

    def _status(self, found: Rows) -> str:
        if found.total is None:
            return self.s.t("datasets.rows_first", number=len(found.items))
        return self.s.t("datasets.rows_status", first=found.items[0].number, last=found.items[-1].number, total=f"{found.total:,}")

    async def _back(self) -> None:
        await self.turn(self.trail.pop() if self.trail else max(0, self.offset - PAGE))

    async def _forward(self, offset: int, following: int) -> None:
        self.trail.append(offset)
        await self.turn(following)

    def _row(self, row: FileRow, names: list[str]) -> None:
        s = self.s
        with box("dl-marked" if row.number == self.marked else "", "tr"):
            with box("", "td"):
                opener = Text(str(row.number), "button", "dl-btn small quiet").props("type=button")
                opener._props["aria-label"] = s.t("datasets.edit_title", number=row.number)
                opener.on("click", lambda: open_row(s, self.version, self.newest, row, self.rights), [])
            if row.row is None:
                problem = in_chinese(row.problem or "") if s.language == "zh" else row.problem
                Text(f"{s.t('datasets.problem')}{s.t('basic.colon')}{problem}", "td", "dl-bad").props(f"colspan={max(1, len(names))}")
                return
            for name in names:
                cell = Text(_cell(row.row.get(name)), "td", "long")
                cell._props["data-label"] = _short(name)


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else "" if value is None else orjson.dumps(value).decode()
    return text if len(text) <= CELL_CHARS else text[:CELL_CHARS] + "\u2026"


def _short(name: str) -> str:
    return name if len(name) <= 40 else name[:40] + "\u2026"
