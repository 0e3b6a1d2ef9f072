"""Which rows a run uses: what is held back, what is mixed in, and an earlier run that it goes on from. In words of people, over the recipe's settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from nicegui import ui

from danlu import bundled
from danlu.services.platform import datasets, runs
from danlu.store.projects import Project
from danlu.store.runs import Run
from danlu.web import numbers
from danlu.web.components.elements import Text, box, button, card, fold, help_tip, note, paragraph
from danlu.web.components.fields import choice, text_field
from danlu.web.components.messages import guarded
from danlu.web.schema_fields import value_at
from danlu.web.session import Session

GENERAL = "general"
"""Conversations of all kinds that come with Danlu; mixed in so that less is forgotten."""
FEW_FOR_PROOF, FEW_TO_WATCH = 50, 10
USUAL_SHARE = 0.2
SHOWN = 50


@dataclass(frozen=True)
class Doors:
    """How the form takes a change: of one setting, or of several at once after which all settings are drawn anew."""

    change: Callable[[str, Any], Awaitable[None]]
    change_all: Callable[[dict[str, Any], tuple[str, ...]], Awaitable[None]]
    """New values by path, and paths to go back to what is recommended."""


class DataSettings:
    """The card."""

    def __init__(self, s: Session, project: Project, doors: Doors) -> None:
        self.s, self.project, self.doors = s, project, doors
        self.sources: dict[str, str] = {}
        """What can be mixed in, with the name people know it by."""
        self.runs: list[Run] = []
        self.told: ui.element | None = None
        self.split: dict[str, int] | None = None

    async def load(self) -> None:
        """Find what can be chosen."""
        s = self.s
        own = (await s.do(datasets.list_datasets, self.project.id, limit=SHOWN)).items
        names = {name: s.t(f"new_run.data_{name.removeprefix(bundled.PREFIX)}") for name in bundled.example_names()}
        self.sources = {one.name: one.name for one in own} | names | {GENERAL: s.t("new_run.mix_general")}
        self.runs = (await s.do(runs.list_runs, self.project.id, state="succeeded", limit=SHOWN)).items

    def draw(self, recipe: dict[str, Any]) -> None:
        """Show what the recipe says."""
        s = self.s
        with card(s.t("new_run.rows"), tip=s.t("new_run.rows_tip"), s=s):
            self._held_back(recipe)
            self._mixed_in(recipe)
            self._earlier(recipe)
        self.tell(self.split)

    def tell(self, split: dict[str, int] | None) -> None:
        """Say how many rows it makes, once that is known."""
        self.split = split
        if self.told is None or self.told.is_deleted:
            return
        s = self.s
        self.told.clear()
        if split is None:
            return
        with self.told:
            shown = {name: f"{count:,}" for name, count in split.items()}
            paragraph(s.t("new_run.rows_text", train=shown["train"], validation=shown["validation"], test=shown["test"]))
            if split["mixed_in"]:
                paragraph(s.t("new_run.rows_mixed", number=shown["mixed_in"]))
            if split["test"] < FEW_FOR_PROOF:
                note(s.t("new_run.rows_no_proof" if not split["test"] else "new_run.rows_few_proof", number=split["test"]), "warn")
            if split["validation"] < FEW_TO_WATCH:
                note(s.t("new_run.rows_no_watch" if not split["validation"] else "new_run.rows_few_watch", number=split["validation"]), "warn")

    def _held_back(self, recipe: dict[str, Any]) -> None:
        s = self.s
        paragraph(s.t("new_run.held_text"), "dl-muted dl-small")
        with box("dl-formgrid"):
            for path in ("data.split.validation", "data.split.test"):
                self._share(s.t(f"new_run.held_{path.rpartition('.')[2]}"), s.t(f"new_run.held_{path.rpartition('.')[2]}_tip"), path, recipe)
            with box("dl-field"):
                with box("dl-row"):
                    Text(s.t("new_run.seed"), "span", "dl-strong")
                    help_tip(s, s.t("new_run.seed_tip"))
                entry = text_field(s.t("new_run.seed"), str(recipe.get("seed", 0)), maxlength=20)
                entry.props("inputmode=numeric")
                entry.on("change", guarded(s, lambda: self.doors.change("seed", _whole(str(entry.value or "")))), [])
        self.told = box("dl-col").props("aria-live=polite")

    def _share(self, label: str, tip: str, path: str, recipe: dict[str, Any]) -> None:
        s = self.s
        with box("dl-field"):
            with box("dl-row"):
                Text(label, "span", "dl-strong")
                help_tip(s, tip)
            entry = _percent(label, float(value_at(recipe, path, 0.1)))
            entry.on("change", guarded(s, lambda: self.doors.change(path, _as_share(str(entry.value or "")))), [])

    def _mixed_in(self, recipe: dict[str, Any]) -> None:
        s, mix = self.s, dict(value_at(recipe, "data.mix", {}))
        Text(s.t("new_run.mix"), "h3")
        paragraph(s.t("new_run.mix_text"), "dl-muted dl-small")

        async def save(name: str, share: Any) -> None:
            changed = mix | {name: share} if share is not None else {key: kept for key, kept in mix.items() if key != name}
            await self.doors.change_all({"data.mix": changed}, ())

        for name, share in mix.items():
            with box("dl-row"):
                Text(self.sources.get(name.partition("@")[0]) or name, "span", "dl-text").style("flex: 1 1 160px")
                entry = _percent(s.t("new_run.mix_share", name=name), float(share)).style("flex: 0 0 112px")
                entry.on("change", guarded(s, partial(self._typed_share, save, name, entry)), [])
                button(s.t("new_run.mix_remove"), guarded(s, partial(save, name, None)), classes="small")
        taken = {name.partition("@")[0] for name in (*mix, str(recipe.get("dataset")))}
        left = {name: label for name, label in self.sources.items() if name not in taken}
        if left:
            with box("dl-row"):
                chosen = choice(s.t("new_run.mix_add"), {"": s.t("new_run.mix_choose"), **left}, "")
                chosen.style("flex: 1 1 200px; max-width: 320px")
                chosen.on_value_change(guarded(s, lambda event: save(event.value, USUAL_SHARE)))

    async def _typed_share(self, save: Callable[[str, Any], Awaitable[None]], name: str, entry: ui.input) -> None:
        await save(name, _as_share(str(entry.value or "")))

    def _earlier(self, recipe: dict[str, Any]) -> None:
        """Rows of an earlier run again, and its weights to start from."""
        s, replay = self.s, value_at(recipe, "data.replay")
        chosen = str((replay or {}).get("run") or recipe.get("start_from") or "")
        with fold(s.t("new_run.round")) as made, box("dl-col"):
            if chosen:
                made.props("open")
            paragraph(s.t("new_run.round_text"), "dl-muted dl-small")
            if not self.runs and not chosen:
                paragraph(s.t("new_run.round_none"), "dl-small")
                return
            names = {"": s.t("new_run.round_no"), **{run.id: run.name for run in self.runs}}
            names.setdefault(chosen, chosen)
            with box("dl-row"):
                choice(s.t("new_run.round_run"), names, chosen, guarded(s, self._round)).style("flex: 1 1 200px; max-width: 320px")
                if replay:
                    entry = _percent(s.t("new_run.round_share"), float(replay["share"])).style("flex: 0 0 112px")
                    entry.on("change", guarded(s, lambda: self._round_share(chosen, str(entry.value or ""))), [])
                    Text(s.t("new_run.round_share"), "span", "dl-small dl-muted")
            if chosen:
                self._start_from(recipe, chosen)

    def _start_from(self, recipe: dict[str, Any], chosen: str) -> None:
        s, run = self.s, next((run for run in self.runs if run.id == chosen), None)
        if run is not None and run.base_model != recipe["base_model"]:
            paragraph(s.t("new_run.round_other_base", name=run.base_model), "dl-small dl-muted")
            return
        made = ui.switch(
            s.t("new_run.round_weights"), value=recipe.get("start_from") == chosen, on_change=guarded(s, lambda event: self._weights(run, event.value))
        )
        made.props("dense")
        paragraph(s.t("new_run.round_weights_text"), "dl-small dl-muted")

    async def _round(self, event: Any) -> None:
        changes = {"data.replay": {"run": event.value, "share": USUAL_SHARE}} if event.value else {}
        await self.doors.change_all(changes, ("start_from", "method", "data.replay"))

    async def _round_share(self, run_id: str, text: str) -> None:
        await self.doors.change_all({"data.replay": {"run": run_id, "share": _as_share(text)}}, ())

    async def _weights(self, run: Run | None, is_on: bool) -> None:
        """Start from the run's weights, which takes its method as well; or from the base model again."""
        if run is None or not is_on:
            await self.doors.change_all({}, ("start_from", "method"))
            return
        method = dict((run.resolved or run.recipe)["method"])
        settings = {"method.type": method.pop("type"), **{f"method.{name}": value for name, value in method.items()}}
        await self.doors.change_all({"start_from": run.id, **settings}, ("method",))


def _percent(label: str, share: float) -> ui.input:
    """A share as people write it."""
    made = text_field(label, numbers.plain(round(100 * share, 4)), maxlength=8)
    made.props('suffix="%" input-class=text-right inputmode=decimal')
    return made


def _as_share(text: str) -> Any:
    """The share that was typed as a percentage; what is none is passed on, and told beside the preview."""
    try:
        return round(float(text.strip().rstrip("%").strip()) / 100, 6)
    except ValueError:
        return text


def _whole(text: str) -> Any:
    return int(text) if text.strip().isdigit() else text
