"""A conversation with one to four models that all get the same messages."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nicegui import ui

from danlu.errors import DanluError
from danlu.services.platform import models, runs, views, votes
from danlu.services.platform.chat import Question
from danlu.services.platform.views import Draft
from danlu.services.platform.votes import NewRating, NewVote, Shown, Turn
from danlu.web import numbers
from danlu.web.components.answering import Answering, speed_of
from danlu.web.components.elements import Text, box, button, fold, help_tip, link, paragraph, segmented
from danlu.web.components.fields import choice, text_area
from danlu.web.components.messages import error_panel, guarded, toast
from danlu.web.session import Session

PRESETS = {"exact": (0.0, 1.0), "balanced": (0.7, 0.9), "free": (1.1, 0.95)}
LETTERS = "ABCD"
SCORES = (1, 2, 3, 4, 5)
MAX_RUNS = 50


async def answerers(s: Session, project_id: str) -> dict[str, str]:
    """Who can answer: finished runs first, then base models."""
    found = {run.id: run.name or run.id for run in (await s.do(runs.list_runs, project_id, state="succeeded", limit=MAX_RUNS)).items}
    for base in await s.do(models.list_base_models):
        found[base.name] = s.t("chat.is_base", name=base.name)
    return found


@dataclass
class Parameters:
    """How answers are drawn."""

    temperature: float = 0.7
    top_p: float = 0.9
    max_new_tokens: int = 128
    system: str = ""


@dataclass
class Pane:
    """One model's side of the conversation."""

    model: str
    answers: list[str] = field(default_factory=list)
    """One for each question of the user."""
    place: ui.element | None = None
    under_way: Answering | None = None
    told: str = ""
    """Tokens and speed of the newest answer."""


