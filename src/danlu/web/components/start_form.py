"""What the pages that start work have in common: what was entered, what is recommended for it, and the card with the button."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, ClassVar, Self, cast, get_args

from nicegui import ui

from danlu.errors import JobError, TooManyRequestsError
from danlu.recipe.recommend import GOALS, Goal
from danlu.services.platform import recipes, views
from danlu.services.platform.jobs import Priority
from danlu.services.platform.operations import Operation
from danlu.services.platform.recipes import Preview, PreviewedRun
from danlu.services.platform.views import Draft
from danlu.store.projects import Project
from danlu.web.components.elements import Text, box, button, card, icon, paragraph
from danlu.web.components.fields import choice, text_field
from danlu.web.components.messages import guarded, in_language, toast
from danlu.web.rights import rights_in
from danlu.web.schema_fields import changes_to, with_changes
from danlu.web.session import Session

AGAIN_SECONDS = 1.0


@dataclass
class Entered:
    """What was entered so far."""

    dataset: str = ""
    base_model: str = "danlu/tiny"
    goal: str = "task"
    name: str = ""
    priority: str = "standard"
    changes: dict[str, Any] = field(default_factory=dict)
    """Settings by dotted path that differ from what is recommended."""
    copied: dict[str, Any] = field(default_factory=dict)
    """Recipe of an earlier run, until what it differs in from what is recommended stands in `changes`."""
    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {"goal": tuple(GOALS), "priority": get_args(Priority)}
    """What can stand in fields that are chosen among few."""

    @property
    def is_begun(self) -> bool:
        """Whether something was entered that would be missed."""
        return bool(self.dataset or self.name or self.changes or self.copied)

    @classmethod
    def from_draft(cls, values: dict[str, Any]) -> Self:
        """What of a draft this version knows."""
        usual = cls()
        known = {one.name: values[one.name] for one in fields(cls) if isinstance(values.get(one.name), type(getattr(usual, one.name)))}
        return cls(**{name: value for name, value in known.items() if name not in cls.CHOICES or value in cls.CHOICES[name]})

    def choose(self, *, dataset: str | None = None, base_model: str | None = None) -> None:
        """Take other data or another model. Settings that were changed for the ones before are given up; another version of the same data keeps them."""
        is_other_data = dataset is not None and dataset.partition("@")[0] != self.dataset.partition("@")[0]
        if is_other_data or base_model not in (None, self.base_model):
            self.changes, self.copied = {}, {}
        self.dataset, self.base_model = dataset or self.dataset, base_model or self.base_model


class StartForm:
    """A page's state: what was entered, kept until it is sent, and what is recommended for it."""

    draft_name: ClassVar[str]
    address: ClassVar[str]
    entered: Entered
    start: StartCard

    def __init__(self, s: Session, project: Project) -> None:
        self.s, self.project = s, project
        self.recommended: PreviewedRun | None = None
        self.asked = 0
        """Counts questions, so that an old answer never replaces a newer one."""

    def ask(self) -> int:
        """Begin a question: answers to those before it are not wanted any more."""
        self.asked += 1
        return self.asked

    async def keep(self) -> None:
        """Remember what was entered."""
        await self.s.do(views.save_draft, self.draft_name, Draft(values=vars(self.entered)))

    def ask_to_replace(self, place: ui.element, go_on: Callable[[bool], Awaitable[None]]) -> None:
        """Ask whether what was entered before gives way to what the address names. Until that is answered neither is lost."""
        s, entered = self.s, self.entered
        told = s.t("new_run.replace_text", data=entered.dataset or "\u2013", model=entered.base_model, number=len(entered.changes))
        with place, card(s.t("new_run.replace_title")):
            paragraph(told)
            with box("dl-row"):
                button(s.t("new_run.replace_keep"), guarded(s, partial(go_on, False)), classes="primary")
                button(s.t("new_run.replace_do"), guarded(s, partial(go_on, True)))

    async def took_address(self) -> None:
        """What the address named is entered: from now on it is changed here, and a reload does not take it from there again."""
        await self.keep()
        ui.run_javascript(f"history.replaceState(null, '', '{self.address}')")

    def written(self) -> dict[str, Any]:
        """What is known before anything was recommended."""
        return {"base_model": self.entered.base_model, "dataset": self.entered.dataset}

    def recipe(self) -> dict[str, Any]:
        """The recommended recipe with the changes."""
        recommended = self.recommended.recipe if self.recommended is not None else None
        return with_changes(dict(recommended or self.written()), self.entered.changes)

    async def recommend(self) -> bool:
        """Ask what is recommended for this data, model and goal; return whether the answer is still wanted.

        What a copied recipe differs in from it stands among the changes afterwards.
        """
        mine, written, entered = self.ask(), self.written(), self.entered
        objective = entered.changes.get("objective.type") or entered.copied.get("objective")
        if objective:
            written["objective"] = objective
        found = await self.preview(Preview(recipe=written, goal=cast(Goal, entered.goal)))
        if found is None:
            return False
        self.recommended = found
        if entered.copied and found.recipe is not None:
            entered.changes, entered.copied = changes_to(found.recipe, entered.copied) | entered.changes, {}
            await self.keep()
        return mine == self.asked

    async def preview(self, wanted: Preview) -> PreviewedRun | None:
        """What a run will take, asked again while the server looks at too many others; None when something newer was asked meanwhile."""
        mine, found = self.asked, None
        while found is None and mine == self.asked:
            try:
                found = await self.s.do(recipes.preview_run, self.project.id, wanted)
            except TooManyRequestsError:
                await asyncio.sleep(AGAIN_SECONDS)
        return found if mine == self.asked else None

    def why_not(self, found: PreviewedRun) -> str | None:
        """Why what was previewed cannot be started. What is only short of memory or disk now can, and what took too long to look at."""
        if found.recipe is not None or not found.problems or found.problems[0].code == JobError.code:
            return None
        return in_language(self.s, found.problems[0].what)


