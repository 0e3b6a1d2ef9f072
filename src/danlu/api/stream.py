"""Server-sent events: a run's events and numbers, a job's log, as they happen.

However many clients follow a thing, it is polled once. A client first gets what it has missed since its `Last-Event-ID`, then what
the poller finds. Its right is checked again and again while it listens.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from danlu.api.routes import ID, PROBLEM, TEXT_PATTERN, GetActor
from danlu.errors import DanluError, TooManyStreamsError
from danlu.services.platform.jobs import get_job
from danlu.services.platform.operations import Operation
from danlu.services.platform.platform import Platform
from danlu.services.platform.runs import get_run
from danlu.services.platform.streams import LogSource, Message, RunSource, Source, parse

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 10.0
MAX_KEPT = 2000
"""Messages that a slow client may be behind before it has to read the database again."""
MAX_STREAMS = 400
MAX_STREAMS_OF_ONE = 100
"""Of one user, else of one address: who opens as many as there are room for keeps nobody else from following."""
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class Feed:
    """What one poller has found, for everyone who follows the same thing."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.position = ""
        self.messages: deque[Message] = deque(maxlen=MAX_KEPT)
        self.num_found = 0
        self.num_clients = 0
        self.is_over = False
        self.news = asyncio.Condition()
        self.is_begun = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def poll(self) -> None:
        """Look for news twice a second until it is over."""
        try:
            self.position = await run_in_threadpool(self.source.end)
            self.is_begun.set()
            while not self.is_over:
                try:
                    found = await run_in_threadpool(self.source.read, self.position)
                except DanluError as error:  # the database is busy or away: the next look tries again
                    logger.warning("a stream could not be read: %s", error.what)
                    found = []
                else:
                    self.is_over = not found and self.source.is_over()
                await self._tell(found)
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self.is_over = True
            self.is_begun.set()
            await self._tell([])

    def since(self, number: int) -> list[Message] | None:
        """Messages from a number on; None when the first of them are no longer kept."""
        first = self.num_found - len(self.messages)
        return None if number < first else list(islice(self.messages, number - first, None))

    async def _tell(self, found: list[Message] | Any) -> None:
        async with self.news:
            for message in found:
                self.messages.append(message)
                self.num_found += 1
                self.position = message.position or self.position
            if found or self.is_over:
                self.news.notify_all()


class Streams:
    """Every feed of this server; they end with it."""

    def __init__(self) -> None:
        self.feeds: dict[tuple[str, str], Feed] = {}
        self.num_of: Counter[str] = Counter()
        """Streams that are open, by who follows."""
        self.is_stopping = False

    @property
    def num_clients(self) -> int:
        """Streams that are open."""
        return sum(feed.num_clients for feed in self.feeds.values())

    def enter(self, key: tuple[str, str], source: Callable[[], Source], who: str) -> Feed:
        """Join the feed of a thing; the first one starts its poller.

        Raises:
            TooManyStreamsError: the server has as many streams as it can bear, or who asks has as many as one may.
        """
        if self.num_of[who] >= MAX_STREAMS_OF_ONE:
            raise TooManyStreamsError(
                f"you have {MAX_STREAMS_OF_ONE} streams open", why="each takes memory of the server", fix="close some, or ask again later"
            )
        if self.num_clients >= MAX_STREAMS:
            raise TooManyStreamsError(f"{MAX_STREAMS} streams are open", why="each takes memory of the server", fix="close some, or ask again later")
        feed = self.feeds.get(key)
        if feed is None or feed.is_over:
            feed = self.feeds[key] = Feed(source())
            feed.task = asyncio.create_task(feed.poll())
        feed.num_clients += 1
        self.num_of[who] += 1
        return feed

    def leave(self, key: tuple[str, str], feed: Feed, who: str) -> None:
        """Leave a feed; the last one stops its poller."""
        feed.num_clients -= 1
        self.num_of[who] -= 1
        if not self.num_of[who]:
            del self.num_of[who]
        if feed.num_clients <= 0:
            if feed.task is not None:
                feed.task.cancel()
            if self.feeds.get(key) is feed:
                del self.feeds[key]

    async def stop(self) -> None:
        """End every stream."""
        self.is_stopping = True
        for feed in list(self.feeds.values()):
            feed.is_over = True
            async with feed.news:
                feed.news.notify_all()


