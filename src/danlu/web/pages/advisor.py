"""Fine-tune or not? Six questions and an advice."""

from __future__ import annotations

from danlu.services import advisor
from danlu.services.platform import views
from danlu.services.platform.views import Draft
from danlu.web.components.elements import STATE_TONES, Text, box, button, paragraph
from danlu.web.components.messages import guarded
from danlu.web.session import Session
from danlu.web.template import page

DRAFT = "advisor"


@page("/advisor", title="advisor.title", nav="advisor")
async def show(s: Session) -> None:
    """The questions one after the other; answers survive a reload."""
    draft = await s.do(views.get_draft, DRAFT)
    answers: dict[str, str] = {name: value for name, value in draft.values.items() if value in advisor.QUESTIONS.get(name, ("", {}))[1]}
    with box("dl-col"):
        Text(s.t("advisor.title"), "h1")
        paragraph(s.t("advisor.intro"), "dl-sub")
    place = box("dl-col wide")

    async def answer(name: str, value: str) -> None:
        answers[name] = value
        await s.do(views.save_draft, DRAFT, Draft(values=answers))
        draw()

    async def again() -> None:
        answers.clear()
        await s.do(views.save_draft, DRAFT, Draft())
        draw()

    async def back() -> None:
        answers.popitem()
        await s.do(views.save_draft, DRAFT, Draft(values=answers))
        draw()

    def draw() -> None:
        place.clear()
        with place:
            missing = [name for name in advisor.QUESTIONS if name not in answers]
            if missing:
                _question(missing[0])
            else:
                _advice(s, advisor.advise(advisor.Answers.model_validate(answers)))
            if answers:
                with box("dl-row"):
                    if missing:
                        button(s.t("basic.back"), guarded(s, back))
                    button(s.t("advisor.again"), guarded(s, again), classes="quiet")

    def _question(name: str) -> None:
        question, options = advisor.QUESTIONS[name]
        with box("dl-card", "section"):
            number = list(advisor.QUESTIONS).index(name) + 1
            Text(s.t("advisor.question", number=number, total=len(advisor.QUESTIONS)), "div", "dl-small dl-muted")
            Text(s.pick(question), "h2")
            with box("dl-options"):
                for value, label in options.items():
                    Text(s.pick(label), "button", "dl-option").props("type=button").on(
                        "click",
                        guarded(s, lambda value=value: answer(name, value)),
                        [],
                    )

    draw()


def _advice(s: Session, found: advisor.Recommendation) -> None:
    tone = "good" if found.advice == "fine_tune" else STATE_TONES["paused"]
    with box(f"dl-verdict {tone}", "section"):
        Text(s.pick(found.title), "div", "big")
        Text(s.t("advisor.reasons"), "h3")
        with box("dl-col", "ul").style("padding-left: 20px"):
            for reason in found.reasons:
                Text(s.pick(reason), "li")
        Text(s.t("advisor.next"), "h3")
        with box("dl-col", "ol").style("padding-left: 20px"):
            for step in found.next_steps:
                Text(s.pick(step), "li")
        if found.advice in ("fine_tune", "rag_then_fine_tune"):
            with box("dl-row"):
                button(s.t("advisor.new_run"), href="/new-run", classes="primary")
