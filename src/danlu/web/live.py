"""Lists that keep themselves up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from nicegui import ui

from danlu.store.jobs import Job

T = TypeVar("T")


async def refresh_every(
    seconds: float, read: Callable[[], Awaitable[T]], show: Callable[[T], None], key: Callable[[T], Any] = lambda found: found
) -> Callable[[], Awaitable[None]]:
    """Show what `read` finds, and again whenever it has changed; return what looks at once, for who has just changed it."""
    found = await read()
    show(found)
    shown = {"key": key(found)}

    is_looking = asyncio.Lock()  # what was read first is never shown last

    async def look() -> None:
        async with is_looking:
            found = await read()
            if key(found) != shown["key"]:
                shown["key"] = key(found)
                show(found)

    ui.timer(seconds, look, immediate=False)
    return look


def queue_key(queue: list[Job]) -> Any:
    """What of a queue is shown."""
    return [(job.id, job.state, job.priority, job.position, job.started_at) for job in queue]
