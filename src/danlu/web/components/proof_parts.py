"""Parts of the proof: the verdict, the forest of metrics, an example with both answers."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from danlu.evaluation.report import words
from danlu.evaluation.report.charts import nice_ticks
from danlu.services.platform.proofs import Proof
from danlu.web.components.elements import STATE_TONES, Text, box, paragraph, state_badge
from danlu.web.session import Session
from danlu.web.text_diff import compared

WIDTH, HEIGHT, EDGE = 300, 24, 8
LOWER_IS_BETTER = ("nll_per_token", "perplexity", "nll_per_byte")
ALIKE_SHARE = 0.3
"""Answers that share less are shown side by side as they are: marks on everything would hide both."""


def share(s: Session, number: float | None) -> str:
    """A change as percent, as the language writes it."""
    told = words.percent(number)
    return told.replace(" %", "%") if s.language == "zh" else told


def verdict_banner(s: Session, proof: Proof) -> None:
    """The verdict in words that need no training in statistics."""
    verdict = proof.verdict
    if verdict is None:
        with box("dl-verdict warn", "section"):
            Text(s.t("proof.no_verdict"), "div", "big")
        return
    with box(f"dl-verdict {STATE_TONES.get(verdict['label'], '')}", "section"):
        with box("dl-row"):
            Text(s.t(f"state.{verdict['label']}"), "div", f"big dl-{STATE_TONES.get(verdict['label'], '')}")
            if verdict.get("relative") is not None:
                Text(f"{s.pick(words.name(verdict['metric']))} {share(s, verdict['relative'])}", "div", "big")
                if verdict["metric"] in LOWER_IS_BETTER:
                    Text(s.t("proof.lower_is_better"), "span", "dl-muted dl-small")
        paragraph(s.pick(verdict["text"]))
        if proof.heldout:
            paragraph(s.t("proof.rests_on", count=proof.heldout["num_examples"]), "dl-muted dl-small")


def forest(s: Session, metrics: dict[str, Any]) -> None:
    """One line for each metric: both scores, the change with its interval, and what it means."""
    with box("dl-table cards", "table"):
        Text(s.t("proof.forest"), "caption", "dl-skip")
        with box("", "thead"), box("", "tr"):
            for key, classes in (("metric", ""), ("base", "right"), ("tuned", "right"), ("change", ""), ("wins", "right"), ("p", "right")):
                Text(s.t(f"proof.{key}"), "th", classes).props("scope=col")
        with box("", "tbody"):
            for name, entry in metrics.items():
                with box("", "tr"):
                    with box("", "td"), box("dl-row"):
                        Text(s.pick(words.name(name)), "span", "dl-strong")
                        state_badge(s, entry["label"])
                    _cell(s, "base", words.value(entry["base"], entry["unit"]))
                    _cell(s, "tuned", words.value(entry["tuned"], entry["unit"]))
                    with _labelled(s, "change", ""), box().style("flex: 1; min-width: 0"):
                        ui.html(_interval(entry, _spoken(s, name, entry)), sanitize=False)
                        Text(_change(entry), "div", "dl-small dl-muted dl-center")
                    _cell(s, "wins", f"{entry['wins']} / {entry['ties']} / {entry['losses']}")
                    _cell(s, "p", words.p_value(entry["p"]))


def _spoken(s: Session, name: str, entry: dict[str, Any]) -> str:
    base, tuned = words.value(entry["base"], entry["unit"]), words.value(entry["tuned"], entry["unit"])
    return s.t("proof.summary_metric", name=s.pick(words.name(name)), base=base, tuned=tuned, verdict=s.t(f"state.{entry['label']}"))


def _change(entry: dict[str, Any]) -> str:
    """The change as a number, with its interval."""
    delta, *ends = (words.signed(number, entry["unit"]) for number in (entry["delta"], *entry["ci"]))
    return delta if None in entry["ci"] else f"{delta} [{', '.join(ends)}]"


def _labelled(s: Session, key: str, classes: str) -> ui.element:
    made = box(classes, "td")
    made._props["data-label"] = s.t(f"proof.{key}")
    return made


def _cell(s: Session, key: str, text: str) -> None:
    with _labelled(s, key, "right"):
        Text(text)


def _interval(entry: dict[str, Any], label: str) -> str:
    """The change with its interval beside a line at zero; right of the line is better. Numbers only, so nothing needs escaping but the label."""
    from html import escape

    sign = 1 if entry["higher_is_better"] else -1
    low, high = entry["ci"]
    ends = sorted(sign * end for end in (low, high) if end is not None) or [sign * entry["delta"]] * 2
    reach = nice_ticks(0, max(abs(ends[0]), abs(ends[1]), abs(entry["delta"])) or 1.0, 2)[-1]

    def x(value: float) -> float:
        return round(WIDTH / 2 + value / reach * (WIDTH / 2 - EDGE), 1)

    color = f"var(--{STATE_TONES.get(entry['label']) or 'muted'})"
    middle = HEIGHT / 2
    return (
        f'<svg class="dl-forest" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f'<line x1="{WIDTH / 2}" x2="{WIDTH / 2}" y1="0" y2="{HEIGHT}" stroke="var(--control-line)" stroke-dasharray="3 3"/>'
        f'<line x1="{x(ends[0])}" x2="{x(ends[1])}" y1="{middle}" y2="{middle}" stroke="{color}" stroke-width="3"/>'
        f'<rect x="{x(sign * entry["delta"]) - 3}" y="{middle - 5}" width="6" height="10" fill="{color}"/></svg>'
    )


def case(s: Session, found: dict[str, Any]) -> None:
    """A held-out example: what was asked, what was wanted, and both answers with their differences."""
    with box("dl-case", "article"):
        with box("dl-row between"):
            Text(s.t("proof.case", line=found["line"] if found["line"] is not None else found["example"]), "span", "dl-small dl-muted")
            loss = found["nll_per_token"]
            tone = "good" if loss["delta"] < 0 else "bad"
            Text(s.t("proof.loss_change", base=f"{loss['base']:.2f}", tuned=f"{loss['tuned']:.2f}"), "span", f"dl-small dl-{tone}")
        for message in found["prompt"]:
            Text(message["content"], "div", "dl-text dl-strong")
        base, tuned = found["answers"]["base"], found["answers"]["tuned"]
        with box("dl-grid3"):
            _answer(s.t("proof.answer_wanted"), [("same", found["reference"] or "\u2013")])
            if tuned is None or base is None:
                _answer(s.t("proof.answer_tuned"), [("same", tuned or s.t("proof.answer_none"))])
            else:
                pieces = compared(base, tuned)
                is_alike = sum(len(text) for kind, text in pieces if kind == "same") >= ALIKE_SHARE * max(len(base), len(tuned))
                _answer(s.t("proof.answer_base"), pieces if is_alike else [("same", base)], leave_out="new")
                _answer(s.t("proof.answer_tuned"), pieces if is_alike else [("same", tuned)], leave_out="old")


def _answer(title: str, pieces: list[Any], leave_out: str = "") -> None:
    with box():
        Text(title, "div", "dl-small dl-muted")
        with box("dl-text"):
            for kind, text in (piece for piece in pieces if piece[0] != leave_out):
                Text(text, {"same": "span", "old": "del", "new": "ins"}[kind], "" if kind == "same" else "dl-diff")
