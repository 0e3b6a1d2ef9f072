"""A conversation with one to four models that all get the same messages."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from danlu.errors import DanluError, SignInError
from danlu.services.platform import chat, models, runs, views, votes
from danlu.services.platform.chat import Question
from danlu.services.platform.views import MAX_DRAFT_CHARS, Draft
from danlu.services.platform.votes import NewVote, Shown, Turn
from danlu.web.components.answering import Answering, speed_of
from danlu.web.components.elements import Text, box, button, fold, note, paragraph
from danlu.web.components.fields import choice, text_area
from danlu.web.components.messages import error_panel, error_toast, guarded, toast
from danlu.web.components.parameters import ParameterForm, Parameters
from danlu.web.components.rating import AnswerRating
from danlu.web.rights import Rights
from danlu.web.session import Session

LETTERS = "ABCD"
MAX_RUNS = 50


async def answerers(s: Session, project_id: str) -> dict[str, str]:
    """Who can answer: finished runs first, then base models."""
    found = {run.id: run.name or run.id for run in (await s.do(runs.list_runs, project_id, state="succeeded", limit=MAX_RUNS)).items}
    for base in await s.do(models.list_base_models):
        found[base.name] = s.t("chat.is_base", name=base.name)
    return found


@dataclass
class Pane:
    """One model's side of the conversation."""

    model: str
    answers: list[str] = field(default_factory=list)
    """One for each question; empty where there was none."""
    scores: dict[int, int] = field(default_factory=dict)
    """Ratings by number of the question, counted from 1."""
    place: ui.element | None = None
    under_way: Answering | None = None
    told: str = ""
    """Tokens and speed of the newest answer."""
    failure: DanluError | None = None
    """Why the newest question has no answer."""

    def cut(self, number: int) -> None:
        """Forget the answers from a question (counted from 0) on."""
        self.answers = self.answers[:number]
        self.scores = {question: score for question, score in self.scores.items() if question <= number}
        self.told, self.failure = "", None


