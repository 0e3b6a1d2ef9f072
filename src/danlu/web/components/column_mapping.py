"""Saying in the head of the preview what each column of a file is; saving makes a new version with the names that are read.

The columns are those of all rows, not of the ones on show: what is not named when it is saved would be left out.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import partial
from typing import Any, Literal

from nicegui import ui

from danlu.data.examples import ANSWERS, PROMPTS
from danlu.services.platform import rows
from danlu.services.platform.rows import ColumnMapping
from danlu.store.datasets import DatasetVersion
from danlu.web.components.elements import Text, badge, box, button, paragraph
from danlu.web.components.fields import choice
from danlu.web.components.messages import guarded
from danlu.web.components.newer_version import told_of_newer
from danlu.web.session import Session

Readiness = Literal["ready", "review", "required"]
USUAL: dict[str, tuple[str, ...]] = {
    "prompt": (*PROMPTS, "\u95ee\u9898", "\u95ee", "\u63d0\u95ee", "\u8f93\u5165"),
    "completion": (*ANSWERS, "\u7b54", "\u8f93\u51fa"),
    "system": ("system", "\u7cfb\u7edf"),
    "text": ("text", "content", "\u6587\u672c", "\u6b63\u6587"),
    "chosen": ("chosen", "better", "preferred"),
    "rejected": ("rejected", "worse"),
    "label": ("label", "is_good", "\u6807\u7b7e"),
}
"""What a column can be, and names that tell it."""
KEEP, LEAVE_OUT = "keep", "leave_out"
ENOUGH = ({"prompt", "completion"}, {"text"}, {"prompt", "chosen", "rejected"})
"""Columns of which one set has to be there."""
MOST_SHOWN = 40
TONES: dict[Readiness, Any] = {"ready": "good", "review": "warn", "required": "bad"}


def guess(names: list[str]) -> tuple[dict[str, str], bool]:
    """Return what each column seems to be, and whether any of it is no more than similar to a usual name."""
    found = {name: role for name in names for role, usual in USUAL.items() if name.strip().lower() in usual}
    is_sure = True
    for role in ("prompt", "completion"):
        if role not in found.values() and "text" not in found.values():
            left = {name.strip().lower(): name for name in names if name not in found}
            near = next((match[0] for usual in USUAL[role] if (match := get_close_matches(usual, left, n=1, cutoff=0.7))), None)
            if near is not None:
                found[left[near]], is_sure = role, False
    once: dict[str, str] = {}
    for name in names:
        role = found.get(name, KEEP)
        once[name] = KEEP if role in once.values() else role
    return once, is_sure


class ColumnRoles:
    """The choices in the head of the table, and what comes of them."""

    def __init__(self, s: Session, version: DatasetVersion, newest: int, columns: dict[str, int], total: int) -> None:
        self.s, self.version, self.newest, self.columns, self.total = s, version, newest, columns, total
        self.roles, self.is_sure = guess(list(columns))
        chosen = [name for name, role in self.roles.items() if role != KEEP]
        self.shown = list(dict.fromkeys([*chosen, *columns]))[:MOST_SHOWN]
        """Columns that are asked about; the others stay as they are."""
        self.status = box()

    @property
    def readiness(self) -> Readiness:
        """Whether the columns that are needed are there."""
        if not any(needed <= set(self.roles.values()) for needed in ENOUGH):
            return "required"
        return "ready" if self.is_sure else "review"

    def head(self, name: str) -> None:
        """The choice for one column."""
        if self.columns[name] < self.total:
            Text(self.s.t("datasets.map_in_rows", number=f"{self.columns[name]:,}", total=f"{self.total:,}"), "div", "dl-small dl-muted")
        options = {role: self.s.t(f"datasets.role_{role}") for role in (KEEP, *USUAL, LEAVE_OUT)}
        made = choice(self.s.t("datasets.role_of", name=name), options, self.roles[name], partial(self._chosen, name))
        made.style("min-width: 132px")

    def _chosen(self, name: str, event: Any) -> None:
        self.roles[name], self.is_sure = event.value, True
        self.draw()

    def draw(self) -> None:
        """Whether it is enough, and the button."""
        s = self.s
        self.status.clear()
        with self.status, box("dl-row").style("padding: 0 16px 12px"):
            badge(s.t(f"datasets.map_{self.readiness}"), TONES[self.readiness])
            paragraph(s.t(f"datasets.map_{self.readiness}_text"), "dl-muted dl-small")
            if len(self.shown) < len(self.columns):
                paragraph(s.t("datasets.map_others", number=len(self.columns) - len(self.shown)), "dl-muted dl-small")
            save = guarded(s, lambda: told_of_newer(s, self.version.dataset_id, self.newest, self._save))
            button(s.t("datasets.map_save"), save, why_not=s.t("datasets.map_required_text") if self.readiness == "required" else None)

    async def _save(self, newest: int | None) -> None:
        columns = {name: name if role == KEEP else role for name, role in self.roles.items() if role != LEAVE_OUT}
        made = await self.s.do(rows.map_columns, self.version.id, ColumnMapping(columns=columns), newest=newest)
        ui.navigate.to(f"/datasets/{self.version.dataset_id}?version={made.version.number}")
