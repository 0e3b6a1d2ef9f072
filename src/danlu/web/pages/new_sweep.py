"""A new sweep: what is trained, which values are tried, when losers are left, and what that will take."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from nicegui import ui

from danlu import bundled
from danlu.recipe.recommend import GOALS, Goal
from danlu.services.platform import datasets, models, recipes, runs, sweeps, views
from danlu.services.platform.recipes import Preview, PreviewedRun
from danlu.services.platform.sweeps import NewSweep, PreviewedSweep, SweepPreview
from danlu.services.platform.views import Draft
from danlu.store.projects import Project
from danlu.web import numbers
from danlu.web.components.elements import Text, badge, box, button, card, empty, fold, help_tip, note, paragraph, segmented
from danlu.web.components.fields import choice, text_field
from danlu.web.components.messages import guarded, in_language, toast
from danlu.web.components.preview import preview_card, waiting_card
from danlu.web.components.sweep_parts import setting_name, settings_line
from danlu.web.schema_fields import changes_to, fields_of, value_at, with_changes
from danlu.web.session import Session
from danlu.web.template import page
from danlu.web.words import CATALOGUE

DRAFT = "new_sweep"
FIRST = "optim.learning_rate"
"""What is tried until someone chooses: nothing matters more."""
RUNGS = ("2", "1", "0")
SHOWN_MEMBERS = 64
CONSTANTS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}


@dataclass
class Entered:
    """What was entered so far."""

    dataset: str = ""
    base_model: str = "danlu/tiny"
    goal: str = "task"
    name: str = ""
    rungs: str = "2"
    changes: dict[str, Any] = field(default_factory=dict)
    """Settings by dotted path that differ from what is recommended, for every member."""
    copied: dict[str, Any] = field(default_factory=dict)
    """Recipe of an earlier run, until what it differs in from what is recommended stands in `changes`."""
    tried: dict[str, str] = field(default_factory=dict)
    """Values to try by dotted path, as they were typed; empty text takes what is suggested."""

    @classmethod
    def from_draft(cls, values: dict[str, Any]) -> Entered:
        """What of a draft this version knows."""
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__ and isinstance(value, str | dict)}
        made = cls(**cast(dict[str, Any], known))
        made.goal = made.goal if made.goal in GOALS else "task"
        made.rungs = made.rungs if made.rungs in RUNGS else "2"
        return made


@page("/sweeps/new", title="sweeps.new", nav="sweeps")
async def show(s: Session) -> None:
    """One page: everything on it is kept until the sweep is started."""
    project = await s.project()
    with box("dl-col"):
        Text(s.t("sweeps.new"), "h1")
        paragraph(s.t("sweeps.new_intro"), "dl-sub")
    if project is None:
        with empty("tune", s.t("sweeps.new"), s.t("new_run.no_project")):
            button(s.t("home.title"), href="/", classes="primary")
        return
    form = Form(s, project, Entered.from_draft((await s.do(views.get_draft, DRAFT)).values))
    await form.begin()


def values_of(text: str) -> list[Any]:
    """Values with commas between, as people type them: `1e-4, 3e-4`."""
    for sign in "\uff0c\u3001;\uff1b":
        text = text.replace(sign, ",")
    return [_value(part.strip()) for part in text.split(",") if part.strip()]


def _value(text: str) -> Any:
    if text in CONSTANTS:
        return CONSTANTS[text]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def text_of(values: Iterable[Any]) -> str:
    """The same the other way round."""
    return ", ".join(numbers.plain(value) if isinstance(value, float) else str(value) for value in values)


class Form:
    """The page's state and its parts."""

    def __init__(self, s: Session, project: Project, entered: Entered) -> None:
        self.s, self.project, self.entered = s, project, entered
        self.alone: PreviewedRun | None = None
        """What one member takes."""
        self.suggestions: dict[str, list[Any]] = {}
        self.is_ready = False
        self.chosen = self.asked = 0
        """Count what was chosen and previewed, so that an old answer never replaces a newer one."""

    async def begin(self) -> None:
        """Take what the address names, and draw the page."""
        s, entered = self.s, self.entered
        if s.query("dataset"):
            self.entered = entered = Entered(dataset=str(s.query("dataset")), base_model=entered.base_model, goal=entered.goal)
        elif s.query("from"):
            await self._take_from(str(s.query("from")))
        elif s.query("draft") == "new-run":
            await self._take_draft()
        if s.request.query_params:
            await self.keep()
            ui.run_javascript("history.replaceState(null, '', '/sweeps/new')")  # what is changed now is not taken from there again by a reload
        own = [dataset.name for dataset in (await s.do(datasets.list_datasets, self.project.id, limit=200)).items]
        known = [model.name for model in await s.do(models.list_base_models)]
        with box("dl-split"):
            with box("dl-col wide"):
                with card(s.t("sweeps.what")):
                    self._what(own, known)
                self.settings = box("dl-col wide")
            with box("dl-col wide sticky"):
                self.beside = box("dl-card", "section")
                with box("dl-card", "section"):
                    entry = text_field(s.t("sweeps.name"), self.entered.name, maxlength=200)
                    entry.on("blur", guarded(s, lambda: self._named(str(entry.value or ""))), [])
                    button(s.t("sweeps.start"), guarded(s, self._start), classes="primary", symbol="play_arrow")
                self.one_alone = box("dl-card", "section")
        if self.entered.dataset:
            self._wait()
            ui.timer(0.05, guarded(s, self._recommend), once=True)
        else:
            self._ask_for_data()

    async def _take_from(self, run_id: str) -> None:
        """Begin with the recipe of a run, and what it tried when it was a sweep."""
        run = await self.s.do(runs.get_run, run_id)
        self.entered = Entered(dataset=run.recipe["dataset"], base_model=run.base_model, goal=self.entered.goal, copied=run.recipe)
        if any(job.kind == "sweep" for job in await self.s.do(runs.list_run_jobs, run_id)):
            sweep = (await self.s.do(sweeps.get_sweep, run_id)).sweep
            self.entered.tried = {path: text_of(values) for path, values in sweep["set"].items()}
            self.entered.rungs = str(sweep["rungs"]) if str(sweep["rungs"]) in RUNGS else "2"

    async def _take_draft(self) -> None:
        """Begin with what was entered under New run."""
        before = (await self.s.do(views.get_draft, "new_run")).values
        taken: dict[str, Any] = {name: before[name] for name in ("dataset", "base_model", "goal", "changes", "copied", "name") if name in before}
        self.entered = Entered.from_draft(taken)

    async def keep(self) -> None:
        """Remember what was entered."""
        await self.s.do(views.save_draft, DRAFT, Draft(values=vars(self.entered)))

    def _what(self, own: list[str], known: list[str]) -> None:
        s, entered = self.s, self.entered
        examples = {name: s.t(f"new_run.data_{name.removeprefix(bundled.PREFIX)}") for name in bundled.example_names()}
        data = {name: name for name in own} | examples
        if entered.dataset and entered.dataset not in data:
            data = {entered.dataset: entered.dataset, **data}
        bases = {name: name for name in dict.fromkeys([*known, entered.base_model])}
        with box("dl-formgrid"):
            self._choice(s.t("sweeps.data"), data, entered.dataset or None, "dataset")
            self._choice(s.t("sweeps.model"), bases, entered.base_model, "base_model")
            self._choice(s.t("sweeps.goal"), {name: s.t(f"new_run.goal_{name}") for name in GOALS}, entered.goal, "goal")
        self.changed = paragraph("", "dl-small dl-muted")

    def _choice(self, label: str, options: dict[str, str], value: str | None, name: str) -> None:
        def change(event: Any) -> None:
            setattr(self.entered, name, event.value)
            self.entered.changes, self.entered.copied = {}, {}
            if self.entered.dataset:
                self._wait()
                ui.timer(0.05, guarded(self.s, self._recommend), once=True)

        with box("dl-field"):
            Text(label, "span", "dl-label")
            choice(label, options, value, change)

    def _ask_for_data(self) -> None:
        with self.beside:
            Text(self.s.t("sweeps.choose_data"), "h2")
            paragraph(self.s.t("sweeps.choose_data_text"), "dl-muted")
        self.one_alone.set_visibility(False)

    def _wait(self) -> None:
        self.is_ready = False
        self.one_alone.set_visibility(False)
        self.beside.clear()
        with self.beside:
            waiting_card(self.s)

    async def _recommend(self) -> None:
        """What is recommended for this data, model and goal, and which values around it are worth trying."""
        s, entered = self.s, self.entered
        self.chosen += 1
        mine = self.chosen
        written: dict[str, Any] = {"base_model": entered.base_model, "dataset": entered.dataset}
        objective = entered.changes.get("objective.type") or entered.copied.get("objective")
        if objective:
            written["objective"] = objective
        found = await s.do(recipes.preview_run, self.project.id, Preview(recipe=written, goal=cast(Goal, entered.goal)))
        if found.recipe is not None and mine == self.chosen:
            if entered.copied:
                entered.changes, entered.copied = changes_to(found.recipe, entered.copied), {}
            if entered.changes:
                found = await s.do(recipes.preview_run, self.project.id, Preview(recipe=with_changes(found.recipe, entered.changes)))
        if mine != self.chosen:
            return
        self.alone = found
        self.settings.clear()
        if self.alone.recipe is None:
            self.beside.clear()
            with self.beside:
                preview_card(s, self.alone, guarded(s, self._take))
            return
        self.suggestions = (await s.do(sweeps.preview_sweep, self.project.id, SweepPreview(recipe=self.alone.recipe))).suggestions
        if not entered.tried and FIRST in self.suggestions:
            entered.tried = {FIRST: ""}
        await self.keep()
        self._draw_settings()
        await self._preview()
        self._draw_alone()

    @property
    def recipe(self) -> dict[str, Any]:
        """What all members share, with nothing left open."""
        assert self.alone is not None and self.alone.recipe is not None
        return self.alone.recipe

    def _draw_settings(self) -> None:
        s, entered = self.s, self.entered
        self.changed.text = s.t("sweeps.changes", number=len(entered.changes)) if entered.changes else ""
        self.settings.clear()
        with self.settings:
            with card(s.t("sweeps.try")):
                for path in dict.fromkeys([*self.suggestions, *entered.tried]):
                    self._setting(path)
                others = [item.path for item in fields_of(self.recipe) if item.kind in ("number", "choice", "switch")]
                names = {
                    path: path for path in others if path not in self.suggestions and path not in entered.tried and "." in path and not path.endswith(".type")
                }
                with box("dl-field"):
                    Text(s.t("sweeps.other"), "span", "dl-label")
                    choice(s.t("sweeps.other"), names, None, guarded(s, self._add)).style("max-width: 420px")
            with card(s.t("sweeps.comparisons")):
                paragraph(s.t("sweeps.comparisons_text"), "dl-muted")
                with box("dl-row"):
                    segmented({name: s.t(f"sweeps.rungs_{name}") for name in RUNGS}, entered.rungs, guarded(s, self._compared), s.t("sweeps.comparisons"))

    def _setting(self, path: str) -> None:
        """One setting: whether it is tried, why one would, and with which values."""
        s, name = self.s, setting_name(self.s, path)
        usual = text_of(self.suggestions.get(path, []))
        with box("dl-try"):
            with box("dl-row"), box("dl-row", "label"):
                tick = box("", "input").props("type=checkbox")
                tick._props["checked"] = path in self.entered.tried
                tick._props["aria-label"] = s.t("sweeps.use", name=name)
                Text(name, "span", "dl-strong")
                if name != path:
                    Text(path, "span", "dl-mono dl-muted")
            entry = text_field(s.t("sweeps.values", name=name), self.entered.tried.get(path) or usual)
            entry.set_enabled(path in self.entered.tried)
            if (key := f"sweeps.help_{path.replace('.', '_')}") in CATALOGUE:
                paragraph(s.t(key), "dl-small dl-muted")

        async def use(is_tried: bool) -> None:
            entry.set_enabled(is_tried)
            if is_tried:
                self.entered.tried[path] = str(entry.value or "")
            else:
                self.entered.tried.pop(path, None)
            await self._changed()

        async def typed() -> None:
            self.entered.tried[path] = str(entry.value or "")
            await self._changed()

        tick.on("change", guarded(s, lambda event: use(bool(event.args))), js_handler="(e) => emit(e.target.checked)")
        entry.on("change", guarded(s, typed), [])

    async def _add(self, event: Any) -> None:
        """One more setting, beginning with the value it has."""
        self.entered.tried[str(event.value)] = text_of([value_at(self.recipe, str(event.value), "")])
        self._draw_settings()
        await self._changed()

    async def _compared(self, rungs: str) -> None:
        self.entered.rungs = rungs
        await self._changed()

    async def _named(self, name: str) -> None:
        self.entered.name = name.strip()
        await self.keep()

    async def _changed(self) -> None:
        await self.keep()
        await self._preview()

    def _sweep(self) -> dict[str, Any]:
        """What is tried, as the operation takes it."""
        values = {path: values_of(text) or self.suggestions.get(path, []) for path, text in self.entered.tried.items()}
        return {"set": values, "rungs": int(self.entered.rungs)} if values else {}

    async def _preview(self) -> None:
        self.asked += 1
        mine = self.asked
        assert self.alone is not None
        num_steps = (self.alone.forecast or {}).get("num_steps")
        found = await self.s.do(sweeps.preview_sweep, self.project.id, SweepPreview(recipe=self.recipe, sweep=self._sweep(), num_steps=num_steps))
        if mine == self.asked:
            self.is_ready = found.is_ready and found.num_members > 1
            self._draw_preview(found, num_steps)

    def _draw_preview(self, found: PreviewedSweep, num_steps: int | None) -> None:
        s, is_ready = self.s, self.is_ready
        self.beside.clear()
        with self.beside:
            with box("dl-row between"):
                Text(s.t("sweeps.preview_members"), "h2")
                badge(s.t("preview.ready" if is_ready else "preview.not_ready"), "good" if is_ready else "bad")
            for mistake in found.mistakes:
                note(in_language(s, mistake), "bad")
            if not found.mistakes and found.num_members < 2:
                note(s.t("sweeps.not_whole"), "warn")
            if found.num_members:
                Text(s.t("sweeps.members", number=found.num_members), "div", "dl-num")
            if num_steps is not None and found.num_steps is not None:
                for rung in found.rungs:
                    paragraph(s.t("sweeps.preview_rung", step=rung.step, total=num_steps, number=rung.num_members), "dl-small dl-muted")
                if found.rungs:
                    share = 1 - found.num_steps / (found.num_members * num_steps)
                    paragraph(s.t("sweeps.preview_saved", share=f"{share:.0%}"), "dl-small dl-muted")
            if found.members:
                with fold(s.t("sweeps.members_list")), box("dl-col"):
                    for settings in found.members[:SHOWN_MEMBERS]:
                        settings_line(s, settings)
                    if len(found.members) > SHOWN_MEMBERS:
                        Text("\u2026")

    def _draw_alone(self) -> None:
        """What one member takes by itself."""
        s = self.s
        assert self.alone is not None
        self.one_alone.clear()
        self.one_alone.set_visibility(True)
        with self.one_alone:
            with box("dl-row"):
                Text(s.t("sweeps.one_alone"), "h2")
                help_tip(s, s.t("sweeps.preview_text"))
            preview_card(s, self.alone, guarded(s, self._take))

    async def _take(self, changes: dict[str, Any]) -> None:
        """Take settings that are offered, for all members."""
        self.entered.changes |= changes
        self._wait()
        await self._recommend()

    async def _start(self) -> None:
        s, entered = self.s, self.entered
        if not self.is_ready:
            toast(s, s.t("preview.not_ready"))
            return
        made = await s.do(sweeps.submit_sweep, self.project.id, NewSweep(recipe=self.recipe, sweep=self._sweep(), name=entered.name))
        await s.do(views.save_draft, DRAFT, Draft())
        ui.navigate.to(f"/sweeps/{made.id}")
