"""A row as a model reads it: its tokens, those that are trained on marked. A job of the queue renders it, since it loads a tokenizer."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from danlu.errors import DanluError, error_from
from danlu.services.platform import datasets, jobs, models, views
from danlu.services.platform.datasets import ExampleView
from danlu.store.datasets import DatasetVersion
from danlu.store.jobs import Job
from danlu.web.components.elements import Text, box, button, paragraph
from danlu.web.components.fields import choice
from danlu.web.components.messages import error_panel, guarded
from danlu.web.session import Session

LOOK_SECONDS = 0.5
EMBEDDED = "danlu/tiny"
MOST_SHOWN = 1200
"""Tokens of a part of an example that a page shows."""
FITTING: dict[str, tuple[str, ...]] = {
    "messages": ("sft",),
    "text": ("pretrain",),
    "preference": ("dpo", "sft"),
    "labelled": ("kto", "sft"),
    "prompt": ("grpo",),
}
"""Objectives that rows of each kind are for, the usual one first."""
PARTS: dict[str, tuple[str, ...]] = {"dpo": ("chosen", "rejected")}
"""What the parts of an example are, where it has several."""


class TokenView:
    """Choices, a button, and what the model reads."""

    def __init__(self, s: Session, version: DatasetVersion, number: int) -> None:
        self.s, self.version, self.number = s, version, number
        self.base_model = EMBEDDED
        self.objectives = FITTING["messages"]
        self.objective = self.objectives[0]

    def build(self) -> None:
        """Draw the button; the rest when it is pressed."""
        self.place = box("dl-col")
        with self.place:
            button(self.s.t("datasets.tokens"), guarded(self.s, self._open), classes="small", symbol="text_fields")

    async def _open(self) -> None:
        s = self.s
        report = (await s.do(datasets.get_dataset_version, self.version.id)).report or {}  # it may have come since the page was drawn
        self.objectives = FITTING.get(str(report.get("makes")), FITTING["messages"])
        self.objective = self.objectives[0]
        names = [model.name for model in await s.do(models.list_base_models)]
        drafted = str((await s.do(views.get_draft, "new_run")).values.get("base_model") or EMBEDDED)
        if drafted not in names and drafted.count("/") == 1:  # one of the hub, which the next run would take
            names.append(drafted)
        self.base_model = drafted if drafted in names else EMBEDDED
        self.place.clear()
        with self.place:
            Text(s.t("datasets.tokens"), "h3")
            with box("dl-row"):
                if len(names) > 1:
                    choice(s.t("datasets.tokens_model"), {name: name for name in names}, self.base_model, guarded(s, self._other_model))
                if len(self.objectives) > 1:
                    options = {name: s.t(f"datasets.tokens_for_{name}") for name in self.objectives}
                    choice(s.t("datasets.tokens_objective"), options, self.objective, guarded(s, self._other_objective))
            self.shown = box("dl-col")
        await self._ask()

    async def _other_model(self, event: Any) -> None:
        self.base_model = event.value
        await self._ask()

    async def _other_objective(self, event: Any) -> None:
        self.objective = event.value
        await self._ask()

    async def _ask(self) -> None:
        """Have the row rendered, and show it once it is."""
        s, mine = self.s, (self.base_model, self.objective)
        try:
            job = await s.do(datasets.show_example, self.version.id, self.number, ExampleView(base_model=self.base_model, objective=self.objective))
        except DanluError as error:
            self._clear()
            with self.shown:
                error_panel(s, error, where="dl-note bad")
            return
        self._clear()
        with self.shown:
            with box("dl-row"):
                ui.spinner(size="18px").props("aria-hidden=true")
                told = Text(s.t("datasets.tokens_queued"), "span", "dl-muted").props("role=status")
            timer = ui.timer(LOOK_SECONDS, lambda: look(), immediate=False)

        async def look() -> None:
            found = await s.do(jobs.get_job, job.id)
            if self.shown.is_deleted or mine != (self.base_model, self.objective):
                timer.cancel()
            elif found.is_over:
                timer.cancel()
                self._clear()
                with self.shown:
                    self._result(found)
            elif found.state == "running":
                told.text = s.t("datasets.tokens_running")

    def _clear(self) -> None:
        self.shown.clear()

    def _result(self, job: Job) -> None:
        if job.result is None or job.state != "succeeded":
            stopped = {"code": "DL000", "what": self.s.t("datasets.tokens_stopped"), "why": job.state, "fix": self.s.t("datasets.look_again")}
            error_panel(self.s, error_from(job.error or stopped), where="dl-note bad")
            return
        blocks, parts = job.result["blocks"], PARTS.get(self.objective, ())
        for place, block in enumerate(blocks):
            if len(blocks) == len(parts):
                Text(self.s.t(f"datasets.role_{parts[place]}"), "h3")
            _block(self.s, block["tokens"], block["loss_mask"], block["num_tokens"])


def _block(s: Session, tokens: list[str], mask: list[bool], num_tokens: int) -> None:
    paragraph(s.t("datasets.tokens_text", number=num_tokens, trained=sum(map(bool, mask))), "dl-muted dl-small")
    pairs, middle = list(zip(tokens, mask, strict=True)), max(0, len(tokens) - MOST_SHOWN)
    with box("dl-pre").props("tabindex=0"):
        for text, is_trained in pairs[: MOST_SHOWN // 2]:
            Text(text, "mark" if is_trained else "span", "dl-token")
        if middle:  # of a long example its end is shown too: there stands what is learnt
            Text(s.t("datasets.tokens_between", number=f"{middle:,}"), "div", "dl-muted")
        for text, is_trained in pairs[MOST_SHOWN // 2 + middle :]:
            Text(text, "mark" if is_trained else "span", "dl-token")
    if len(tokens) < num_tokens:
        paragraph(s.t("datasets.tokens_cut", number=len(tokens)), "dl-muted dl-small")
