"""Whose turn it is: threads for operations, and others for answers of models, of which nobody has all.

An operation is quick, as a rule; an answer takes as long as the model writes. So answers have threads of their own, else a dozen people
who chat would keep everybody's requests waiting. Of both kinds one asker has some at a time, and waits for the next: others go on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Generator
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from starlette.concurrency import run_in_threadpool

from danlu.services.platform.places import Places

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

P = ParamSpec("P")
R = TypeVar("R")
NUM_THREADS = 12
"""Operations at a time; the database has a connection for each (store.engine.NUM_CONNECTIONS)."""
NUM_OF_ONE = 8
"""Operations of one asker at a time."""
NUM_ANSWERS = 24
"""Answers of models that are waited for at a time."""
NUM_ANSWERS_OF_ONE = 8
MAX_KNOWN = 4096
"""Sessions and keys whose user is remembered, so that somebody with many keys has no more turns than with one."""


class Turns:
    """The turns of one server."""

    def __init__(self) -> None:
        self._operations = Places(NUM_THREADS, NUM_OF_ONE)
        self._answers = Places(NUM_ANSWERS, NUM_ANSWERS_OF_ONE)
        self._users: OrderedDict[str, str] = OrderedDict()
        self._answer_threads: CapacityLimiter | None = None

    async def operation(self, request: HTTPConnection, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do something quick in a thread, when it is the asker's turn."""
        async with self._operations.one(self._asker(request)):
            try:
                return await run_in_threadpool(work, *args, **kwargs)
            finally:
                self._remember(request)

    async def answer(self, request: HTTPConnection, work: Callable[[], R]) -> R:
        """Wait for a model, or for another server, in a thread, when it is the asker's turn."""
        async with self._answers.one(self._asker(request)):
            return await anyio.to_thread.run_sync(work, limiter=self._threads())

    async def pieces(self, request: HTTPConnection, pieces: Generator[bytes]) -> AsyncIterator[bytes]:
        """The pieces of an answer as they come; closing this closes them."""
        async with self._answers.one(self._asker(request)):
            try:
                while (piece := await anyio.to_thread.run_sync(next, pieces, None, limiter=self._threads())) is not None:
                    yield piece
            finally:
                pieces.close()

    def _threads(self) -> CapacityLimiter:
        if self._answer_threads is None:
            self._answer_threads = CapacityLimiter(NUM_ANSWERS)
        return self._answer_threads

    def _asker(self, request: HTTPConnection) -> str:
        """Who asks, as far as is known before it has been looked up: the user of a session or key, else that itself, else the address."""
        asker: str = request.scope["danlu.incoming"].asker
        return self._users.get(asker, asker)

    def _remember(self, request: HTTPConnection) -> None:
        actor = request.scope.get("danlu.actor")
        if actor is None or actor.user_id is None:
            return
        self._users[request.scope["danlu.incoming"].asker] = actor.user_id
        while len(self._users) > MAX_KNOWN:
            self._users.popitem(last=False)
