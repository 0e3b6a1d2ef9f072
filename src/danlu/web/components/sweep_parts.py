"""Parts of the page of a sweep, each drawn from the table of its members."""

from __future__ import annotations

from typing import Any

from danlu.services.platform.sweeps import MemberCurves, SweepMember, SweepTable
from danlu.web import numbers
from danlu.web.components.data_table import DataTable
from danlu.web.components.elements import Text, Tone, box, card, fold, paragraph
from danlu.web.components.line_chart import Line, LineChart, look_of
from danlu.web.session import Session
from danlu.web.words import CATALOGUE

SHOWN_CURVES = 12
"""Members whose curves are drawn: the best."""
TONES: dict[str, Tone] = {"training": "accent", "trained": "good", "left": "warn", "failed": "bad"}


def setting_name(s: Session, path: str) -> str:
    """A setting as people call it; its path, where they have no word for it."""
    key = f"sweeps.name_{path.replace('.', '_')}"
    return s.t(key) if key in CATALOGUE else path


def tried(s: Session, sweep: dict[str, Any]) -> str:
    """What a sweep tries, in one line."""
    values = {path: numbers.setting(given) for path, given in sweep["set"].items()} | sweep["space"]
    return s.t("basic.semicolon").join(f"{setting_name(s, path)}{s.t('basic.colon')}{text}" for path, text in values.items())


def _columns(s: Session, table: SweepTable) -> list[dict[str, Any]]:
    paths = [*table.sweep["set"], *table.sweep["space"]]
    return [
        {"name": "rank", "label": s.t("sweeps.column_rank")},
        *({"name": f"set {path}", "label": setting_name(s, path)} for path in paths),
        {"name": "loss", "label": s.t("sweeps.column_loss"), "align": "right"},
        {"name": "steps", "label": s.t("sweeps.column_steps"), "align": "right"},
        {"name": "state", "label": s.t("sweeps.column_state"), "type": "badge"},
    ]


def _row(s: Session, table: SweepTable, member: SweepMember) -> dict[str, Any]:
    of = f"{member.steps} / {numbers.count(member.num_steps)}" if member.num_steps else "\u2013"
    told = {f"set {path}": numbers.setting(value) for path, value in member.settings.items()}
    state = [_state(s, table, member), "good" if member.name == table.best else TONES.get(member.state, "")]
    return {"key": member.name, "rank": f"#{member.rank}", "loss": numbers.short(member.validation_loss), "steps": of, "state": state, **told}


def _state(s: Session, table: SweepTable, member: SweepMember) -> str:
    """How a member stands: the best one is called so, and what was interrupted does not train."""
    if member.name == table.best:
        return s.t("sweeps.best")
    if member.state == "left":
        return s.t("sweeps.left_at", step=member.steps)
    is_at_work = table.state in ("running", "proving")
    return s.t(f"sweeps.state_{member.state if is_at_work or member.state != 'training' else 'unfinished'}")


class MemberTable:
    """The ranked members."""

    def __init__(self, s: Session, table: SweepTable) -> None:
        self.s = s

        async def read(after: str | None) -> tuple[list[dict[str, Any]], str | None]:
            return [], None  # all of them are on one page

        with card(s.t("sweeps.table"), "flush"), box("dl-scroll"):
            self.shown = DataTable(s, s.t("sweeps.table"), _columns(s, table), read, ([], None))
        self.update(table)

    def update(self, table: SweepTable) -> None:
        """Show how they stand now."""
        self.shown.replace([_row(self.s, table, member) for member in table.members])


class MemberCharts:
    """Curves of the best members together: validation loss large, training loss below."""

    def __init__(self, s: Session, file_name: str) -> None:
        self.s = s
        self.looks: dict[str, dict[str, Any]] = {}
        """Colour and dashes of each member, which it keeps whatever its rank becomes."""
        self.validation = LineChart(s, s.t("sweeps.curves_validation"), [], tip=s.t("glossary.loss_means"), file_name=f"{file_name}-validation")
        with fold(s.t("sweeps.curves_train")):
            self.train = LineChart(s, s.t("sweeps.curves_train"), [], file_name=f"{file_name}-train", can_smooth=True)
        self.note = paragraph("", "dl-small dl-muted")

    def update(self, table: SweepTable, curves: list[MemberCurves]) -> None:
        """Draw what was measured."""
        settings = {member.name: member.settings for member in table.members}
        for name in sorted(settings):
            self.looks.setdefault(name, look_of(len(self.looks)))
        for chart, kind, has_dots in ((self.validation, "validation", True), (self.train, "train", False)):
            chart.replace(
                [
                    Line(_label(one.name, settings.get(one.name, {})), points=points, smooth=not has_dots, dots=has_dots, **self.looks[one.name])
                    for one in curves
                    if one.name in self.looks and (points := _points(one, kind))
                ]
            )
        is_part = 0 < len(curves) < len(table.members)
        self.note.text = self.s.t("sweeps.curves_of", number=len(curves), total=len(table.members)) if is_part else ""


def _label(name: str, settings: dict[str, Any]) -> str:
    return f"{name}: " + " \u00b7 ".join(numbers.setting(value) for value in settings.values())


def _points(member: MemberCurves, kind: str) -> list[list[float]]:
    return [[step, value] for curve in member.curves if curve.kind == kind for step, value in zip(curve.steps, curve.values, strict=True)]


def facts_of(s: Session, table: SweepTable) -> list[tuple[str, str]]:
    """How many members stand how."""
    states = [member.state for member in table.members]
    best = min((member.validation_loss for member in table.members if member.validation_loss is not None), default=None)
    counts = [("trained", "trained"), ("left", "left")] + ([("failed", "failed")] if "failed" in states else [])
    if table.state != "finished":
        counts.insert(0, ("going", "training"))
    told = [(s.t("sweeps.fact_members"), numbers.count(table.num_members)), (s.t("sweeps.fact_best"), numbers.short(best))]
    return told + [(s.t(f"sweeps.fact_{name}"), numbers.count(states.count(state))) for name, state in counts]


def settings_line(s: Session, settings: dict[str, Any]) -> None:
    """Settings with their values, side by side."""
    with box("dl-row wide"):
        for path, value in settings.items():
            with box("dl-row"):
                Text(setting_name(s, path), "span", "dl-muted")
                Text(numbers.setting(value), "span", "dl-strong")
