"""A new sweep: what is trained, which values are tried, when losers are left, and what that will take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

from nicegui import ui

from danlu import bundled
from danlu.recipe.recommend import GOALS
from danlu.services.platform import datasets, models, runs, sweeps, views
from danlu.services.platform.jobs import Priority
from danlu.services.platform.recipes import Preview, PreviewedRun
from danlu.services.platform.sweeps import NewSweep, PreviewedSweep, SweepPreview
from danlu.services.platform.views import Draft
from danlu.store.projects import Project
from danlu.web.components.elements import Text, badge, box, button, card, empty, fold, help_tip, note, paragraph, segmented
from danlu.web.components.fields import choice, text_field
from danlu.web.components.messages import guarded, in_language
from danlu.web.components.preview import preview_card, waiting_card
from danlu.web.components.start_form import Entered, StartCard, StartForm
from danlu.web.components.sweep_parts import setting_name, settings_line
from danlu.web.schema_fields import fields_of, value_at
from danlu.web.session import Session
from danlu.web.template import page
from danlu.web.typed_values import range_of, text_of, values_of
from danlu.web.words import CATALOGUE

FIRST = "optim.learning_rate"
"""What is tried until someone chooses: nothing matters more."""
RUNGS = ("2", "1", "0")
WAYS = ("grid", "search")
"""Every combination of values, or what Optuna chooses from ranges."""
SHOWN_MEMBERS = 64


@dataclass
class EnteredSweep(Entered):
    """What was entered so far, and what is tried."""

    way: str = "grid"
    rungs: str = "2"
    trials: str = "12"
    """Members of a search, as it was typed."""
    tried: dict[str, str] = field(default_factory=dict)
    """Values to try by dotted path, as they were typed; empty text takes what is suggested."""
    searched: dict[str, str] = field(default_factory=dict)
    """Ranges to search, the same way."""
    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {**Entered.CHOICES, "way": WAYS, "rungs": RUNGS}

    @property
    def chosen(self) -> dict[str, str]:
        """What was typed for the way that is chosen."""
        return self.searched if self.way == "search" else self.tried


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
    form = Form(s, project, EnteredSweep.from_draft((await s.do(views.get_draft, Form.draft_name)).values))
    await form.begin()


class Form(StartForm):
    """The page's state and its parts."""

    draft_name = "new_sweep"
    address = "/sweeps/new"
    entered: EnteredSweep

    def __init__(self, s: Session, project: Project, entered: EnteredSweep) -> None:
        super().__init__(s, project)
        self.entered = entered
        self.alone: PreviewedRun | None = None
        """What one member takes."""
        self.suggestions: dict[str, str] = {}
        """What is worth trying by path, as it would be typed."""
        self.worth: dict[str, dict[str, str]] = {}
        """The same for each way."""
        self.previews = 0
        """Counts previews, so that an old answer never replaces a newer one."""

    async def begin(self) -> None:
        """Take what the address names, and draw the page; where that would replace what was entered before, ask first."""
        self.place = box("dl-col wide")
        if self.entered.is_begun and (self.s.query("from") or self.s.query("draft") == "new-run"):
            self.ask_to_replace(self.place, self._draw)
        else:
            await self._draw(True)

    async def _draw(self, takes_address: bool) -> None:
        if takes_address:
            await self._take_address()
        if self.s.request.query_params:
            await self.took_address()
        own = [dataset.name for dataset in (await self.s.do(datasets.list_datasets, self.project.id, limit=200)).items]
        known = [model.name for model in await self.s.do(models.list_base_models)]
        self.place.clear()
        with self.place:
            await self._parts(own, known)

    async def _take_address(self) -> None:
        s, entered = self.s, self.entered
        if s.query("dataset"):
            self.entered = EnteredSweep(dataset=str(s.query("dataset")), base_model=entered.base_model, goal=entered.goal)
        elif s.query("from"):
            await self._take_from(str(s.query("from")))
        elif s.query("draft") == "new-run":
            self.entered = EnteredSweep.from_draft((await s.do(views.get_draft, "new_run")).values)

    async def _parts(self, own: list[str], known: list[str]) -> None:
        s = self.s
        with box("dl-split"):
            with box("dl-col wide"):
                with card(s.t("sweeps.what")):
                    self._what(own, known)
                self.settings = box("dl-col wide")
            with box("dl-col wide sticky"):
                self.beside = box("dl-card", "section")
                with box("dl-card", "section"):
                    self.start = StartCard(self, s.t("sweeps.name"), s.t("sweeps.start"), self._start)
                self.one_alone = box("dl-card", "section")
            await self.start.ask(sweeps.submit_sweep)
        if self.entered.dataset:
            self._wait()
            ui.timer(0.05, guarded(s, self._recommend), once=True)
        else:
            self._ask_for_data()

    async def _take_from(self, run_id: str) -> None:
        """Begin with the recipe of a run, and what it tried when it was a sweep."""
        run = await self.s.do(runs.get_run, run_id)
        entered = self.entered = EnteredSweep(dataset=run.recipe["dataset"], base_model=run.base_model, goal=self.entered.goal, copied=run.recipe)
        if any(job.kind == "sweep" for job in await self.s.do(runs.list_run_jobs, run_id)):
            sweep = (await self.s.do(sweeps.get_sweep, run_id)).sweep
            entered.tried, entered.searched = {path: text_of(values) for path, values in sweep["set"].items()}, dict(sweep["space"])
            entered.way, entered.trials = ("search", str(sweep["trials"])) if sweep["space"] else (entered.way, entered.trials)
            entered.rungs = str(sweep["rungs"]) if str(sweep["rungs"]) in RUNGS else "2"

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
        async def change(event: Any) -> None:
            setattr(self.entered, name, event.value)
            self.entered.changes, self.entered.copied = {}, {}
            await self.keep()
            if self.entered.dataset:
                self._wait()
                await self._recommend()

        with box("dl-field"):
            Text(label, "span", "dl-label")
            choice(label, options, value, change)  # not guarded: what is chosen while an answer is awaited counts

    def _ask_for_data(self) -> None:
        with self.beside:
            Text(self.s.t("sweeps.choose_data"), "h2")
            paragraph(self.s.t("sweeps.choose_data_text"), "dl-muted")
        self.one_alone.set_visibility(False)
        self.start.block(self.s.t("sweeps.choose_data"))

    def _wait(self) -> None:
        self.start.block(self.s.t("new_run.start_wait"))
        self.one_alone.set_visibility(False)
        self.beside.clear()
        with self.beside:
            waiting_card(self.s)

    async def _recommend(self) -> None:
        """What is recommended for this data, model and goal, and which values around it are worth trying."""
        s, entered = self.s, self.entered
        if not await self.recommend():
            return
        assert self.recommended is not None
        mine, found = self.asked, self.recommended
        if found.recipe is not None and entered.changes:
            changed = await self.preview(Preview(recipe=self.recipe()))
            if changed is None:
                return
            found = changed
        self.alone = found
        self.settings.clear()
        if found.recipe is None:
            self.start.block(in_language(s, found.problems[0].what))
            self.beside.clear()
            with self.beside:
                preview_card(s, found, guarded(s, self._take))
            return
        worth = await s.do(sweeps.preview_sweep, self.project.id, SweepPreview(recipe=found.recipe))
        if mine != self.asked:
            return
        self.worth = {"grid": {path: text_of(values) for path, values in worth.suggestions.items()}, "search": worth.ranges}
        await self._take_way()
        self._draw_alone()

    async def _take_way(self) -> None:
        """Show the settings for the way that is chosen, and what comes of them."""
        entered = self.entered
        self.suggestions = self.worth[entered.way]
        if not entered.chosen and FIRST in self.suggestions:
            entered.chosen[FIRST] = ""
        await self.keep()
        self._draw_settings()
        await self._preview()

    async def _choose_way(self, way: str) -> None:
        self.entered.way = way
        await self._take_way()

    @property
    def shared(self) -> dict[str, Any]:
        """What all members share, with nothing left open."""
        assert self.alone is not None and self.alone.recipe is not None
        return self.alone.recipe

    def _draw_settings(self) -> None:
        s, entered = self.s, self.entered
        self.changed.text = s.t("sweeps.changes", number=len(entered.changes)) if entered.changes else ""
        self.settings.clear()
        with self.settings:
            with card(s.t("sweeps.try")):
                with box("dl-row"):
                    segmented({name: s.t(f"sweeps.way_{name}") for name in WAYS}, entered.way, guarded(s, self._choose_way), s.t("sweeps.try"))
                paragraph(s.t(f"sweeps.way_{entered.way}_text"), "dl-muted dl-small")
                for path in dict.fromkeys([*self.suggestions, *entered.chosen]):
                    self._setting(path)
                others = [item.path for item in fields_of(self.shared) if item.kind in ("number", "choice", "switch")]
                there = {*self.suggestions, *entered.chosen}
                names = {path: path for path in others if path not in there and "." in path and not path.endswith(".type")}
                with box("dl-field"):
                    Text(s.t("sweeps.other"), "span", "dl-label")
                    choice(s.t("sweeps.other"), names, None, guarded(s, self._add)).style("max-width: 420px")
            if entered.way == "search":
                with card(s.t("sweeps.trials")):
                    paragraph(s.t("sweeps.trials_text"), "dl-muted")
                    number = text_field(s.t("sweeps.trials"), entered.trials, maxlength=3).style("flex: 0 0 112px")
                    number.props("inputmode=numeric")
                    number.on("change", guarded(s, lambda: self._counted(str(number.value or ""))), [])
                return
            with card(s.t("sweeps.comparisons")):
                paragraph(s.t("sweeps.comparisons_text"), "dl-muted")
                with box("dl-row"):
                    segmented({name: s.t(f"sweeps.rungs_{name}") for name in RUNGS}, entered.rungs, guarded(s, self._compared), s.t("sweeps.comparisons"))

    def _setting(self, path: str) -> None:
        """One setting: whether it is tried, why one would, and with which values."""
        s, name = self.s, setting_name(self.s, path)
        usual, chosen = self.suggestions.get(path, ""), self.entered.chosen
        with box("dl-try"):
            with box("dl-row"), box("dl-row", "label"):
                tick = box("", "input").props("type=checkbox")
                tick._props["checked"] = path in chosen
                tick._props["aria-label"] = s.t("sweeps.use", name=name)
                Text(name, "span", "dl-strong")
                if name != path:
                    Text(path, "span", "dl-mono dl-muted")
            entry = text_field(s.t("sweeps.values" if self.entered.way == "grid" else "sweeps.range", name=name), chosen.get(path) or usual)
            entry.set_enabled(path in chosen)
            if (key := f"sweeps.help_{path.replace('.', '_')}") in CATALOGUE:
                paragraph(s.t(key), "dl-small dl-muted")

        async def use(is_tried: bool) -> None:
            entry.set_enabled(is_tried)
            if is_tried:
                chosen[path] = str(entry.value or "")
            else:
                chosen.pop(path, None)
            await self._changed()

        async def typed() -> None:
            chosen[path] = str(entry.value or "")
            await self._changed()

        tick.on("change", guarded(s, lambda event: use(bool(event.args))), js_handler="(e) => emit(e.target.checked)")
        entry.on("change", guarded(s, typed), [])

    async def _add(self, event: Any) -> None:
        """One more setting, beginning with the value it has."""
        path = str(event.value)
        value = value_at(self.shared, path, "")
        item = next(one for one in fields_of(self.shared) if one.path == path)
        self.entered.chosen[path] = range_of(item, value) if self.entered.way == "search" else text_of([value])
        self._draw_settings()
        await self._changed()

    async def _compared(self, rungs: str) -> None:
        self.entered.rungs = rungs
        await self._changed()

    async def _counted(self, number: str) -> None:
        self.entered.trials = number.strip()
        await self._changed()

    async def _changed(self) -> None:
        await self.keep()
        await self._preview()

    def _sweep(self) -> dict[str, Any]:
        """What is tried, as the operation takes it."""
        entered = self.entered
        given = {path: text.strip() or self.suggestions.get(path, "") for path, text in entered.chosen.items()}
        if not given:
            return {}
        if entered.way == "search":
            return {"space": given, "trials": int(entered.trials) if entered.trials.isdecimal() else entered.trials}
        return {"set": {path: values_of(text) for path, text in given.items()}, "rungs": int(entered.rungs)}

    async def _preview(self) -> None:
        self.previews += 1
        mine = self.previews
        assert self.alone is not None
        num_steps = (self.alone.forecast or {}).get("num_steps")
        found = await self.s.do(sweeps.preview_sweep, self.project.id, SweepPreview(recipe=self.shared, sweep=self._sweep(), num_steps=num_steps))
        if mine == self.previews:
            self._draw_preview(found, num_steps)

    def _draw_preview(self, found: PreviewedSweep, num_steps: int | None) -> None:
        s, is_ready = self.s, found.is_ready and found.num_members > 1
        too_few = s.t("sweeps.not_whole" if self.entered.way == "grid" else "sweeps.not_whole_search")
        self.start.block(None if is_ready else s.t("new_run.start_mistakes") if found.mistakes else too_few)
        self.beside.clear()
        with self.beside:
            with box("dl-row between"):
                Text(s.t("sweeps.preview_members"), "h2")
                badge(s.t("preview.ready" if is_ready else "preview.not_ready"), "good" if is_ready else "bad")
            for mistake in found.mistakes:
                note(in_language(s, mistake), "bad")
            if not found.mistakes and found.num_members < 2:
                note(too_few, "warn")
            if found.num_members:
                Text(s.t("sweeps.members", number=found.num_members), "div", "dl-num")
            if self.entered.way == "search" and found.num_members:
                paragraph(s.t("sweeps.preview_search"), "dl-small dl-muted")
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
        body = NewSweep(recipe=self.shared, sweep=self._sweep(), name=entered.name, priority=cast(Priority, entered.priority))
        made = await s.do(sweeps.submit_sweep, self.project.id, body)
        await s.do(views.save_draft, self.draft_name, Draft())
        ui.navigate.to(f"/sweeps/{made.id}")
