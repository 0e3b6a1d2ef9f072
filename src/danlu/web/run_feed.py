"""What moves: one poller for each run that someone looks at, shared by all who do; it ends with the last of them.

A viewer first gets everything there is and then only what is new, from the same place and in the same order, so nothing is missed
and nothing comes twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from nicegui import Client, ui

from danlu.errors import DanluError
from danlu.services.platform import jobs, runs, watching
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.store.jobs import Job
from danlu.store.measurements import Point, RunEvent
from danlu.store.runs import Run
from danlu.web.session import Session, aside

T = TypeVar("T")
logger = logging.getLogger(__name__)
TICK_SECONDS = 0.5
TICKS_BETWEEN_CHECKS = 20
"""So often a viewer is asked for the right to look again."""
IDLE_TICKS = 6
"""A run that is over is looked at every so many ticks: it can be started again."""
MAX_LOG_CHARS = 100_000
READ_LIMIT = 2_000


@dataclass
class Delta:
    """What is new about a run."""

    run: Run
    jobs: list[Job]
    points: list[Point] = field(default_factory=list)
    events: list[RunEvent] = field(default_factory=list)
    log: str = ""
    is_first: bool = False
    """Whether this is everything there is."""


Show = Callable[[Delta], None]


@dataclass
class Viewer:
    """One open page."""

    session: Session
    client: Client
    show: Show


class RunFeed:
    """The poller of one run, and all it has read so far."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.viewers: list[Viewer] = []
        self.points: list[Point] = []
        self.events: list[RunEvent] = []
        self.last_steps: dict[watching.Kind, int] = {"train": -1, "validation": -1}
        """Steps that were read; each kind by itself, since a validation is told after its step."""
        self.log, self.log_job, self.log_attempt, self.log_offset = "", "", 0, 0
        self.last: Delta | None = None
        self.task: asyncio.Task[None] | None = None
        self.is_reading = asyncio.Lock()

    async def join(self, viewer: Viewer) -> None:
        """Show a new viewer everything, then what comes.

        Raises:
            DanluError: it may not look, or the run is gone.
        """
        async with self.is_reading:
            await viewer.session.do(runs.get_run, self.run_id)
            if self.last is None:
                await self._read(viewer.session)
            assert self.last is not None
            viewer.show(Delta(self.last.run, self.last.jobs, self.points, self.events, self.log, is_first=True))
            self.viewers.append(viewer)
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._poll())

    async def _poll(self) -> None:
        tick = 0
        while self.viewers:
            await asyncio.sleep(TICK_SECONDS)
            tick += 1
            self.viewers = [viewer for viewer in self.viewers if not viewer.client.is_deleted]
            if not self.viewers or (self.last is not None and self.last.run.state in ("succeeded", "failed", "cancelled") and tick % IDLE_TICKS):
                continue
            async with self.is_reading:
                if tick % TICKS_BETWEEN_CHECKS == 0:
                    await self._check()
                try:
                    delta = await self._read(self.viewers[0].session) if self.viewers else None
                except DanluError as error:  # the database is away, or this viewer may no longer look: the next tick tells
                    logger.info("run %s: %s", self.run_id, error.what)
                    await self._check()
                    continue
            if delta is not None:
                self._send(delta)
        FEEDS.pop(self.run_id, None)

    async def _check(self) -> None:
        """Let go of viewers that may no longer look; their page tells why."""
        for viewer in list(self.viewers):
            try:
                await viewer.session.do(runs.get_run, self.run_id)
            except DanluError as error:
                self.viewers.remove(viewer)
                viewer.client.handle_exception(error)

    def _send(self, delta: Delta) -> None:
        for viewer in self.viewers:
            if not viewer.client.is_deleted:  # what a page that is connecting, or was cut off, has not heard waits for it
                with viewer.client:
                    viewer.show(delta)

    async def _read(self, session: Session) -> Delta | None:
        """Read what is new; None when nothing is."""
        delta = await aside(lambda: self._read_now(session))
        before = self.last
        self.points += delta.points
        for kind in self.last_steps:
            self.last_steps[kind] = max((point.step for point in delta.points if point.kind == kind), default=self.last_steps[kind])
        self.events += delta.events
        self.log = (self.log + delta.log)[-MAX_LOG_CHARS:]
        self.last = delta
        has_changed = before is None or _key(before) != _key(delta)
        return delta if has_changed or delta.points or delta.events or delta.log else None

    def _read_now(self, session: Session) -> Delta:
        platform, actor = session.platform, session.actor
        delta = Delta(runs.get_run(platform, actor, self.run_id), runs.list_run_jobs(platform, actor, self.run_id))
        for kind, last in self.last_steps.items():
            delta.points += _all(partial(_points, platform, actor, self.run_id, kind), last, "step")
        number = self.events[-1].number if self.events else -1
        delta.events = _all(lambda after: watching.list_events(platform, actor, self.run_id, after=after, limit=READ_LIMIT), number, "number")
        if delta.jobs:
            delta.log = self._read_log(session, delta.jobs[-1])
        return delta

    def _read_log(self, session: Session, job: Job) -> str:
        if (job.id, job.attempt) != (self.log_job, self.log_attempt):
            self.log_job, self.log_attempt, self.log_offset = job.id, job.attempt, 0
        if not job.attempt:
            return ""
        part = jobs.read_log(session.platform, session.actor, job.id, attempt=job.attempt, offset=self.log_offset)
        self.log_offset = part.next
        return part.text


FEEDS: dict[str, RunFeed] = {}


def _points(platform: Platform, actor: Actor, run_id: str, kind: watching.Kind, after: int) -> list[Point]:
    return watching.list_points(platform, actor, run_id, kind=kind, after=after, limit=READ_LIMIT)


def _all(read: Callable[[int], list[T]], after: int, place: str) -> list[T]:
    """Everything after a place, however many answers it takes."""
    found: list[T] = []
    while True:
        part = read(getattr(found[-1], place) if found else after)
        found += part
        if len(part) < READ_LIMIT:
            return found


def _key(delta: Delta) -> tuple[Any, ...]:
    return delta.run.version, [(job.state, job.attempt) for job in delta.jobs]


async def watch_run(s: Session, run_id: str, show: Show) -> None:
    """Keep a page in step with a run.

    Raises:
        DanluError: the viewer may not look, or the run is gone.
    """
    feed = FEEDS.setdefault(run_id, RunFeed(run_id))
    await feed.join(Viewer(s, ui.context.client, show))


async def stop() -> None:
    """End every poller: the server stops."""
    for feed in list(FEEDS.values()):
        if feed.task is not None:
            feed.task.cancel()
    FEEDS.clear()
