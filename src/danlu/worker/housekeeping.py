"""What has to be done now and then, by whoever works on the queue: notices, the watch on disk and memory, old receipts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from danlu.services.platform import notices, receipts, storage, system
from danlu.services.platform.platform import Platform

logger = logging.getLogger(__name__)


@dataclass
class Chore:
    """Something to do every so often."""

    name: str
    every_seconds: float
    work: Callable[[], object]
    due_at: float = 0.0


class Housekeeper(threading.Thread):
    """A thread that does the chores until it is told to stop; one that fails is logged and done again at its time.

    Those of a server are only some: it keeps watch when the worker is gone.
    """

    def __init__(self, platform: Platform, *, only: tuple[str, ...] = ()) -> None:
        super().__init__(name="housekeeping", daemon=True)
        self.is_stopping = threading.Event()
        self.chores = [
            Chore("notices", 2.0, lambda: notices.deliver(platform)),
            Chore("watch", 30.0, lambda: _watch(platform)),
            Chore("receipts", 600.0, lambda: receipts.sweep(platform)),
            Chore("garbage", 6 * 3600.0, lambda: storage.collect(platform)),
        ]
        if only:  # not at once: the worker that is started beside it is not there yet
            self.chores = [replace(chore, due_at=time.monotonic() + chore.every_seconds) for chore in self.chores if chore.name in only]

    def run(self) -> None:
        """Do what is due, every second."""
        while not self.is_stopping.wait(1.0):
            self.round(time.monotonic())

    def round(self, now: float) -> None:
        """Do what is due."""
        for chore in self.chores:
            if chore.due_at > now:
                continue
            chore.due_at = now + chore.every_seconds
            try:
                chore.work()
            except Exception:  # a chore that fails must not keep the others from being done
                logger.exception("chore failed", extra={"chore": chore.name})

    def stop(self) -> None:
        """End the thread."""
        self.is_stopping.set()
        self.join(5.0)


def _watch(platform: Platform) -> None:
    for alarm in system.watch(platform):
        level = logging.WARNING if alarm.cleared_at is None else logging.INFO
        logger.log(level, "alarm %s", "raised" if alarm.cleared_at is None else "cleared", extra={"kind": alarm.kind, **alarm.fields})
