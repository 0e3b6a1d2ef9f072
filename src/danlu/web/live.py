"""Lists that keep themselves up to date."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from nicegui import ui

from danlu.store.jobs import Job

T = TypeVar("T")


async def refresh_every(seconds: float, read: Callable[[], Awaitable[T]], show: Callable[[T], None], key: Callable[[T], Any] = lambda found: found) -> None:
    """Show what `read` finds, and again whenever it has changed."""
    found = await read()
    show(found)
    shown = {"key": key(found)}

    async def look() -> None:
        found = await read()
        if key(found) != shown["key"]:
            shown["key"] = key(found)
            show(found)

    ui.timer(seconds, look, immediate=False)


def queue_key(queue: list[Job]) -> Any:
    """What of a queue is shown."""
    return [(job.id, job.state, job.priority, job.position, job.started_at) for job in queue]
