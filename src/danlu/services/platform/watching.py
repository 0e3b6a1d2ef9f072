"""Use cases on a run at work: its curves, its events, what the coach says, what it writes, how it compares with its forecast."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from danlu.services.platform.operations import Call, operation
from danlu.store import measurements
from danlu.store.measurements import MAX_ROWS, Point, RunEvent
from danlu.store.runs import EVALUATIONS, RUNS

Kind = Literal["train", "validation"]
MAX_CURVES = 20


@dataclass(frozen=True)
class Curve:
    """One number over the steps; between two points that are told nothing lies higher or lower than they do."""

    name: str
    kind: str
    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Curves:
    """Curves of a run."""

    curves: list[Curve]
    last_step: int
    """Ask again with this as `after` for what came since."""
    is_over: bool


@dataclass(frozen=True)
class Measured:
    """One number of a forecast beside what was measured; null for what is not known."""

    name: str
    forecast: float | None
    actual: float | None


@dataclass(frozen=True)
class RunForecast:
    """What was told before the run began, and what came of it."""

    forecast: dict[str, Any] | None
    comparison: list[Measured]


@operation("GET", "/runs/{run_id}/points", right="viewer")
def list_points(call: Call, run_id: str, kind: Kind | None = None, after: int = -1, limit: int = 500) -> list[Point]:
    """Everything that was measured, step by step, after step `after`."""
    return measurements.points_after(call.connection, run_id, kind=kind, after=after, limit=max(1, min(limit, MAX_ROWS)))


@operation("GET", "/runs/{run_id}/curves", right="viewer")
def get_curves(call: Call, run_id: str, names: str = "loss,validation_loss", num_points: int = 400, after: int = -1) -> Curves:
    """Curves by name (with commas between), each in at most `num_points` points that keep every peak and dip."""
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip().isidentifier()))[:MAX_CURVES]
    size = max(4, min(num_points, MAX_ROWS))
    curves, last = [], after
    for kind in ("train", "validation"):
        rows = list(measurements.series(call.connection, run_id, kind, wanted, after=after))
        last = max(last, rows[-1][0] if rows else after)
        for place, name in enumerate(wanted, 1):
            points = thin([(row[0], row[place]) for row in rows if row[place] is not None], size)
            if points:
                curves.append(Curve(name, kind, [step for step, _ in points], [value for _, value in points]))
    return Curves(curves, last, RUNS.get(call.connection, run_id).is_over)


@operation("GET", "/runs/{run_id}/events", right="viewer")
def list_events(call: Call, run_id: str, kind: str | None = None, after: int = -1, limit: int = 500) -> list[RunEvent]:
    """What happened, in order, after the event numbered `after`."""
    return measurements.events_after(call.connection, run_id, kind=kind, after=after, limit=max(1, min(limit, MAX_ROWS)))


@operation("GET", "/runs/{run_id}/diagnoses", right="viewer")
def list_diagnoses(call: Call, run_id: str) -> list[dict[str, Any]]:
    """What the coach has to say: name, severity, what, why and fix in both languages, and settings to try next."""
    found = EVALUATIONS.find(call.connection, run_id=run_id)
    if found is not None and found.report.get("coach") is not None:
        return list(found.report["coach"])
    said: dict[str, dict[str, Any]] = {}
    for event in measurements.events_after(call.connection, run_id, kind="coach", after=-1, limit=MAX_ROWS):
        name = str(event.fields.get("name"))
        if event.fields.get("status") == "found":
            said[name] = event.fields
        else:
            said.pop(name, None)
    return list(said.values())


@operation("GET", "/runs/{run_id}/samples", right="viewer")
def list_samples(call: Call, run_id: str) -> list[RunEvent]:
    """What the model wrote on the way: for each round its step and items with prompt, reference and text."""
    return measurements.events_after(call.connection, run_id, kind="sample", after=-1, limit=MAX_ROWS)


@operation("GET", "/runs/{run_id}/forecast", right="viewer")
def get_forecast(call: Call, run_id: str) -> RunForecast:
    """What was foretold of a run beside what was measured."""
    summary = RUNS.get(call.connection, run_id).summary or {}
    found = EVALUATIONS.find(call.connection, run_id=run_id)
    report = found.report if found is not None else {}
    forecast = summary.get("forecast")
    pairs = (
        ("peak_memory_bytes", ("memory", "peak_bytes"), ("memory", "training_peak_bytes")),
        ("disk_bytes", ("disk_bytes",), ("disk", "disk_bytes")),
        ("num_steps", ("num_steps",), ("training", "step")),
        ("num_tokens", ("num_tokens",), ("training", "num_tokens")),
        ("training_seconds", ("training_seconds",), ("timing", "optimizer_steps_seconds")),
    )
    return RunForecast(forecast, [Measured(name, _number(forecast, told), _number(report, found_at)) for name, told, found_at in pairs])


def thin(points: Sequence[tuple[int, float]], size: int) -> list[tuple[int, float]]:
    """At most `size` of the points: the first, the last, and of each stretch between its lowest and its highest."""
    if len(points) <= size:
        return list(points)
    num_stretches = (size - 2) // 2
    inner = points[1:-1]
    kept = [points[0]]
    for number in range(num_stretches):
        stretch = inner[number * len(inner) // num_stretches : (number + 1) * len(inner) // num_stretches]
        kept += sorted(_extremes(stretch))
    return [*kept, points[-1]]


def _extremes(stretch: Iterable[tuple[int, float]]) -> set[tuple[int, float]]:
    found = list(stretch)
    return {min(found, key=lambda point: point[1]), max(found, key=lambda point: point[1])}


def _number(values: Any, path: Sequence[str]) -> float | None:
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return float(values) if isinstance(values, int | float) and not isinstance(values, bool) else None