class Conversation:
    """The questions of the user, and a pane for each model."""

    def __init__(self, s: Session, project_id: str, names: dict[str, str], draft_name: str, num_panes: int, rights: Rights) -> None:
        self.s, self.project_id, self.names, self.draft_name, self.rights = s, project_id, names, draft_name, rights
        self.parameters = Parameters()
        self.questions: list[str] = []
        self.panes = [Pane(model) for model in list(names)[:num_panes]]
        self.is_blind = self.has_voted = False
        self.on_vote: Callable[[], Awaitable[Any]] | None = None
        """What is done after each vote."""

    @property
    def is_busy(self) -> bool:
        """Whether an answer is being written."""
        return any(pane.under_way is not None for pane in self.panes)

    def restore(self, values: dict[str, Any]) -> None:
        """Go on where the page was left."""
        self.questions = [str(text) for text in values.get("questions", [])]
        panes = [
            Pane(
                str(pane["model"]),
                [str(text) for text in pane["answers"]][: len(self.questions)],
                {int(number): int(score) for number, score in pane.get("scores", {}).items()},
            )
            for pane in values.get("panes", [])
            if pane.get("model") in self.names
        ]
        if len(panes) == len(self.panes):
            self.panes = panes
        else:
            self.questions = []
        self.parameters.take(values.get("parameters", {}))
        self.is_blind = bool(values.get("is_blind")) and len(self.panes) > 1
        self.has_voted = bool(values.get("has_voted"))

    def choose(self, wanted: list[str]) -> None:
        """Have these models answer; a conversation with others is over."""
        if [pane.model for pane in self.panes[: len(wanted)]] != wanted:
            chosen = wanted + [pane.model for pane in self.panes if pane.model not in wanted]
            self.panes = [Pane(model) for model in chosen[: len(self.panes)]]
            self.questions, self.has_voted = [], False

    async def keep(self) -> None:
        """Remember it; of a very long conversation, the newer part."""
        values = self._values(0)
        for first in range(1, len(self.questions)):
            if len(str(values)) <= MAX_DRAFT_CHARS:
                break
            values = self._values(first)
        await self.s.do(views.save_draft, self.draft_name, Draft(values=values))

    def _values(self, first: int) -> dict[str, Any]:
        panes = [
            {"model": pane.model, "answers": pane.answers[first:], "scores": {str(n - first): score for n, score in pane.scores.items() if n > first}}
            for pane in self.panes
        ]
        kept = {"parameters": vars(self.parameters), "is_blind": self.is_blind, "has_voted": self.has_voted}
        return {"questions": self.questions[first:], "panes": panes, **kept}

    def address(self) -> str:
        """A link that opens the same models with the same parameters; not what was said."""
        is_one = len(self.panes) == 1
        told = {"project": self.project_id, "model" if is_one else "models": ",".join(pane.model for pane in self.panes)}
        told |= {"blind": "1"} if self.is_blind else {}
        return f"/{'chat' if is_one else 'compare'}?{urlencode(told | self.parameters.shared(), safe=',/')}"

    async def hide_names(self, is_blind: bool) -> None:
        """Compare blind from now on, or not."""
        self.is_blind = is_blind
        await self.keep()
        if not self.is_busy:
            self.draw_panes()

    def draw(self) -> None:
        """All of it."""
        s = self.s
        self.body = box("dl-col wide")
        self.draw_panes()
        why_not = self.rights.why_not(chat.answer)
        if why_not is not None:
            note(why_not)
            return
        with box("dl-card dl-composer", "section"):
            field_ = text_area(s.t("chat.message"), rows=3)
            field_._props["placeholder"] = s.t("chat.placeholder")
            field_.props(remove="debounce")

            async def send(text: str) -> None:
                if text.strip() and not self.is_busy:
                    field_.set_value("")
                    await self._send(text)

            # Enter also chooses a word in the input methods of Chinese: that one sends nothing.
            enter = "(e) => { if (!e.isComposing && !e.shiftKey) { e.preventDefault(); emit(e.target.value); } }"
            field_.on("keydown.enter", guarded(s, lambda event: send(str(event.args))), js_handler=enter)
            with box("dl-row between"):
                with box("dl-row"):
                    button(s.t("chat.send"), guarded(s, lambda: send(str(field_.value or ""))), classes="primary", symbol="send")
                    self.halt = button(s.t("chat.stop"), self.stop)
                with box("dl-row") as self.later:
                    button(s.t("chat.again"), guarded(s, self._again), classes="quiet")
                    button(s.t("chat.clear"), guarded(s, self._clear), classes="quiet")
            with fold(s.t("chat.parameters")):
                ParameterForm(s, self.parameters, self.keep)
        self._offer(is_busy=False)

    def _offer(self, *, is_busy: bool) -> None:
        """Show the buttons that do something now."""
        self.halt.set_visibility(is_busy)
        self.later.set_visibility(bool(self.questions) and not is_busy)

    def stop(self) -> None:
        """End what is being written."""
        for pane in self.panes:
            if pane.under_way is not None:
                pane.under_way.stop()

    def draw_panes(self) -> None:
        """The models with what they said, and the ballot."""
        self.body.clear()
        is_hidden = self.is_blind and not self.has_voted
        with self.body, box(f"dl-panes n{len(self.panes)}"):
            for number, pane in enumerate(self.panes):
                with box("dl-card", "section"):
                    with box("dl-row"):
                        if len(self.panes) > 1:
                            Text(self.s.t("chat.answer", letter=LETTERS[number]), "h2")
                        if is_hidden:
                            Text(self.s.t("chat.hidden"), "span", "dl-muted dl-small")
                        else:
                            choice(self.s.t("chat.model"), self.names, pane.model, guarded(self.s, partial(self._choose, pane))).style(
                                "flex: 1; max-width: 420px"
                            )
                    with box("dl-talk").props("aria-live=polite tabindex=0 role=log") as talk:
                        talk._props["aria-label"] = self.s.t("chat.talk") if is_hidden else self.names[pane.model]
                        pane.place = box("dl-turns")
                self._draw_talk(pane)
        if len(self.panes) > 1 and self.questions and not self.has_voted and self._is_answered() and self.rights.may(votes.create_vote):
            with self.body:
                self._ballot()

    def _is_answered(self) -> bool:
        return all(len(pane.answers) == len(self.questions) and pane.answers[-1].strip() for pane in self.panes)

    async def _choose(self, pane: Pane, event: Any) -> None:
        pane.model, self.has_voted = event.value, False
        await self.keep()

    def _draw_talk(self, pane: Pane) -> None:
        s = self.s
        assert pane.place is not None
        pane.place.clear()
        with pane.place:
            if not self.questions:
                paragraph(s.t("chat.empty"), "dl-muted")
            for number, question in enumerate(self.questions):
                with box("dl-turn user") as turn:
                    Text(question, "div", "dl-text")
                    if self.rights.may(chat.answer):
                        edit = Text(s.t("chat.edit"), "button", "dl-btn small quiet").props("type=button")
                        edit.on("click", partial(self._edit, turn, number), [])
                if number < len(pane.answers) and pane.answers[number]:
                    self._draw_answer(pane, number)
            if pane.failure is not None:
                error_panel(s, pane.failure, where="dl-note bad")

    def _draw_answer(self, pane: Pane, number: int) -> None:
        is_newest = number == len(self.questions) - 1
        with box("dl-turn"):
            Text(pane.answers[number], "div", "dl-text")
            if is_newest and pane.told:
                Text(pane.told, "div", "dl-small dl-muted")
            if (is_newest and self.is_blind and not self.has_voted) or not self.rights.may(votes.create_rating):
                return
            asked = (self.s, self.project_id, pane.model, self._messages(pane, number + 1), pane.answers[number], pane.scores, self.keep)
            if is_newest:
                AnswerRating(*asked)
            else:
                with fold(self.s.t("chat.rate_earlier")):
                    AnswerRating(*asked)

    def _edit(self, turn: ui.element, number: int) -> None:
        """Change a message and have it answered anew; what followed it is left out."""
        s = self.s
        turn.clear()
        with turn:
            field_ = text_area(s.t("chat.edit"), self.questions[number], rows=3)
            field_.props(remove="debounce")

            async def send() -> None:
                text = str(field_.value or "")
                if not text.strip() or self.is_busy:
                    return
                self.questions = self.questions[:number]
                for pane in self.panes:
                    pane.cut(number)
                await self._send(text)

            with box("dl-row"):
                button(s.t("chat.send"), guarded(s, send), classes="small primary")
                button(s.t("basic.cancel"), self.draw_panes, classes="small quiet")

    def _messages(self, pane: Pane, until: int) -> list[Turn]:
        """What a model is sent: questions that it did not answer are left out."""
        told = [Turn(role="system", content=self.parameters.system)] if self.parameters.system.strip() else []
        for question, answer in zip(self.questions[: until - 1], pane.answers, strict=False):
            if answer:
                told += [Turn(role="user", content=question), Turn(role="assistant", content=answer)]
        return [*told, Turn(role="user", content=self.questions[until - 1])]

    async def _send(self, text: str) -> None:
        if self.is_blind:
            random.shuffle(self.panes)
        for pane in self.panes:
            pane.answers += [""] * (len(self.questions) - len(pane.answers))
        self.questions.append(text.strip())
        await self._answer_all()

    async def _again(self) -> None:
        if not self.questions or self.is_busy:
            return
        for pane in self.panes:
            pane.cut(len(self.questions) - 1)
        await self._answer_all()

    async def _answer_all(self) -> None:
        self.has_voted = False
        for pane in self.panes:
            pane.told, pane.failure = "", None
        self.draw_panes()
        self._offer(is_busy=True)
        await self.keep()
        await asyncio.gather(*(self._answer(pane) for pane in self.panes))
        self._offer(is_busy=False)
        self.draw_panes()
        await self.keep()

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
            text, told = Text("", "div", "dl-text"), Text(s.t("chat.waiting"), "div", "dl-small dl-muted")
        pane.under_way = Answering(s, self.project_id, question)
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
                speed = speed_of(end)
                pane.told = s.t("chat.speed", tokens=end.num_tokens or 0, speed=f"{speed:.0f}" if speed >= 10 else f"{speed:.1f}")
                pane.told += f" {s.t('chat.cut')}" if end.is_cut else ""
        except DanluError as error:
            pane.failure = error
            if isinstance(error, SignInError):
                error_toast(s, error)
        finally:
            pane.answers.append(pane.under_way.text)
            pane.under_way = None

    async def _clear(self) -> None:
        self.stop()
        self.questions, self.has_voted = [], False
        for pane in self.panes:
            pane.cut(0)
        self._offer(is_busy=False)
        await self.keep()
        self.draw_panes()

    def _ballot(self) -> None:
        """Which answer is better?"""
        s = self.s

        async def vote(winner: int | None) -> None:
            answers = [Shown(model=pane.model, text=pane.answers[-1]) for pane in self.panes]
            messages = self._messages(self.panes[winner or 0], len(self.questions))
            await s.do(votes.create_vote, self.project_id, NewVote(messages=messages, answers=answers, winner=winner, is_blind=self.is_blind))
            self.has_voted = True
            toast(s, s.t("chat.voted"), tone="good")
            self.draw_panes()
            await self.keep()
            if self.on_vote is not None:
                await self.on_vote()

        with box("dl-card", "section").props("role=group") as ballot:
            ballot._props["aria-label"] = s.t("chat.ballot")
            with box("dl-row"):
                Text(s.t("chat.ballot"), "h2")
                for number in range(len(self.panes)):
                    made = button(s.t("chat.better", letter=LETTERS[number]), guarded(s, partial(vote, number)))
                    made._props["aria-keyshortcuts"] = str(number + 1)
                button(s.t("chat.tie"), guarded(s, partial(vote, None)))._props["aria-keyshortcuts"] = "0"
            paragraph(s.t("chat.ballot_keys", number=len(self.panes)), "dl-small dl-muted")