class Conversation:
    """The questions of the user, and a pane for each model."""

    def __init__(self, s: Session, project_id: str, names: dict[str, str], draft_name: str, num_panes: int) -> None:
        self.s, self.project_id, self.names, self.draft_name = s, project_id, names, draft_name
        self.parameters = Parameters()
        self.questions: list[str] = []
        self.panes = [Pane(model) for model in list(names)[:num_panes]]
        self.is_blind = self.has_voted = False

    def restore(self, values: dict[str, Any]) -> None:
        """Go on where the page was left."""
        self.questions = [str(text) for text in values.get("questions", [])]
        panes = [Pane(str(pane["model"]), [str(text) for text in pane["answers"]]) for pane in values.get("panes", []) if pane.get("model") in self.names]
        if len(panes) == len(self.panes):
            self.panes = panes
        else:
            self.questions = []
        known = {name: value for name, value in values.get("parameters", {}).items() if name in Parameters.__dataclass_fields__}
        self.parameters = Parameters(**known)
        self.is_blind = bool(values.get("is_blind")) and len(self.panes) > 1

    async def keep(self) -> None:
        """Remember it."""
        panes = [{"model": pane.model, "answers": pane.answers} for pane in self.panes]
        values = {"questions": self.questions, "panes": panes, "parameters": vars(self.parameters), "is_blind": self.is_blind}
        await self.s.do(views.save_draft, self.draft_name, Draft(values=values))

    def draw(self) -> None:
        """All of it."""
        s = self.s
        self.body = box("dl-col wide")
        self._draw_panes()
        with box("dl-card dl-composer", "section"):
            field_ = text_area(s.t("chat.message"), rows=3)
            field_._props["placeholder"] = s.t("chat.message")
            field_.props(remove="debounce")

            async def typed(event: Any) -> None:
                field_.set_value("")
                await self._send(str(event.args))

            async def pressed() -> None:
                text = str(field_.value or "")
                field_.set_value("")
                await self._send(text)

            # Enter also chooses a word in the input methods of Chinese: that one sends nothing.
            enter = "(e) => { if (!e.isComposing && !e.shiftKey) { e.preventDefault(); emit(e.target.value); } }"
            field_.on("keydown.enter", guarded(s, typed), js_handler=enter)
            with box("dl-row between"):
                with box("dl-row"):
                    button(s.t("chat.send"), guarded(s, pressed), classes="primary", symbol="send")
                    button(s.t("chat.stop"), self.stop)
                with box("dl-row"):
                    button(s.t("chat.again"), guarded(s, self._again), classes="quiet")
                    button(s.t("chat.clear"), guarded(s, self._clear), classes="quiet")
            with fold(s.t("chat.parameters")):
                self._parameters()

    def stop(self) -> None:
        """End what is being written."""
        for pane in self.panes:
            if pane.under_way is not None:
                pane.under_way.stop()

    def _draw_panes(self) -> None:
        self.body.clear()
        with self.body, box(f"dl-panes n{len(self.panes)}"):
            for number, pane in enumerate(self.panes):
                with box("dl-card", "section"):
                    if self.is_blind and not self.has_voted:
                        Text(self.s.t("chat.answer", letter=LETTERS[number]), "h2")
                    else:
                        choice(self.s.t("chat.model"), self.names, pane.model, guarded(self.s, partial(self._choose, pane)))
                    pane.place = box("dl-talk").props("aria-live=polite tabindex=0")
                self._draw_talk(pane)
        if len(self.panes) > 1 and self.questions and not self.has_voted and all(len(pane.answers) == len(self.questions) for pane in self.panes):
            with self.body:
                self._ballot()

    async def _choose(self, pane: Pane, event: Any) -> None:
        pane.model, self.has_voted = event.value, False
        await self.keep()

    def _draw_talk(self, pane: Pane) -> None:
        assert pane.place is not None
        pane.place.clear()
        with pane.place:
            if not self.questions:
                paragraph(self.s.t("chat.empty"), "dl-muted")
            for number, question in enumerate(self.questions):
                with box("dl-turn user") as turn:
                    Text(question, "div", "dl-text")
                    edit = Text(self.s.t("chat.edit"), "button", "dl-btn small quiet").props("type=button")
                    edit.on("click", partial(self._edit, turn, number), [])
                if number < len(pane.answers):
                    with box("dl-turn"):
                        Text(pane.answers[number], "div", "dl-text")
                        if number == len(self.questions) - 1 and pane.told:
                            Text(pane.told, "div", "dl-small dl-muted")
                        if number == len(self.questions) - 1 and not (self.is_blind and not self.has_voted):
                            self._rating(pane)

    def _edit(self, turn: ui.element, number: int) -> None:
        """Change a message and have it answered anew; what followed it is left out."""
        s = self.s
        turn.clear()
        with turn:
            field_ = text_area(s.t("chat.edit"), self.questions[number], rows=3)
            field_.props(remove="debounce")

            async def send() -> None:
                text = str(field_.value or "")
                if not text.strip() or any(pane.under_way is not None for pane in self.panes):
                    return
                self.questions = self.questions[:number]
                for pane in self.panes:
                    pane.answers = pane.answers[:number]
                await self._send(text)

            with box("dl-row"):
                button(s.t("chat.send"), guarded(s, send), classes="small primary")
                button(s.t("basic.cancel"), self._draw_panes, classes="small quiet")

    def _messages(self, pane: Pane, until: int) -> list[Turn]:
        told = [Turn(role="system", content=self.parameters.system)] if self.parameters.system.strip() else []
        for number, question in enumerate(self.questions[:until]):
            told.append(Turn(role="user", content=question))
            if number < until - 1:
                told.append(Turn(role="assistant", content=pane.answers[number]))
        return told

    async def _send(self, text: str) -> None:
        if not text.strip() or any(pane.under_way is not None for pane in self.panes):
            return
        if self.is_blind:
            random.shuffle(self.panes)
        self.questions.append(text.strip())
        await self._answer_all()

    async def _again(self) -> None:
        if not self.questions or any(pane.under_way is not None for pane in self.panes):
            return
        for pane in self.panes:
            pane.answers = pane.answers[: len(self.questions) - 1]
        await self._answer_all()

    async def _answer_all(self) -> None:
        from asyncio import gather

        self.has_voted = False
        self._draw_panes()
        await gather(*(self._answer(pane) for pane in self.panes))
        await self.keep()
        self._draw_panes()

    async def _answer(self, pane: Pane) -> None:
        s, p = self.s, self.parameters
        question = Question(
            model=pane.model,
            messages=self._messages(pane, len(self.questions)),
            temperature=p.temperature,
            top_p=p.top_p,
            max_new_tokens=p.max_new_tokens,
        )
        assert pane.place is not None
        with pane.place, box("dl-turn"):
            text, told = Text("", "div", "dl-text"), Text("", "div", "dl-small dl-muted")
        pane.under_way, pane.told = Answering(s, self.project_id, question), ""
        shown = ""
        try:
            async for _ in pane.under_way.pieces():
                now = pane.under_way
                if now.text != shown:
                    shown = text.text = now.text
                    told.text = ""
                elif now.last is not None and not shown:
                    told.text = s.t("chat.ahead", number=now.last.ahead) if now.last.kind == "waiting" else s.t("chat.loading")
            if pane.under_way.end is not None:
                end = pane.under_way.end
                pane.told = s.t("chat.speed", tokens=end.num_tokens or 0, speed=numbers.short(speed_of(end)))
                pane.told += f" {s.t('chat.cut')}" if end.is_cut else ""
        except DanluError as error:
            with pane.place:
                error_panel(s, error, where="dl-note bad")
        finally:
            pane.answers.append(pane.under_way.text)
            pane.under_way = None

    async def _clear(self) -> None:
        self.stop()
        self.questions = []
        for pane in self.panes:
            pane.answers = []
        await self.keep()
        self._draw_panes()

    def _ballot(self) -> None:
        """Which answer is better?"""

        async def vote(winner: int | None) -> None:
            answers = [Shown(model=pane.model, text=pane.answers[-1]) for pane in self.panes]
            messages = self._messages(self.panes[0], len(self.questions))
            await self.s.do(votes.create_vote, self.project_id, NewVote(messages=messages, answers=answers, winner=winner, is_blind=self.is_blind))
            self.has_voted = True
            toast(self.s, self.s.t("chat.voted"), tone="good")
            self._draw_panes()

        with box("dl-row"):
            for number in range(len(self.panes)):
                button(self.s.t("chat.better", letter=LETTERS[number]), guarded(self.s, partial(vote, number)))
            button(self.s.t("chat.tie"), guarded(self.s, partial(vote, None)))

    def _rating(self, pane: Pane) -> None:
        """One to five, and the answer as it should have been."""
        s = self.s

        async def rate(score: int, correction: str | None = None) -> None:
            body = NewRating(messages=self._messages(pane, len(self.questions)), answer=pane.answers[-1], model=pane.model, score=score, correction=correction)
            await s.do(votes.create_rating, self.project_id, body)
            toast(s, s.t("chat.rated"), tone="good")

        with box("dl-row").props("role=group") as group:
            group._props["aria-label"] = s.t("chat.rate")
            Text(s.t("chat.rate"), "span", "dl-small dl-muted")
            for score in SCORES:
                button(str(score), guarded(s, partial(rate, score)), classes="small quiet")
        with fold(s.t("chat.correct")):
            corrected = text_area(s.t("chat.correct"), pane.answers[-1], rows=3)
            button(s.t("chat.correct_save"), guarded(s, lambda: rate(2, str(corrected.value))), classes="small")

    def _parameters(self) -> None:
        s, p = self.s, self.parameters

        async def change(name: str, value: Any) -> None:
            setattr(p, name, value)
            await self.keep()

        async def preset(name: str) -> None:
            p.temperature, p.top_p = PRESETS[name]
            temperature.set_value(p.temperature)
            top_p.set_value(p.top_p)
            await self.keep()

        chosen = next((name for name, values in PRESETS.items() if values == (p.temperature, p.top_p)), "")
        with box("dl-col wide"):
            segmented({name: s.t(f"chat.preset_{name}") for name in PRESETS}, chosen, guarded(s, preset), s.t("chat.parameters"))
            with box("dl-grid3"):
                temperature = self._number("temperature", p.temperature, 0, 2, 0.1, change)
                top_p = self._number("top_p", p.top_p, 0.05, 1, 0.05, change)
                self._number("length", p.max_new_tokens, 1, 2048, 1, lambda _, value: change("max_new_tokens", int(value)))
            with box("dl-row"):
                Text(s.t("chat.system"), "span", "dl-label")
                help_tip(s, s.t("chat.system_help"))
            system = text_area(s.t("chat.system"), p.system, rows=2)
            system.on("blur", guarded(s, lambda: change("system", str(system.value or ""))), [])

    def _number(self, name: str, value: float, low: float, high: float, step: float, change: Any) -> ui.number:
        s = self.s
        with box("dl-field"):
            with box("dl-row"):
                Text(s.t(f"chat.{name}"), "span", "dl-label")
                help_tip(s, s.t(f"chat.{name}_help"))
            made = ui.number(value=value, min=low, max=high, step=step).props("outlined dense")
            made._props["aria-label"] = s.t(f"chat.{name}")
            made.on("blur", guarded(s, lambda: change(name, made.value if made.value is not None else value)), [])
        return made


def no_project(s: Session) -> None:
    """What is shown where there is nothing to talk about."""
    with box("dl-card", "section"):
        paragraph(s.t("chat.tried_none"), "dl-muted")
        link(s.t("home.title"), "/")
