"""Parts of the page that puts runs side by side: their curves in one picture, and tables with a column for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from nicegui import ui

from danlu.evaluation.report import words
from danlu.services.platform.proofs import ComparedRuns
from danlu.services.platform.watching import Curves, RunForecast
from danlu.store.runs import Run
from danlu.web import numbers
from danlu.web.components.elements import STATE_TONES, Text, badge, box, card, fold, link, moment, pairs, paragraph
from danlu.web.components.line_chart import NUM_COLORS, Line, LineChart, look_of
from danlu.web.components.run_parts import MEGABYTE, quantity
from danlu.web.session import Session
from danlu.web.words import CATALOGUE

CURVES = ("loss", "validation_loss", "learning_rate", "grad_norm", "tokens_per_second", "peak_memory_bytes")
Cell = str | Callable[[], Any]
"""A text, or what draws the content of a cell."""


def letter(number: int) -> str:
    """What a run is called where there is no room for its name."""
    return chr(ord("A") + number)


def called(number: int, run: Run) -> str:
    """Letter and name: runs may have the same name."""
    return f"{letter(number)} \u00b7 {run.name or run.id}"


class Overlay:
    """Curves of the same kind in one picture each."""

    def __init__(self, s: Session, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.charts: list[tuple[LineChart, str, str, float]] = []
        with box("dl-grid2"):
            self._chart(s, "validation_loss", s.t("compare_runs.curve_validation"), kind="validation")
            self._chart(s, "loss", s.t("compare_runs.curve_train"))
        with fold(s.t("run.more_curves")), box("dl-grid2"):
            self._chart(s, "learning_rate", s.t("run.curve_rate"), is_small=True)
            self._chart(s, "grad_norm", s.t("run.curve_grad"), is_small=True)
            self._chart(s, "tokens_per_second", s.t("run.curve_speed"), is_small=True)
            self._chart(s, "peak_memory_bytes", s.t("run.curve_memory"), is_small=True, scale=MEGABYTE)

    def _chart(self, s: Session, name: str, title: str, *, kind: str = "train", is_small: bool = False, scale: float = 1.0) -> None:
        tip = s.t("glossary.loss_means") if name.endswith("loss") else ""
        lines = [Line(called(number, run), points=[], **self._look(name, number)) for number, run in enumerate(self.runs)]
        self.charts.append((LineChart(s, title, lines, tip=tip, is_small=is_small, file_name=f"runs-{name}"), name, kind, scale))

    @staticmethod
    def _look(name: str, number: int) -> dict[str, Any]:
        return look_of(number) | {"smooth": name in ("loss", "grad_norm", "tokens_per_second"), "dots": name == "validation_loss"}

    def show(self, curves: Sequence[Curves]) -> None:
        """Draw what each run has measured."""
        for chart, name, kind, scale in self.charts:
            lines = []
            for number, (run, found) in enumerate(zip(self.runs, curves, strict=True)):
                points = [
                    [step, value / scale]
                    for curve in found.curves
                    if (curve.name, curve.kind) == (name, kind)
                    for step, value in zip(curve.steps, curve.values, strict=True)
                ]
                lines.append(Line(called(number, run), points=points, **self._look(name, number)))
            chart.replace(lines)


def side_by_side(label: str, heads: Sequence[Cell], rows: Sequence[tuple[Cell, Sequence[Cell]]]) -> None:
    """A table with a column for each run."""
    with box("dl-scroll").props("tabindex=0") as place:
        place._props["aria-label"] = label
        place.props("role=region")
        with box("dl-table dl-side", "table"):
            Text(label, "caption", "dl-skip")
            with box("", "thead"), box("", "tr"):
                for head in heads:
                    with box("", "th" if head else "td").props("scope=col" if head else ""):
                        _fill(head)
            with box("", "tbody"):
                for name, cells in rows:
                    with box("", "tr"):
                        with box("", "td"):
                            _fill(name)
                        for cell in cells:
                            with box("", "td"):
                                _fill(cell)


def _fill(cell: Cell) -> None:
    if callable(cell):
        cell()
    else:
        Text(cell)


def heads(runs: Sequence[Run]) -> list[Cell]:
    """Letters in the colours of the curves."""

    def head(number: int) -> Callable[[], None]:
        def draw() -> None:
            with box("dl-row"):
                box("dl-swatch").style(f"background: var(--chart-{number % NUM_COLORS})")
                Text(letter(number), "span", "dl-strong")

        return draw

    return ["", *(head(number) for number in range(len(runs)))]


def runs_card(s: Session, found: ComparedRuns) -> None:
    """What the runs are: names, states, verdicts, data and base."""

    def name(run: Run) -> Callable[[], ui.element]:
        return lambda: link(run.name or run.id, f"/runs/{run.id}")

    def state(key: str | None) -> Cell:
        return "\u2013" if key is None else lambda: badge(s.t(f"state.{key}"), STATE_TONES.get(key, ""))

    recipes = [run.resolved or run.recipe for run in found.runs]
    rows: list[tuple[Cell, Sequence[Cell]]] = [
        (s.t("compare_runs.run"), [name(run) for run in found.runs]),
        (s.t("compare_runs.state"), [state(run.state) for run in found.runs]),
        (s.t("compare_runs.verdict"), [state(run.verdict) for run in found.runs]),
        (s.t("compare_runs.data"), [_last(str(run.recipe["dataset"])) for run in found.runs]),
        (s.t("compare_runs.base"), [_last(run.base_model) for run in found.runs]),
        (s.t("compare_runs.method"), [_method(recipe.get("method")) for recipe in recipes]),
        (s.t("compare_runs.created"), [partial(moment, run.created_at) for run in found.runs]),
    ]
    with card(s.t("compare_runs.runs"), "flush"):
        side_by_side(s.t("compare_runs.runs"), heads(found.runs), rows)


def _last(name: str) -> str:
    """The end of a path, which goes by nothing else; a name as it is."""
    return name.rpartition("/")[2] if name.startswith("/") else name


def _method(part: Any) -> str:
    return str(part.get("type")) if isinstance(part, dict) else str(part or "\u2013")


def settings_card(s: Session, found: ComparedRuns) -> None:
    """What differs; the rest is folded."""
    with card(s.t("compare_runs.settings"), "flush"):
        if found.settings:
            rows = [(_code(row.path), [numbers.setting(value) for value in row.values]) for row in found.settings]
            side_by_side(s.t("compare_runs.settings"), heads(found.runs), rows)
        else:
            paragraph(s.t("compare_runs.settings_none"), "dl-muted").style("padding: 0 16px 12px")
        with box("").style("padding: 12px 16px"), fold(s.t("compare_runs.same", number=len(found.same))):
            pairs([(path, numbers.setting(value)) for path, value in found.same.items()], "dl-mono")


def _code(text: str) -> Callable[[], Text]:
    return lambda: Text(text, "span", "dl-mono")


def metrics_card(s: Session, found: ComparedRuns) -> None:
    """Every metric of every run, with its change against the base model."""
    with card(s.t("compare_runs.metrics"), "flush", tip=s.t("compare_runs.metrics_tip"), s=s):
        if not found.metrics:
            paragraph(s.t("compare_runs.metrics_none"), "dl-muted").style("padding: 0 16px 12px")
            return
        rows = [(s.pick(words.name(name)), [_metric(s, entry) for entry in entries]) for name, entries in found.metrics.items()]
        side_by_side(s.t("compare_runs.metrics"), heads(found.runs), rows)


def _metric(s: Session, entry: dict[str, Any] | None) -> Cell:
    if entry is None:
        return "\u2013"

    def draw() -> None:
        with box("dl-row"):
            Text(words.value(entry["tuned"], entry["unit"]), "span", "dl-strong")
            badge(s.t(f"state.{entry['label']}"), STATE_TONES.get(entry["label"], ""))

    return draw


def forecasts_card(s: Session, runs: Sequence[Run], forecasts: Sequence[RunForecast]) -> None:
    """What was foretold of each run, and what came of it."""
    names = [row.name for row in forecasts[0].comparison if any(_known(forecast, row.name) for forecast in forecasts)]
    if not names:
        return
    rows: list[tuple[Cell, Sequence[Cell]]] = []
    for name in names:
        key = f"run.forecast_{name}"
        rows.append((s.t(key) if key in CATALOGUE else name, [_told(s, forecast, name) for forecast in forecasts]))
    with card(s.t("compare_runs.forecast"), "flush", tip=s.t("compare_runs.forecast_tip"), s=s):
        side_by_side(s.t("compare_runs.forecast"), heads(runs), rows)


def _known(forecast: RunForecast, name: str) -> bool:
    return any(row.name == name and (row.forecast is not None or row.actual is not None) for row in forecast.comparison)


def _told(s: Session, forecast: RunForecast, name: str) -> str:
    row = next(row for row in forecast.comparison if row.name == name)
    if row.forecast is None and row.actual is None:
        return "\u2013"
    return s.t("compare_runs.forecast_to", forecast=quantity(s, name, row.forecast), actual=quantity(s, name, row.actual))
