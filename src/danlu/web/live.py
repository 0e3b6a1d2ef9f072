"""Lists that keep themselves up to date. What has not changed is left as it is: a press on it is never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

from nicegui import ui

from danlu.store.jobs import Job

T = TypeVar("T")


class Line(Protocol):
    """Something that stands for one thing of a list."""

    @property
    def element(self) -> ui.element:
        """What is moved and taken away with it."""


L = TypeVar("L", bound=Line)


class Lines(Generic[T, L]):
    """The lines of a list, each drawn once by `draw` and kept as long as its thing is in the list, whatever moves around it."""

    def __init__(self, place: ui.element, draw: Callable[[T], L], key: Callable[[T], str] = lambda thing: thing.id) -> None:  # type: ignore[attr-defined]
        self.place, self.draw, self.key = place, draw, key
        self.lines: dict[str, L] = {}

    def show(self, things: Iterable[T]) -> list[tuple[T, L]]:
        """Have a line for each of these in this order; return them, for whoever has more to say on some."""
        wanted = {self.key(thing): thing for thing in things}
        for gone in [name for name, line in self.lines.items() if name not in wanted or line.element.is_deleted]:
            line = self.lines.pop(gone)
            if not line.element.is_deleted:
                line.element.delete()
        there = self.place.default_slot.children
        for number, (name, thing) in enumerate(wanted.items()):
            if name not in self.lines:
                with self.place:
                    self.lines[name] = self.draw(thing)
            element = self.lines[name].element
            if there[number] is not element:
                element.move(target_index=number)
        return [(thing, self.lines[name]) for name, thing in wanted.items()]


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
