"""Use cases on workers: who carries out jobs, and whether it is there."""

from __future__ import annotations

import time
from dataclasses import dataclass

from danlu.services.platform.operations import Call, operation
from danlu.store import workers


@dataclass(frozen=True)
class WorkerState:
    """The worker of one home folder."""

    home: str
    """Id of the home folder, as jobs name it."""
    host: str
    is_alive: bool
    """Whether it was heard lately. The jobs of a home without a live worker go on, and are settled when it is back."""
    num_slots: int
    heartbeat_at: float
    alarm: str | None
    """What keeps it from starting jobs: a full disk, say."""


@operation("GET", "/workers", right="user")
def list_workers(call: Call) -> list[WorkerState]:
    """Workers known to this installation, also those that are gone."""
    now = time.time()
    return [
        WorkerState(worker.home, worker.host, worker.is_alive(now), worker.num_slots, worker.heartbeat_at, worker.alarm)
        for worker in workers.all_workers(call.connection)
    ]
