"""Three steps to a run: data, model and goal, review. What is entered is kept until it is sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

from nicegui import ui

from danlu import bundled
from danlu.recipe.recommend import GOALS
from danlu.services.platform import datasets, models, recipes, runs, sweeps, views
from danlu.services.platform.jobs import Priority
from danlu.services.platform.models import BaseModelChoice
from danlu.services.platform.recipes import Preview, PreviewedRun, RecipeText
from danlu.services.platform.runs import NewRun
from danlu.services.platform.views import Draft
from danlu.store.datasets import Dataset
from danlu.store.projects import Project
from danlu.web import numbers
from danlu.web.components.data_settings import DataSettings, Doors
from danlu.web.components.elements import Text, badge, box, button, card, empty, fold, note, option, paragraph, segmented
from danlu.web.components.fields import text_area, text_field
from danlu.web.components.fit_badge import facts, fit_sentence, fit_word
from danlu.web.components.messages import guarded, in_language
from danlu.web.components.preview import preview_card, waiting_card
from danlu.web.components.schema_form import SchemaForm
from danlu.web.components.start_form import Entered, StartCard, StartForm
from danlu.web.schema_fields import FormField, fields_of, value_at
from danlu.web.session import Session
from danlu.web.template import page

STEPS = ("data", "model", "review")
SIMPLE = ("method.type", "method.rank", "optim.learning_rate", "optim.num_epochs", "optim.global_batch_size", "data.max_seq_len", "data.mix")
"""Reasons that the simple form shows; the others are in the advanced one."""


@dataclass
class EnteredRun(Entered):
    """What was entered so far, and the step one is at."""

    step: str = "data"
    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {**Entered.CHOICES, "step": STEPS}


@page("/new-run", title="new_run.title", nav="new_run")
async def show(s: Session) -> None:
    """The three steps."""
    project = await s.project()
    Text(s.t("new_run.title"), "h1")
    if project is None:
        with empty("add_circle_outline", s.t("new_run.title"), s.t("new_run.no_project")):
            button(s.t("home.title"), href="/", classes="primary")
        return
    form = Form(s, project, EnteredRun.from_draft((await s.do(views.get_draft, Form.draft_name)).values))
    if s.query("dataset"):
        form.entered.choose(dataset=str(s.query("dataset")))
        form.entered.step = "model"
    elif s.query("base") and not s.query("from"):
        form.entered.choose(base_model=str(s.query("base")))
        form.entered.step = "model" if form.entered.dataset else "data"  # the data is asked for first where none was chosen
    form.body = box("dl-col wide")
    if s.query("from") and form.entered.is_begun:
        form.ask_to_replace(form.body, form.begin)
    else:
        await form.begin(True)


class Form(StartForm):
    """The page's state and its parts."""

    draft_name = "new_run"
    address = "/new-run"
    entered: EnteredRun
    body: ui.element
    beside: ui.element

    def __init__(self, s: Session, project: Project, entered: EnteredRun) -> None:
        super().__init__(s, project)
        self.entered = entered
        self.yaml: ui.textarea | None = None
        self.schema: SchemaForm | None = None
        self.rows = DataSettings(s, project, Doors(self._change, self._change_all))

    async def begin(self, takes_run: bool) -> None:
        """Draw the page, with the run that the address names where it is taken."""
        if takes_run and self.s.query("from"):
            await self._take_from(str(self.s.query("from")), self.s.query("changes"))
        if self.s.request.query_params:
            await self.took_address()
        await self.draw()

    async def _take_from(self, run_id: str, changes: str | None) -> None:
        """Begin with the recipe of an earlier run, and what its coach recommends."""
        run = await self.s.do(runs.get_run, run_id)
        entered = self.entered
        entered.dataset, entered.base_model, entered.step = run.recipe["dataset"], run.base_model, "review"
        entered.name, entered.changes, entered.copied = "", {}, run.recipe
        if any(job.kind == "sweep" for job in await self.s.do(runs.list_run_jobs, run_id)):  # what the best member differs in from what all shared
            table = await self.s.do(sweeps.get_sweep, run_id)
            entered.changes = next((dict(member.settings) for member in table.members if member.name == table.best), {})
        with suppress(ValueError):  # an address that someone has cut
            told = json.loads(changes or "{}")
            entered.changes |= told if isinstance(told, dict) else {}

    async def go(self, step: str) -> None:
        """Show another step."""
        self.entered.step = step
        await self.keep()
        await self.draw()

    async def draw(self) -> None:
        """Show the step."""
        s, entered = self.s, self.entered
        self.ask()  # what was asked for another step is not shown in this one
        self.body.clear()
        with self.body:
            with box("dl-steps", "ol"):
                for number, step in enumerate(STEPS):
                    with box("", "li") as made:
                        if step == entered.step:
                            made.props("aria-current=step")
                        Text(str(number + 1), "span", "n")
                        Text(s.t(f"new_run.step_{step}"))
            if entered.step == "data":
                self._data((await s.do(datasets.list_datasets, self.project.id, limit=50)).items)
            elif entered.step == "model":
                self._model(await s.do(models.list_base_models))
            else:
                await self._review()

    def _data(self, own: Sequence[Dataset]) -> None:
        s = self.s
        with box("dl-row between"):
            Text(s.t("new_run.choose_data"), "h2")
            button(s.t("datasets.add"), href="/datasets", classes="small", symbol="upload_file")

        async def take(name: str) -> None:
            self.entered.choose(dataset=name)
            await self.go("model")

        with box("dl-grid3"):
            for dataset in own:
                is_chosen = self.entered.dataset.partition("@")[0] == dataset.name
                option(dataset.name, "", is_chosen, guarded(s, partial(take, dataset.name)), s.t("new_run.data_own"))
            for name in bundled.example_names():
                stem = name.removeprefix(bundled.PREFIX)
                option(
                    s.t(f"new_run.data_{stem}"),
                    s.t(f"new_run.data_{stem}_text"),
                    name == self.entered.dataset,
                    guarded(s, partial(take, name)),
                    s.t("new_run.example"),
                )

    def _model(self, known: list[BaseModelChoice]) -> None:
        s, entered = self.s, self.entered

        async def base(name: str) -> None:
            entered.choose(base_model=name)
            await self.go("model")

        async def goal(name: str) -> None:
            entered.goal = name
            await self.go("model")

        async def typed() -> None:
            entered.choose(base_model=str(other.value or "").strip() or "danlu/tiny")
            await self.keep()

        Text(s.t("new_run.choose_base"), "h2")
        is_known = entered.base_model in {model.name for model in known}
        with box("dl-grid2"):
            for model in known:
                text = s.t("new_run.base_tiny_text") if model.is_embedded else f"{facts(s, model)}\n{fit_sentence(s, model)}"
                option(model.name, text, entered.base_model == model.name, guarded(s, partial(base, model.name)), mark=fit_word(s, model))
            with box("dl-card", "section"):
                Text(s.t("new_run.base_other"), "h3")
                other = text_field(s.t("new_run.base_other"), "" if is_known else entered.base_model, maxlength=300)
                other._props["placeholder"] = "Qwen/Qwen3-0.6B"
                other.on("blur", guarded(s, typed), [])
                paragraph(s.t("new_run.base_other_text"), "dl-small dl-muted")
        Text(s.t("new_run.choose_goal"), "h2")
        with box("dl-grid2"):
            for name in GOALS:
                option(s.t(f"new_run.goal_{name}"), s.t(f"new_run.goal_{name}_text"), entered.goal == name, guarded(s, partial(goal, name)))
        with box("dl-row"):
            button(s.t("new_run.continue"), guarded(s, partial(self.go, "review")), classes="primary")
            button(s.t("basic.back"), guarded(s, partial(self.go, "data")))

    async def _review(self) -> None:
        s = self.s
        with box("dl-split beside-first"):
            self.main = box("dl-col wide")
            with box("dl-col wide sticky"):
                self.beside = box("dl-card", "section")
                with box("dl-card", "section"):
                    self.start = StartCard(self, s.t("new_run.name"), s.t("new_run.start"), self._start)
                    button(s.t("new_run.sweep"), href="/sweeps/new?draft=new-run", symbol="tune")
                    button(s.t("basic.back"), guarded(s, partial(self.go, "model")), classes="quiet")
            await self.start.ask(runs.submit_run)
        with self.main, box("dl-card", "section"):
            waiting_card(s)
        with self.beside:
            waiting_card(s)
        ui.timer(0.05, guarded(s, self._recommend), once=True)

    async def _recommend(self) -> None:
        """What is recommended for this data, model and goal; then what it would take with the changes."""
        if not await self.recommend():
            return
        mine = self.asked
        await self.rows.load()
        if mine != self.asked:
            return
        assert self.recommended is not None
        self._draw_settings()
        if self.entered.changes and self.recommended.recipe is not None:
            await self._preview()
        else:
            self._draw_preview(self.recommended)

    async def _change(self, path: str, value: Any) -> None:
        base = dict(self.recommended.recipe or {}) if self.recommended is not None else {}
        if value_at(base, path) == value:
            self.entered.changes.pop(path, None)
        else:
            self.entered.changes[path] = value
        if path.endswith(".type"):
            self.entered.changes = {name: kept for name, kept in self.entered.changes.items() if name == path or not name.startswith(path.removesuffix("type"))}
        await self.keep()
        if path.endswith(".type"):
            self._draw_settings()
        self._preview_soon()

    async def _take(self, changes: dict[str, Any]) -> None:
        await self._change_all(changes, ())

    async def _change_all(self, changes: dict[str, Any], back: tuple[str, ...]) -> None:
        """Several settings at once; those of `back`, and what lies below a path that gets a value, are first as recommended."""
        whole = (*back, *changes)
        kept = {path: value for path, value in self.entered.changes.items() if not any(path == one or path.startswith(f"{one}.") for one in whole)}
        self.entered.changes = kept | changes
        await self.keep()
        self._draw_settings()
        self._preview_soon()

    def _preview_soon(self) -> None:
        """Preview beside the action that asks for it: while an answer is awaited, the same field can be changed again."""
        with self.body:
            ui.timer(0.01, guarded(self.s, self._preview), once=True)

    async def _preview(self) -> None:
        mine = self.ask()
        checked = await self.s.do(recipes.check_recipe, RecipeText(recipe=self.recipe()))
        if mine != self.asked:
            return
        self.start.block(None if checked.is_valid else self.s.t("new_run.start_mistakes"))
        if self.schema is not None:
            self.schema.tell(checked.mistakes)
        if checked.text is not None and self.yaml is not None and self.yaml.value != checked.text:
            self.yaml.set_value(checked.text)
        self.beside.clear()
        with self.beside:
            if not checked.is_valid:
                self._mistakes(checked.mistakes)
                return
            waiting_card(self.s)
        found = await self.preview(Preview(recipe=self.recipe()))
        if found is not None:
            self._draw_preview(found)

    def _mistakes(self, mistakes: list[str]) -> None:
        note("\n".join(in_language(self.s, line.strip()) for line in mistakes), "bad", self.s.t("new_run.line_mistakes"))

    def _draw_preview(self, found: PreviewedRun) -> None:
        self.beside.clear()
        with self.beside:
            preview_card(self.s, found, guarded(self.s, self._take))
        self.start.block(self.why_not(found))
        self.rows.tell(found.split)

    def _draw_settings(self) -> None:
        s, recommended = self.s, self.recommended
        assert recommended is not None
        self.main.clear()
        self.yaml = self.schema = None
        if recommended.recipe is None:
            return
        with self.main:
            with card(s.t("new_run.recommended")):
                paragraph(s.t("new_run.recommended_text"), "dl-muted")
                told = {reason["path"]: reason for reason in recommended.reasons}
                kinds = {item.path: item for item in fields_of(self.recipe())}
                for path in told if s.view.is_advanced else filter(told.__contains__, SIMPLE):
                    self._reason(told[path], kinds.get(path))
                with box("dl-row between"):
                    names = {"simple": s.t("basic.simple"), "advanced": s.t("basic.advanced")}
                    segmented(names, "advanced" if s.view.is_advanced else "simple", guarded(s, self._mode), s.t("settings.form"))
                    if self.entered.changes:
                        Text(s.t("new_run.advanced_changed", number=len(self.entered.changes)), "span", "dl-muted dl-small")
                        button(s.t("new_run.back_to_recommended"), guarded(s, self._reset), classes="small")
            self.rows.draw(self.recipe())
            if s.view.is_advanced:
                with card(s.t("new_run.all_settings")):
                    self.schema = SchemaForm(s, self.recipe(), set(self.entered.changes), self._change)
                with card(), fold(s.t("new_run.yaml")):
                    paragraph(s.t("new_run.yaml_text"), "dl-muted dl-small")
                    import yaml

                    text = yaml.safe_dump(self.recipe(), allow_unicode=True, sort_keys=False)
                    self.yaml = text_area(s.t("new_run.yaml"), text, rows=24, is_code=True)
                    self.yaml.on("blur", guarded(s, self._yaml_typed), [])

    def _reason(self, reason: dict[str, Any], item: FormField | None) -> None:
        s, path = self.s, reason["path"]
        value = self.entered.changes.get(path, reason["value"])
        with box("dl-reason"):
            with box("dl-row between"):
                with box("dl-row"):
                    Text(s.t(f"new_run.name_{path.replace('.', '_')}") if path in SIMPLE else path, "span", "dl-strong" if path in SIMPLE else "dl-mono")
                    if path in SIMPLE and s.view.is_advanced:
                        Text(path, "span", "dl-mono dl-muted")
                    if path in self.entered.changes:
                        badge(s.t("form.changed"), "accent")
                if item is not None and item.kind == "number" and not s.view.is_advanced:
                    entry = text_field(path, numbers.plain(value)).style("flex: 0 0 112px")
                    entry.props("input-class=text-right")
                    entry.on("change", guarded(s, lambda: self._typed(path, str(entry.value or ""))), [])
                else:
                    Text(numbers.setting(value), "span", "dl-strong dl-clip")
            paragraph(reason[s.language], "dl-small dl-muted")

    async def _typed(self, path: str, text: str) -> None:
        try:
            value: Any = float(text)
        except ValueError:
            value = text or "auto"  # what is neither is told beside the preview
        await self._change(path, int(value) if isinstance(value, float) and value.is_integer() else value)

    async def _mode(self, name: str) -> None:
        await self.s.prefer(is_advanced=name == "advanced")
        self._draw_settings()

    async def _reset(self) -> None:
        self.entered.changes = {}
        await self.keep()
        self._draw_settings()
        await self._preview()

    async def _yaml_typed(self) -> None:
        """Take what was written as text into the form."""
        assert self.yaml is not None and self.recommended is not None
        self.start.block(self.s.t("new_run.start_wait"))  # whoever goes from the text to the button at once does not start what stood there before
        mine = self.ask()
        checked = await self.s.do(recipes.check_recipe, RecipeText(text=str(self.yaml.value or "")))
        if mine != self.asked:
            return
        if checked.recipe is None:
            self.start.block(self.s.t("new_run.start_mistakes"))
            self.beside.clear()
            with self.beside:
                self._mistakes(checked.mistakes)
            return
        base, whole, entered = dict(self.recommended.recipe or {}), checked.recipe, self.entered
        if (whole["dataset"], whole["base_model"]) != (base.get("dataset"), base.get("base_model")):
            entered.dataset, entered.base_model, entered.changes, entered.copied = whole["dataset"], whole["base_model"], {}, whole
            await self.keep()
            await self._recommend()
            return
        paths = [item.path for item in fields_of(whole)]
        changed = {path: value_at(whole, path) for path in paths if value_at(whole, path) != value_at(base, path)}
        if changed != entered.changes:
            entered.changes = changed
            await self.keep()
            self._draw_settings()
        await self._preview()

    async def _start(self) -> None:
        entered, s = self.entered, self.s
        made = await s.do(runs.submit_run, self.project.id, NewRun(recipe=self.recipe(), name=entered.name, priority=cast(Priority, entered.priority)))
        await s.do(views.save_draft, self.draft_name, Draft())
        ui.navigate.to(f"/runs/{made.id}")
