"""Curves over steps, with their controls and a summary in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

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


class _Chart(Element, component="line_chart.js"):
    """The drawing; its data lives in the browser."""

    def __init__(self, lines: list[Line], *, label: str, x: str, is_small: bool) -> None:
        super().__init__()
        self._props.update(series=[vars(line) for line in lines], label=label, x=x, small=is_small, log=False)
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
        self.s, self.title, self.lines = s, title, lines
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
            self.summary = Text("", "p", "dl-small dl-muted")
        self._sum_up()

    def replace(self, lines: list[Line]) -> None:
        """Show other lines; scale and smoothing stay as they were chosen."""
        if lines == self.lines:
            return
        self.lines = lines
        self.chart._props["series"] = [vars(line) for line in lines]  # for who gets the page now
        self.chart.run_method("replace", self.chart._props["series"])  # for who has it
        self._sum_up()

    def append(self, added: list[Values]) -> None:
        """Add points to each line."""
        if not any(added):
            return
        for line, points in zip(self.lines, added, strict=True):
            line.points += points
        self.chart.run_method("append", added)
        self._sum_up()

    def _sum_up(self) -> None:
        """The same in words, for who cannot see the picture."""
        parts = []
        for line in self.lines:
            if line.points:
                first, last = line.points[0][1], line.points[-1][1]
                values = [value for _, value in line.points]
                text = self.s.t("chart.summary", name=line.name, first=numbers.short(first), last=numbers.short(last), low=numbers.short(min(values)))
                parts.append(text)
        self.summary.classes(add="dl-skip" if len(parts) > TOLD_LINES else "", remove="" if len(parts) > TOLD_LINES else "dl-skip")
        self.summary.text = " ".join(parts) or self.s.t("chart.empty")

    def _toggle(self, text: str, method: str, value: bool) -> None:
        made = Text(text, "button", "dl-btn small").props(f"type=button aria-pressed={'true' if value else 'false'}")
        state: dict[str, Any] = {"value": value}

        def turn() -> None:
            state["value"] = not state["value"]
            made.props(f"aria-pressed={'true' if state['value'] else 'false'}")
            self.chart.run_method(method, state["value"])

        made.on("click", turn, [])
