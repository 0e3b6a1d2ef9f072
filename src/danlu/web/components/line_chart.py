"""Curves over steps, with their controls and a summary in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from nicegui import ui
from nicegui.element import Element

from danlu.web import numbers
from danlu.web.components.elements import Text, box, button, help_tip
from danlu.web.session import Session

Values = list[list[float]]
"""[[step, value], ...]"""
Dash = Literal["", "dashed", "dotted"]
NUM_COLORS = 8
MAX_LINES = 3 * NUM_COLORS
"""More cannot be told apart."""
TOLD_LINES = 3
"""The words below a chart are shown for so many lines; for more they are there for screen readers, who would find them in a table too."""


@dataclass
class Line:
    """One curve."""

    name: str
    color: int
    points: Values
    smooth: bool = False
    dots: bool = False
    dash: Dash = ""


def look_of(number: int) -> dict[str, Any]:
    """Colour and dashes of the line of that number, so that no two are alike."""
    dashes: tuple[Dash, ...] = ("", "dashed", "dotted")
    return {"color": number % NUM_COLORS, "dash": dashes[number // NUM_COLORS % len(dashes)]}


@dataclass
class _Sum:
    """What the words below a chart tell of a curve."""

    name: str
    ends: list[float] = field(default_factory=list)
    """[first, last, lowest]; empty while there is no point."""

    def add(self, points: Values) -> None:
        """Look at further points."""
        if points:
            first, low = (self.ends[0], self.ends[2]) if self.ends else (points[0][1], points[0][1])
            self.ends = [first, points[-1][1], min(low, *(value for _, value in points))]


def _looks(lines: list[Line]) -> list[dict[str, Any]]:
    return [{key: value for key, value in vars(line).items() if key != "points"} for line in lines]


def _points(lines: list[Line]) -> str:
    return orjson.dumps([line.points for line in lines]).decode()


class _Chart(Element, component="line_chart.js"):
    """The drawing; its data lives in the browser."""

    def __init__(self, lines: list[Line], *, label: str, x: str, is_small: bool) -> None:
        super().__init__()
        # The points as one text: NiceGUI watches every list inside of a property, which of thousands of points takes long.
        self._props.update(series=_looks(lines), points_json=_points(lines), label=label, x=x, small=is_small, log=False)
        ui.echart  # noqa: B018 - its module brings the bundled ECharts


class LineChart:
    """A card with curves: raw and smoothed, log scale, zoom, PNG and CSV."""

    def __init__(
        self,
        s: Session,
        title: str,
        lines: list[Line],
        *,
        tip: str = "",
        is_small: bool = False,
        file_name: str = "curves",
        can_log: bool = True,
        can_smooth: bool = False,
    ) -> None:
        self.s, self.title = s, title
        self._take(lines)
        with box("dl-card", "section"):
            with box("dl-cardhead"):
                with box("dl-row"):
                    Text(title, "h2")
                    if tip:
                        help_tip(s, tip)
                with box("dl-row dl-noprint"):
                    if can_log:
                        self._toggle(s.t("chart.log"), "set_log", False)
                    if can_smooth or any(line.smooth for line in lines):
                        self._toggle(s.t("chart.smooth"), "set_smooth", True)
                    button("PNG", lambda: self.chart.run_method("png", f"{file_name}.png"), classes="small quiet")
                    button("CSV", lambda: self.chart.run_method("csv", f"{file_name}.csv"), classes="small quiet")
            self.chart = _Chart(lines, label=title, x=s.t("chart.step"), is_small=is_small)
            self.summary = Text("", "p", "dl-small dl-muted dl-text")
        self._sum_up()
        ui.context.client.on_connect(self._let_go)

    def replace(self, lines: list[Line]) -> None:
        """Show other lines; scale and smoothing stay as they were chosen."""
        before = self.shown
        self._take(lines)
        if self.shown == before:
            return
        with self.chart._props.suspend_updates():  # for who gets the page now
            self.chart._props.update(series=_looks(lines), points_json=_points(lines))
        self.chart.run_method("replace", _looks(lines), [line.points for line in lines])  # for who has it
        self._sum_up()

    def _take(self, lines: list[Line]) -> None:
        self.sums = [_Sum(line.name) for line in lines]
        for told, line in zip(self.sums, lines, strict=True):
            told.add(line.points)
        self.shown = hash((orjson.dumps(_looks(lines)), _points(lines)))

    def append(self, added: list[Values]) -> None:
        """Add points to each line."""
        if not any(added):
            return
        for told, points in zip(self.sums, added, strict=True):
            told.add(points)
        self.chart.run_method("append", added)
        self._sum_up()

    def _let_go(self) -> None:
        """The browser has the points now: a copy for each of many viewers would fill the server's memory."""
        with self.chart._props.suspend_updates():
            self.chart._props["points_json"] = ""

    def _sum_up(self) -> None:
        """The same in words, for who cannot see the picture."""
        parts = []
        for told in self.sums:
            if told.ends:
                first, last, low = map(numbers.short, told.ends)
                parts.append(self.s.t("chart.summary", name=told.name, first=first, last=last, low=low))
        self.summary.classes(add="dl-skip" if len(parts) > TOLD_LINES else "", remove="" if len(parts) > TOLD_LINES else "dl-skip")
        self.summary.text = "\n".join(parts) or self.s.t("chart.empty")

    def _toggle(self, text: str, method: str, value: bool) -> None:
        made = Text(text, "button", "dl-btn small").props(f"type=button aria-pressed={'true' if value else 'false'}")
        state: dict[str, Any] = {"value": value}

        def turn() -> None:
            state["value"] = not state["value"]
            made.props(f"aria-pressed={'true' if state['value'] else 'false'}")
            self.chart.run_method(method, state["value"])

        made.on("click", turn, [])