class StartCard:
    """Name, class, and the button, with the reason beside it while it cannot be pressed. It can be reached all the same, and says why."""

    def __init__(self, form: StartForm, name: str, go: str, start: Callable[[], Awaitable[None]]) -> None:
        self.form, self.start = form, start
        self.why: str | None = None
        self.refused: str | None = None
        """Why the role may not start anything."""
        s, entered = form.s, form.entered
        entry = text_field(name, entered.name, maxlength=200)
        entry.on("blur", guarded(s, lambda: self._named(str(entry.value or ""))), [])
        with box("dl-field"):
            Text(s.t("new_run.priority"), "span", "dl-label")
            choice(s.t("new_run.priority"), {name: s.t(f"queue.{name}") for name in get_args(Priority)}, entered.priority, guarded(s, self._prioritised))
        with box("dl-btn primary", "button").props("type=button") as self.button:
            icon("play_arrow")
            Text(go)
        self.button.on("click", guarded(s, self._pressed), [])
        self.told = Text("", "p", "dl-small").props("role=status")
        self.button._props["aria-describedby"] = self.told.html_id
        self.block(s.t("new_run.start_wait"))

    async def ask(self, operation: Operation[..., Any]) -> None:
        """See whether the role may start it."""
        self.refused = (await rights_in(self.form.s, self.form.project.id)).why_not(operation)
        self.block(self.why)

    def block(self, why: str | None) -> None:
        """Grey the button and say why; None sets it free."""
        self.why = why
        told = self.refused or why
        self.told.text = told or ""
        self.told.set_visibility(bool(told))
        if told:
            self.button.props("aria-disabled=true")
        else:
            self.button.props(remove="aria-disabled")

    async def _pressed(self) -> None:
        if self.refused or self.why:
            toast(self.form.s, self.refused or self.why or "")
        else:
            await self.start()

    async def _named(self, name: str) -> None:
        self.form.entered.name = name.strip()
        await self.form.keep()

    async def _prioritised(self, event: Any) -> None:
        self.form.entered.priority = event.value
        await self.form.keep()
