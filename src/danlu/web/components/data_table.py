"""A table whose rows come page by page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from nicegui.element import Element
from nicegui.events import GenericEventArguments

from danlu.web.components.messages import guarded
from danlu.web.session import Session

Rows = tuple[list[dict[str, Any]], str | None]
"""(rows, where the next ones begin)."""


@dataclass
class Choice:
    """Rows that are ticked, whatever page shows."""

    label: str
    """What ticking does, for who cannot see the box."""
    on_change: Callable[[], None]
    keys: list[str] = field(default_factory=list)
    """In the order in which they were ticked."""


class DataTable(Element, component="data_table.js"):
    """Rows are plain values; a row with `href` is a link, others report their `key` to `on_row`."""

    def __init__(
        self,
        s: Session,
        label: str,
        columns: list[dict[str, Any]],
        read: Callable[[str | None], Awaitable[Rows]],
        first: Rows,
        on_row: Callable[[str], Awaitable[None]] | None = None,
        choice: Choice | None = None,
    ) -> None:
        super().__init__()
        self.session, self.read = s, read
        self.begins: list[str | None] = [None]
        """Where each page that was seen begins."""
        self._props.update(columns=columns, label=label, previous=s.t("basic.previous"), next=s.t("basic.next"), opens=on_row is not None)
        self._fill(0, first)
        self.on("request", guarded(s, self._turn))
        if on_row is not None:
            self.on("row", guarded(s, lambda event: on_row(str(event.args))))
        if choice is not None:
            self._props.update(choose=choice.label, chosen=choice.keys)
            self.on("choose", lambda event: self._choose(choice, *event.args))

    def replace(self, rows: list[dict[str, Any]]) -> None:
        """Show other rows, where all are on one page."""
        self._props["rows"] = rows
        self.update()

    def _choose(self, choice: Choice, key: str, is_chosen: bool) -> None:
        choice.keys = [one for one in choice.keys if one != key] + ([key] if is_chosen else [])
        self._props["chosen"] = choice.keys
        self.update()
        choice.on_change()

    async def _turn(self, event: GenericEventArguments) -> None:
        number = min(max(0, int(event.args)), len(self.begins) - 1)
        self._fill(number, await self.read(self.begins[number]))

    def _fill(self, number: int, rows: Rows) -> None:
        shown, begins = rows
        self.begins = self.begins[: number + 1] + ([begins] if begins is not None else [])
        self._props.update(rows=shown, page=number, has_next=begins is not None, status=self.session.t("basic.page", number=number + 1))
        self.update()
