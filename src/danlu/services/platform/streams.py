"""What can be followed while it happens: a run's events and numbers, a job's log. Read forward from a position that is text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import orjson

from danlu.errors import NotFoundError, RequestError
from danlu.services.platform import jobs
from danlu.services.platform.access import Actor
from danlu.services.platform.operations import Call
from danlu.services.platform.platform import Platform
from danlu.store import feeds
from danlu.store.feeds import Position
from danlu.store.runs import RUNS

LOG_PART_BYTES = 64 * 1024
OVER = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Message:
    """One thing that happened."""

    event: str
    data: bytes
    """JSON."""
    position: str | None
    """Where to go on after it; None for what is only of the moment."""


class Source(Protocol):
    """Something to follow. Its methods block."""

    def end(self) -> str:
        """The position of somebody who knows everything so far."""

    def read(self, position: str, until: str | None = None) -> Sequence[Message]:
        """What follows a position, up to another one; nothing when there is nothing new."""

    def is_over(self) -> bool:
        """Whether nothing more will come."""


def parse(text: str | None, start: str) -> str:
    """The position that a client sent; the start when it sent none.

    Raises:
        RequestError: it is none.
    """
    if text is None or not text.strip():
        return start
    if re.fullmatch(r"[0-9]{1,15}\.-?[0-9]{1,15}(\.[\w-]{0,100})?", text.strip()) is None:
        raise RequestError(
            "this is no position in a stream", why="Last-Event-ID must be an `id` that the stream sent", fix="leave it out to begin at the start"
        )
    return text.strip()


class RunSource:
    """Events and points of a run, and the run itself whenever it has changed."""

    start = "0.-1"

    def __init__(self, platform: Platform, run_id: str) -> None:
        self.platform, self.run_id = platform, run_id
        self._version = -1
        self._is_over = False

    def end(self) -> str:
        """The position of somebody who knows everything so far."""
        with self.platform.database.reading() as connection:
            return _written(feeds.end_of(connection, self.run_id))

    def read(self, position: str, until: str | None = None) -> list[Message]:
        """Events, points, and the run when it has changed."""
        at, bound = _position(position), _position(until) if until is not None else None
        with self.platform.database.reading() as connection:
            run = RUNS.find(connection, id=self.run_id)
            items = feeds.read_after(connection, self.run_id, at) if run is not None else []
        messages = []
        for item in items:
            if bound is not None and bound.is_behind(item):
                continue
            at = at.after(item)
            number, fields = ("number", "fields") if item.name == "event" else ("step", "values")
            named = {number: item.number, "kind": item.kind, fields: item.fields}
            messages.append(Message(item.name, orjson.dumps(named), _written(at)))
        self._is_over = run is None or (run.state in OVER and not items)
        if run is not None and until is None and run.version != self._version:
            self._version = run.version
            shown = {name: value for name, value in asdict(run).items() if name not in ("recipe", "resolved")}
            messages.append(Message("run", orjson.dumps(shown), None))
        return messages

    def is_over(self) -> bool:
        """Whether the run had ended when it was last read, and nothing was new."""
        return self._is_over


class LogSource:
    """The log of a job, attempt after attempt."""

    start = "1.0"

    def __init__(self, platform: Platform, job_id: str) -> None:
        self.platform, self.job_id = platform, job_id
        self._is_over = False

    def end(self) -> str:
        """The end of the newest attempt's log, before a character that has not come whole."""
        with self.platform.database.reading() as connection:
            call = Call(self.platform, Actor.local(), None, connection)
            attempt = max(1, jobs.get_job.function(call, self.job_id).attempt)
            path = self.platform.job_folder(self.job_id) / f"attempt-{attempt}" / "log.txt"
            size = path.stat().st_size if path.is_file() else 0
            return (
                f"{attempt}.{jobs.read_log.function(call, self.job_id, attempt=attempt, offset=max(0, size - 4), limit=min(size, 4)).next}"
                if size
                else f"{attempt}.0"
            )

    def read(self, position: str, until: str | None = None) -> list[Message]:
        """The next part of the log."""
        attempt, offset = (int(part) for part in position.split(".")[:2])
        limit = self._limit(position, until)
        if limit <= 0:
            return []
        with self.platform.database.reading() as connection:
            call = Call(self.platform, Actor.local(), None, connection)
            try:
                newest = jobs.get_job.function(call, self.job_id).attempt
                part = jobs.read_log.function(call, self.job_id, attempt=attempt, offset=offset, limit=limit)
            except NotFoundError:
                self._is_over = True
                return []
        self._is_over = part.is_over and attempt >= newest
        if part.text:
            told = {"attempt": attempt, "offset": offset, "text": part.text}
            return [Message("log", orjson.dumps(told), f"{attempt}.{part.next}")]
        if attempt < newest and part.is_over:
            return [Message("attempt", orjson.dumps({"attempt": attempt + 1}), f"{attempt + 1}.0")]
        return []

    def is_over(self) -> bool:
        """Whether the job had ended when its log was last read to the end."""
        return self._is_over

    def _limit(self, position: str, until: str | None) -> int:
        if until is None:
            return LOG_PART_BYTES
        (attempt, offset), (last, end) = ([int(part) for part in text.split(".")[:2]] for text in (position, until))
        return LOG_PART_BYTES if attempt < last else min(LOG_PART_BYTES, end - offset) if attempt == last else 0


def _written(position: Position) -> str:
    return f"{position.event}.{position.step}" + (f".{'-'.join(position.kinds)}" if position.kinds else "")


def _position(text: str) -> Position:
    event, step, *kinds = text.split(".")
    return Position(int(event), int(step), tuple(filter(None, kinds[0].split("-"))) if kinds else ())
