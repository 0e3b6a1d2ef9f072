"""What one thinks of an answer: one to five, and the answer as it should have been."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from nicegui import ui

from danlu.services.platform import votes
from danlu.services.platform.votes import NewRating, Turn
from danlu.web.components.elements import Text, box, button, fold, paragraph
from danlu.web.components.fields import text_area
from danlu.web.components.messages import guarded, toast
from danlu.web.session import Session

SCORES = (1, 2, 3, 4, 5)
CORRECTED_SCORE = 2
"""Of an answer that was corrected and not rated."""


class AnswerRating:
    """The row of scores below an answer, and the fold with its correction; `rated` is called after each."""

    def __init__(
        self, s: Session, project_id: str, model: str, messages: list[Turn], answer: str, scores: dict[int, int], rated: Callable[[], Awaitable[None]]
    ) -> None:
        self.s, self.project_id, self.model, self.messages, self.answer = s, project_id, model, messages, answer
        self.scores, self.rated = scores, rated
        """What was given, by number of the question."""
        self.number = sum(turn.role == "user" for turn in messages)
        self.place = box("dl-col")
        self._draw()

    async def _keep(self, score: int, correction: str | None = None) -> None:
        body = NewRating(messages=self.messages, answer=self.answer, model=self.model, score=score, correction=correction)
        await self.s.do(votes.create_rating, self.project_id, body)
        self.scores[self.number] = score
        self._draw()
        await self.rated()
        toast(self.s, self.s.t("chat.corrected" if correction else "chat.rated"), tone="good")

    async def _correct(self, field: ui.textarea) -> None:
        text = str(field.value or "").strip()
        if not text or text == self.answer.strip():
            toast(self.s, self.s.t("chat.correct_same"))
            return
        await self._keep(self.scores.get(self.number, CORRECTED_SCORE), text)

    def _draw(self) -> None:
        s, given = self.s, self.scores.get(self.number)
        self.place.clear()
        with self.place:
            with box("dl-row").props("role=group") as group:
                group._props["aria-label"] = s.t("chat.rate")
                Text(s.t("chat.rate"), "span", "dl-small dl-muted")
                with box("dl-seg"):
                    for score in SCORES:
                        made = Text(str(score), "button").props(f"type=button aria-pressed={'true' if score == given else 'false'}")
                        made._props["aria-label"] = s.t("chat.rate_score", score=score)
                        made.on("click", guarded(s, partial(self._keep, score)), [])
            with fold(s.t("chat.correct")), box("dl-col"):
                paragraph(s.t("chat.correct_help"), "dl-small dl-muted")
                corrected = text_area(s.t("chat.correct"), self.answer, rows=3)
                corrected.props(remove="debounce")
                with box("dl-row"):
                    button(s.t("chat.correct_save"), guarded(s, partial(self._correct, corrected)), classes="small")
