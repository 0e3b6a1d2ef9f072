"""The card beside a form that starts work: what will happen, and whether it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import ui

from danlu.errors import error_from
from danlu.services.platform.recipes import Obstacle, PreviewedRun
from danlu.web import numbers
from danlu.web.components.elements import Text, badge, bar, box, button, fold, help_tip, note, pairs, paragraph
from danlu.web.components.messages import in_error_words, original
from danlu.web.session import Session
from danlu.web.words import CATALOGUE

Apply = Callable[[dict[str, Any]], Any]


def waiting_card(s: Session) -> None:
    """While data and model are looked at."""
    with box("dl-row"):
        ui.spinner(size="18px").props("aria-hidden=true")
        Text(s.t("preview.waiting"), "span", "dl-muted")


def preview_card(s: Session, found: PreviewedRun, apply: Apply) -> None:
    """Ready or not, with the reason and the button that fixes it; then the numbers."""
    with box("dl-row between"):
        Text(s.t("preview.title"), "h2")
        badge(s.t("preview.ready" if found.is_ready else "preview.not_ready"), "good" if found.is_ready else "bad")
    for problem in found.problems:
        _problem(s, problem, apply)
    if found.forecast is None:
        return
    forecast = found.forecast
    needed, available = forecast["memory"]["peak_bytes"], forecast["available_bytes"]
    with box("dl-col"):
        with box("dl-row between"):
            with box("dl-row"):
                Text(s.t("preview.memory"), "span", "dl-muted")
                help_tip(s, s.t("preview.memory_means"))
            Text(s.t("preview.memory_text", needed=numbers.size(needed), available=numbers.size(available)), "span", "dl-small")
        tone = {"fits": "good", "tight": "warn"}.get(forecast["fit"], "bad")
        bar(needed / max(1, available), s.t("preview.memory"), tone)  # type: ignore[arg-type]
    seconds = forecast.get("training_seconds")
    rows = [
        (s.t("preview.examples"), numbers.count(forecast["num_examples"])),
        (s.t("preview.steps"), numbers.count(forecast["num_steps"])),
        (s.t("preview.tokens"), numbers.count(forecast["num_tokens"])),
        (
            s.t("preview.trained"),
            f"{numbers.count(forecast['trained_parameters'])} ({forecast['trained_parameters'] / max(1, forecast['model_parameters']):.1%})",
        ),
        (s.t("preview.disk"), s.t("preview.disk_text", needed=numbers.size(forecast["disk_bytes"]), free=numbers.size(found.free_disk_bytes))),
        (s.t("preview.truncated"), f"{forecast['truncated_share']:.1%}" if forecast["truncated_share"] else "0%"),
        (s.t("preview.ahead"), numbers.count(found.num_jobs_ahead)),
    ]
    if seconds is not None:
        rows.insert(3, (s.t("preview.time"), numbers.duration(seconds, s.language)))
    if forecast.get("cost") is not None:
        rows.append((s.t("preview.cost"), numbers.short(forecast["cost"])))
    pairs(rows)
    if seconds is None:
        paragraph(s.t("preview.time_unknown"), "dl-small dl-muted")
    if forecast["fit"] != "fits" and forecast["alternatives"]:
        with fold(s.t("preview.alternatives")), box("dl-col"):
            for option in forecast["alternatives"]:
                with box("dl-row between"):
                    Text(option["zh" if s.language == "zh" else "en"], "span", "dl-small").style("flex: 1 1 160px")
                    button(s.t("preview.apply"), lambda changes=option["changes"]: apply(changes), classes="small")


def _problem(s: Session, problem: Obstacle, apply: Apply) -> None:
    key = f"preview.problem_{problem.code}"
    error = error_from({"code": problem.code, "what": problem.what, "why": problem.why, "fix": problem.fix})
    told = in_error_words(s, error)
    with note(s.t(key) if key in CATALOGUE else told.what, "bad"):
        Text(told.why, "div", "dl-small dl-text")
        Text(told.fix, "div", "dl-small dl-text")
        if told.what != problem.what:
            original(s, str(error))
        if problem.changes:
            with box("dl-row"):
                button(s.t("preview.fixes"), lambda: apply(problem.changes), classes="small")
