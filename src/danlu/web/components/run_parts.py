"""Parts of the page of a run, each kept up to date by what is new about the run."""

from __future__ import annotations

import json
from typing import Any

from nicegui import ui
from nicegui.element import Element

from danlu.services.platform.watching import RunForecast
from danlu.store.measurements import Point, RunEvent
from danlu.web import numbers
from danlu.web.components.elements import Text, badge, bar, box, button, card, fold, move_bar, note, paragraph
from danlu.web.components.line_chart import Line, LineChart, Values
from danlu.web.session import Session
from danlu.web.words import CATALOGUE

SEVERITIES: dict[str, Any] = {"error": "bad", "warning": "warn", "info": "accent"}
SHOWN_ROUNDS = 6
OVER = ("succeeded", "failed", "cancelled")
FEW_STEPS = 20
"""On shorter curves the coach is silent (docs/watching.md)."""
MEGABYTE = 1e6


def series(points: list[Point], name: str, kind: str = "train", scale: float = 1.0) -> Values:
    """[step, value] of one number."""
    return [[point.step, point.values[name] / scale] for point in points if point.kind == kind and isinstance(point.values.get(name), int | float)]


class Curves:
    """Loss large, the others small."""

    def __init__(self, s: Session, points: list[Point], file_name: str) -> None:
        self.charts: list[tuple[LineChart, list[tuple[str, str, float]]]] = []

        def chart(title: str, kinds: list[tuple[str, str, float]], lines: list[Line], **options: Any) -> None:
            self.charts.append((LineChart(s, title, lines, file_name=f"{file_name}-{kinds[0][0]}", **options), kinds))

        loss = [
            Line(s.t("run.train"), 0, series(points, "loss"), smooth=True),
            Line(s.t("run.validation"), 2, series(points, "validation_loss", "validation"), dots=True),
        ]
        chart(s.t("run.curve_loss"), [("loss", "train", 1.0), ("validation_loss", "validation", 1.0)], loss, tip=s.t("glossary.loss_means"))
        with fold(s.t("run.more_curves")), box("dl-grid2"):
            for key, name, color, scale in (
                ("rate", "learning_rate", 3, 1.0),
                ("grad", "grad_norm", 4, 1.0),
                ("speed", "tokens_per_second", 1, 1.0),
                ("memory", "peak_memory_bytes", 2, MEGABYTE),
            ):
                title = s.t(f"run.curve_{key}")
                chart(title, [(name, "train", scale)], [Line(title, color, series(points, name, scale=scale))], is_small=True, can_log=key == "grad")

    def append(self, points: list[Point]) -> None:
        """Draw what is new."""
        for chart, kinds in self.charts:
            chart.append([series(points, name, kind, scale) for name, kind, scale in kinds])


class Coach:
    """What the coach says now, with a button for what it recommends."""

    def __init__(self, s: Session, run_id: str) -> None:
        self.s, self.run_id = s, run_id
        self.said: dict[str, dict[str, Any]] = {}
        self.num_steps, self.state = 0, ""
        with card(s.t("run.coach"), tip=s.t("run.coach_tip"), s=s):
            self.place = box("dl-col")

    def append(self, state: str, points: list[Point], events: list[RunEvent]) -> None:
        """Hear what is new."""
        before = self._nothing()
        self.state, self.num_steps = state, self.num_steps + sum(point.kind == "train" for point in points)
        told = [event.fields for event in events if event.kind == "coach"]
        for fields in told:
            if fields.get("status") == "found":
                self.said[str(fields["name"])] = fields
            else:
                self.said.pop(str(fields.get("name")), None)
        if told or before != self._nothing() or not self.place.default_slot.children:
            self._draw()

    def _nothing(self) -> str:
        """What is said when there is nothing to say: curves that nobody has seen are not called good ones."""
        if self.num_steps >= FEW_STEPS:
            return "run.coach_none"
        if self.state in OVER:
            return "run.coach_few" if self.num_steps else "run.coach_unmeasured"
        return "run.coach_early"

    def _draw(self) -> None:
        s = self.s
        self.place.clear()
        with self.place:
            if not self.said:
                paragraph(s.t(self._nothing(), number=FEW_STEPS) if self.num_steps < FEW_STEPS else s.t("run.coach_none"), "dl-muted")
            for fields in self.said.values():
                with note(s.pick(fields["what"]), SEVERITIES[fields["severity"]]):
                    Text(s.pick(fields["why"]), "div", "dl-small dl-muted")
                    Text(s.pick(fields["fix"]), "div", "dl-small")
                    if fields.get("changes"):
                        with box("dl-row"):
                            for path, value in fields["changes"].items():
                                badge(f"{path} = {numbers.setting(value)}")
                            changes = json.dumps(fields["changes"])
                            button(s.t("run.apply"), lambda changes=changes: _try(self.run_id, changes), classes="small")


def _try(run_id: str, changes: str) -> None:
    from urllib.parse import quote

    ui.navigate.to(f"/new-run?from={run_id}&changes={quote(changes)}")