async def _position(
    last_event_id: Annotated[str | None, Header(max_length=200, pattern=TEXT_PATTERN, description="`id` of the last message that was received.")] = None,
    after: Annotated[str | None, Query(max_length=200, pattern=TEXT_PATTERN, description="The same, for clients that cannot send headers.")] = None,
) -> str | None:
    return last_event_id or after


def router(get_actor: GetActor) -> APIRouter:
    """Return the routes of streams; `get_actor` says who asks."""
    made = APIRouter(tags=["streams"], responses=PROBLEM)
    told: dict[int | str, dict[str, Any]] = {200: {"description": "Server-sent events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}}

    @made.get("/runs/{run_id}/events/stream", operation_id="stream_run", responses={**PROBLEM, **told}, response_class=_Stream, summary="Follow a run.")
    async def stream_run(request: Request, run_id: Annotated[str, ID], after: Annotated[str | None, Depends(_position)]) -> StreamingResponse:
        """Events (`event`), numbers (`point`) and the run itself whenever it changes (`run`), until it is over (`end`)."""
        return await _answer(request, get_actor, get_run, "run", run_id, parse(after, RunSource.start), RunSource)

    @made.get("/jobs/{job_id}/log/stream", operation_id="stream_log", responses={**PROBLEM, **told}, response_class=_Stream, summary="Follow a job's log.")
    async def stream_log(request: Request, job_id: Annotated[str, ID], after: Annotated[str | None, Depends(_position)]) -> StreamingResponse:
        """Parts of the log (`log`), a new attempt (`attempt`), until the job is over (`end`)."""
        return await _answer(request, get_actor, get_job, "job", job_id, parse(after, LogSource.start), LogSource)

    return made


class _Stream(StreamingResponse):
    media_type = "text/event-stream"


async def _answer(
    request: Request,
    get_actor: GetActor,
    look: Operation[..., Any],
    noun: str,
    id: str,
    position: str,
    source: Callable[[Platform, str], Source],
) -> StreamingResponse:
    platform, streams = request.app.state.platform, request.app.state.streams

    def check() -> str:
        request.scope.pop("danlu.actor", None)  # who asks is found out again: sessions end, roles change
        actor = get_actor(request)
        look(platform, actor, id)
        return actor.user_id or f"at {actor.address}"

    async def may_see() -> str:
        return await run_in_threadpool(check)

    who, key = await may_see(), (noun, id)
    feed = streams.enter(key, lambda: source(platform, id), who)
    return _Stream(_follow(streams, key, feed, position, may_see, who), headers=HEADERS)


async def _follow(streams: Streams, key: tuple[str, str], feed: Feed, position: str, may_see: Callable[[], Any], who: str) -> AsyncIterator[bytes]:
    """Yield what a client has missed, then what happens, and a sign of life where nothing does."""
    try:
        yield b"retry: 2000\n\n"
        await feed.is_begun.wait()
        number: int | None = None
        checked = asyncio.get_running_loop().time()
        while True:
            if number is None:  # read what was missed, up to where the poller is
                number, until = feed.num_found, feed.position
                while missed := await run_in_threadpool(feed.source.read, position, until):
                    for message in missed:
                        yield _written(message)
                        position = message.position or position
            news = feed.since(number)
            if news is None:
                number = None
                continue
            for message in news:
                yield _written(message)
                position = message.position or position
            number += len(news)
            if feed.is_over and number >= feed.num_found:
                if not streams.is_stopping:
                    yield b"event: end\ndata: {}\n\n"
                return
            now = asyncio.get_running_loop().time()
            if now - checked >= HEARTBEAT_SECONDS:
                await may_see()
                checked = now
                yield b": still here\n\n"
            await _wait(feed, number)
    except DanluError as error:  # the right was taken away, or the thing deleted: the answer has begun, so it just ends
        logger.info("a stream ends: %s", error.what)
    finally:
        streams.leave(key, feed, who)


async def _wait(feed: Feed, number: int) -> None:
    """Until there is news, or it is time for a sign of life."""
    async with feed.news:
        if feed.num_found <= number and not feed.is_over:
            try:
                await asyncio.wait_for(feed.news.wait(), HEARTBEAT_SECONDS)
            except TimeoutError:
                return


def _written(message: Message) -> bytes:
    position = b"" if message.position is None else b"id: " + message.position.encode() + b"\n"
    return position + b"event: " + message.event.encode() + b"\ndata: " + message.data + b"\n\n"
