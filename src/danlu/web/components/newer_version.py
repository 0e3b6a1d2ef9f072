"""Two people at work on one dataset: who saves last is told of what the other one has saved."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from danlu.errors import OutdatedError
from danlu.web.components.messages import choose
from danlu.web.session import Session


async def told_of_newer(s: Session, dataset_id: str, newest: int, save: Callable[[int | None], Awaitable[None]]) -> None:
    """Save a correction; where somebody else has made a version in between, tell it first and ask what is to become of this one."""
    try:
        await save(newest)
    except OutdatedError:
        outcomes = {"look": (s.t("datasets.newer_look"), "primary"), "beside": (s.t("datasets.newer_beside"), "danger")}
        chosen = await choose(s, s.t("datasets.newer_title"), s.t("datasets.newer_text"), outcomes)
        if chosen == "beside":
            await save(None)
        elif chosen == "look":
            ui.navigate.to(f"/datasets/{dataset_id}")
