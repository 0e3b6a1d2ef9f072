"""A row as a model reads it: its tokens, those that are trained on marked. A job of the queue renders it, since it loads a tokenizer."""

from __future__ import annotations

from nicegui import ui

from danlu.errors import DanluError
from danlu.services.platform import datasets, jobs
from danlu.services.platform.datasets import ExampleView
from danlu.web.components.elements import Text, box, paragraph
from danlu.web.components.messages import error_panel
from danlu.web.components.preview import waiting_card
from danlu.web.session import Session

LOOK_SECONDS = 0.5
OVER = ("succeeded", "failed", "cancelled")


async def show_tokens(s: Session, place: ui.element, version_id: str, number: int) -> None:
    """Ask for the tokens of a row, and show them once they are there."""
    job = await s.do(datasets.show_example, version_id, number, ExampleView())
    place.clear()
    with place:
        waiting_card(s)
        timer = ui.timer(LOOK_SECONDS, lambda: look(), immediate=False)

    async def look() -> None:
        found = await s.do(jobs.get_job, job.id)
        if found.state not in OVER or place.is_deleted:
            return
        timer.cancel()
        place.clear()
        with place:
            if found.result is not None and found.state == "succeeded":
                for block in found.result["blocks"]:
                    _block(s, block["tokens"], block["loss_mask"], block["num_tokens"])
            else:
                error = found.error or {}
                error_panel(s, DanluError(error.get("what", found.state), why=error.get("why", ""), fix=error.get("fix", "")), where="dl-note bad")


def _block(s: Session, tokens: list[str], mask: list[bool], num_tokens: int) -> None:
    paragraph(s.t("datasets.tokens_text", number=num_tokens, trained=sum(map(bool, mask))), "dl-muted dl-small")
    with box("dl-pre").props("tabindex=0"):
        for text, is_trained in zip(tokens, mask, strict=True):
            Text(text, "mark" if is_trained else "span", "dl-token")
    if len(tokens) < num_tokens:
        paragraph(s.t("datasets.tokens_cut", number=len(tokens)), "dl-muted dl-small")