class Samples:
    """Answers to the same prompts over the steps."""

    def __init__(self, s: Session) -> None:
        self.s, self.is_over = s, False
        self.rounds: dict[int, list[dict[str, Any]]] = {}
        with card(s.t("run.samples")):
            self.place = box("dl-col wide")
        self._draw()

    def append(self, state: str, events: list[RunEvent]) -> None:
        """Hear what is new."""
        told = [event.fields for event in events if event.kind == "sample"]
        was_over, self.is_over = self.is_over, state in OVER
        for fields in told:
            self.rounds[int(fields["step"])] = fields["items"]
        if told or was_over != self.is_over:
            self._draw()

    def _draw(self) -> None:
        s, steps = self.s, sorted(self.rounds)
        if len(steps) > SHOWN_ROUNDS:
            steps = [steps[round(i * (len(steps) - 1) / (SHOWN_ROUNDS - 1))] for i in range(SHOWN_ROUNDS)]
        self.place.clear()
        with self.place:
            if not steps:
                paragraph(s.t("run.samples_over" if self.is_over else "run.samples_none"), "dl-muted")
                return
            for number, first in enumerate(self.rounds[steps[0]]):
                with box("dl-col"):
                    Text(first["prompt"], "h3", "dl-text")
                    with box("dl-pairs left", "dl"):
                        if first.get("reference"):
                            Text(s.t("run.reference"), "dt")
                            Text(first["reference"], "dd", "dl-text dl-good")
                        for step in steps:
                            Text(s.t("run.sample_step", step=step), "dt")
                            item = self.rounds[step][number] if number < len(self.rounds[step]) else {"text": ""}
                            Text(item["text"] + (" \u2026" if item.get("is_cut") else ""), "dd", "dl-text")


class LogView(Element, component="log_view.js"):
    """The end of a log, with search."""

    def __init__(self, s: Session, text: str) -> None:
        super().__init__()
        self._props.update(text=text, label=s.t("run.log"), search=s.t("run.log_search"), matches=s.t("run.log_matches"), empty=s.t("run.log_empty"))
        ui.context.client.on_connect(self._let_go)

    def _let_go(self) -> None:
        """The browser has the text now."""
        with self._props.suspend_updates():
            self._props["text"] = ""

    def append(self, text: str) -> None:
        """Show what is new."""
        if text:
            self.run_method("append", text)


def forecast_card(s: Session, found: RunForecast, state: str) -> None:
    """What was foretold beside what was measured."""
    rows = [row for row in found.comparison if row.forecast is not None or row.actual is not None]
    if not rows:
        paragraph(s.t("run.forecast_over" if state in OVER else "run.forecast_none"), "dl-muted")
        return
    with box("dl-table small", "table"):
        with box("", "thead"), box("", "tr"):
            Text("", "td")
            Text(s.t("run.forecast_expected"), "th", "right")
            Text(s.t("run.forecast_actual"), "th", "right")
        with box("", "tbody"):
            for row in rows:
                with box("", "tr"):
                    key = f"run.forecast_{row.name}"
                    Text(s.t(key) if key in CATALOGUE else row.name, "td")
                    Text(quantity(s, row.name, row.forecast), "td", "right")
                    Text(quantity(s, row.name, row.actual), "td", "right")


def quantity(s: Session, name: str, value: float | None) -> str:
    """A number of a forecast with its unit."""
    if name.endswith("_bytes"):
        return numbers.size(value)
    return numbers.duration(value, s.language) if name.endswith("_seconds") else numbers.count(value)


class Progress:
    """Stage, step, loss, speed and the time that is left. Drawn once; after that only its words change, since many may look twice a second."""

    def __init__(self, s: Session) -> None:
        self.s, self.stage = s, ""
        self.losses: dict[str, float] = {}
        self.newest: dict[str, Any] = {}
        with box("dl-card", "section"):
            self.title = Text("", "div", "dl-strong")
            with box("dl-col") as self.place:
                with box("dl-row between dl-small dl-muted"):
                    self.told, self.left = Text(""), Text("")
                self.bar = bar(0, s.t("run.progress"))
                with box("dl-facts", "dl"):
                    self.facts = [self._fact(s.t(key)) for key in ("run.loss_now", "run.validation_now", "run.speed_now", "preview.memory")]
        self.place.set_visibility(False)

    def _fact(self, name: str) -> Text:
        with box():
            Text(name, "dt")
            return Text("", "dd", "dl-num")

    def append(self, state: str, points: list[Point], events: list[RunEvent], summary: dict[str, Any] | None) -> None:
        """Show what is new."""
        for event in events:
            if event.kind == "stage":
                self.stage = str(event.fields.get("stage", ""))
        for point in points:
            if point.kind == "train":
                self.newest = {"step": point.step} | point.values
            elif isinstance(point.values.get("validation_loss"), int | float):
                self.losses["validation"] = point.values["validation_loss"]
        self._draw(state)

    def _draw(self, state: str) -> None:
        s, newest = self.s, self.newest
        step, total = newest.get("step", 0), newest.get("num_steps") or 0
        known = f"run.stage_{self.stage}"
        self.title.text = s.t("run.waiting") if state == "queued" else s.t(known) if known in CATALOGUE and state == "running" else s.t(f"state.{state}")
        self.place.set_visibility(bool(total))
        if not total:
            return
        self.told.text = s.t("run.step_of", step=step, total=total)
        speed, tokens = newest.get("tokens_per_second"), newest.get("num_tokens")
        is_training = state == "running" and self.stage == "training"
        left = numbers.duration(tokens / step * (total - step) / speed, s.language) if is_training and speed and tokens and step else None
        self.left.text = "" if left is None else s.t("run.left", time=left)
        move_bar(self.bar, step / total, "good" if state == "succeeded" else "")
        values = (
            numbers.short(newest.get("loss")),
            numbers.short(self.losses.get("validation")),
            s.t("run.tokens_per_second", number=numbers.count(newest.get("tokens_per_second"))),
            numbers.size(newest.get("peak_memory_bytes")),
        )
        for fact, value in zip(self.facts, values, strict=True):
            fact.text = value
