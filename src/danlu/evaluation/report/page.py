"""report.json -> report.html: one file, no request to anywhere, Chinese and English, light and dark, printable.

Everything that comes from data, models or names is escaped by the template engine; a content security policy
allows no script but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from danlu.evaluation.report import words
from danlu.evaluation.report.charts import Series, interval, line_chart
from danlu.evaluation.report.curves import Curves, smoothed, thinned

STEP = ("optimizer step", "优化步")


def render(report: dict[str, Any], curves: Curves) -> str:
    """Return the whole page."""
    script = _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            r=report,
            style=Markup(_asset("report.css")),
            script=Markup(script),
            script_hash=f"sha256-{digest}",
            charts=_charts(report, curves),
            recipe_yaml=yaml.safe_dump(report["recipe"], allow_unicode=True, sort_keys=False),
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            forecast=_forecast(report),
            rows=words.accounting(report["rows"], report["encoded"]),
            words=words,
        )
    )


@lru_cache
def _environment() -> Environment:
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=FunctionLoader(_asset), trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(t=both, interval=_interval)
    environment.filters.update(
        value=words.value, signed=words.signed, percent=words.percent, p=words.p_value, duration=_duration, size=words.size, moment=_moment
    )
    return environment


def _asset(name: str) -> str:
    return (files("danlu.evaluation.report") / name).read_text("utf-8")


def both(en: Any, zh: Any) -> Markup:
    """A text in both languages, of which the page shows one."""
    return Markup('<span class="en">{}</span><span class="zh" lang="zh">{}</span>').format(en, zh)


def _duration(seconds: float | None) -> Markup:
    return Markup("\u2013") if seconds is None else both(*words.duration(seconds))


def _moment(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _interval(entry: dict[str, Any], *, is_relative: bool = False) -> Markup:
    """The little picture of a metric: the change with its interval, right of the line is better."""
    low, high = entry["ci"]
    change = entry["relative"] if is_relative else entry["delta"]
    if change is None:
        return Markup("")
    is_clear = low is not None and high is not None and (low > 0 or high < 0)
    is_better = (change > 0) == entry["higher_is_better"]
    return interval(low, change, high, higher_is_better=entry["higher_is_better"], style=("good" if is_better else "bad") if is_clear else "unsure")


def _charts(report: dict[str, Any], curves: Curves) -> dict[str, Markup]:
    found = {}
    losses = [Series(thinned(curves.train), "s0 faint"), Series(thinned(smoothed(curves.train)), "s0"), Series(thinned(curves.validation), "s2 dots")]
    losses = [series for series in losses if series.points]
    kept = (report["training"] or {}).get("kept_step")
    if losses:
        mark = (kept, (f"kept: step {kept}", f"保留第 {kept} 步")) if kept and len(curves.train) > 1 else None
        found["loss"] = line_chart(losses, title=("Training and validation loss", ""), x=STEP, y=("loss (nats per token)", "损失（奈特/词元）"), mark=mark)
    for name, points, y in (
        ("learning_rate", curves.learning_rate, ("learning rate", "学习率")),
        ("speed", curves.tokens_per_second, ("tokens per second", "词元/秒")),
    ):
        if points:
            found[name] = line_chart(
                [Series(thinned(points), "s1" if name == "speed" else "s3")], title=y, x=STEP, y=y, sizes=("half", "narrow"), from_zero=True
            )
    return found


def _forecast(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of forecast against actual, parts of a sum one level below it; a part of memory is forecast, never measured by itself."""
    forecast, training = report["forecast"] or {}, report["training"] or {}
    steps = training.get("step")
    actual = {**report["timing"], **report["memory"], **training, **report.get("disk", {}), **({"num_steps": steps} if steps else {})}
    price, seconds = forecast.get("price_per_hour"), training.get("training_seconds")
    if price is not None and seconds is not None and forecast.get("training_seconds") is not None:
        forecast = {**forecast, "cost": price * forecast["training_seconds"] / 3600}
        actual["cost"] = price * seconds / 3600
    rows = []
    for key in ("num_steps", "num_tokens", "training_seconds", "cost", "peak_memory_bytes", "memory", "disk_bytes", "disk"):
        expected = forecast.get(key)
        if isinstance(expected, dict):
            parts = {name: value for name, value in expected.items() if name.endswith("_bytes") and name not in forecast and name != "peak_bytes"}
            rows += [_forecast_row(name, value, actual.get(name) if key == "disk" else None, 1) for name, value in parts.items()]
        elif isinstance(expected, int | float) and isinstance(actual.get(key), int | float):
            rows.append(_forecast_row(key, expected, actual[key], 0))
    return rows


def _forecast_row(key: str, expected: float, measured: float | None, level: int) -> dict[str, Any]:
    ratio = measured / expected if measured is not None and expected else None
    return {"name": words.name(key), "key": key, "forecast": expected, "actual": measured, "ratio": ratio, "level": level}
