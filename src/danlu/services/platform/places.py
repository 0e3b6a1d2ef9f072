"""Places for what takes memory or threads (parts of files, operations, answers of models): so many at a time, of which nobody has all. Holds no operations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

NUM_AT_A_TIME = 8
"""Parts of files that are held in memory; more wait."""
NUM_OF_A_USER = 4
"""Who sends slowly does not keep the others waiting."""


class Places:
    """The places of one door."""

    def __init__(self, number: int = NUM_AT_A_TIME, of_a_user: int = NUM_OF_A_USER) -> None:
        self.of_a_user = of_a_user
        self._all = asyncio.Semaphore(number)
        self._of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def one(self, user_id: str | None) -> AsyncIterator[None]:
        """Hold a place; wait until there is one."""
        own = self._of.setdefault(user_id or "", asyncio.Semaphore(self.of_a_user))
        async with own, self._all:
            yield
