"""Use cases on the installation: is it well, what needs an administrator's eye."""

from __future__ import annotations

import os
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import danlu
from danlu.errors import DanluError
from danlu.services.platform.operations import Call, operation
from danlu.services.platform.platform import Platform
from danlu.store import alarms, queue, schema, workers
from danlu.store.alarms import ALARMS, Alarm
from danlu.store.engine import Connection
from danlu.store.rows import Page

DISK_LOW_BYTES = 2 * 2**30
DISK_READY_BYTES = 256 * 2**20
"""Below this nothing new is begun."""
MEMORY_LOW_BYTES = 512 * 2**20


@dataclass(frozen=True)
class WorkerStatus:
    """A supervisor, and when it was last heard of."""

    host: str
    num_slots: int
    started_at: float
    heartbeat_at: float
    is_alive: bool
    alarm: str | None
    """What keeps it from starting jobs."""


@dataclass(frozen=True)
class SystemStatus:
    """How the installation stands."""

    version: str
    now: float
    jobs: dict[str, int]
    """Number of jobs by state."""
    queue_age_seconds: float
    """How long the oldest job that could start has waited."""
    workers: list[WorkerStatus]
    disk_free_bytes: int
    disk_total_bytes: int
    memory_available_bytes: int
    memory_total_bytes: int
    alarms: list[Alarm]
    """Those that have not been cleared."""


@dataclass(frozen=True)
class Readiness:
    """Whether work can be taken on, by what it needs."""

    is_ready: bool
    checks: dict[str, bool]


@operation("GET", "/system", right="user")
def get_system_status(call: Call) -> SystemStatus:
    """How the installation stands: queue, workers, disk, memory, open alarms."""
    return _status(call.platform, call.connection)


@operation("GET", "/alarms", right="operator")
def list_alarms(call: Call, limit: int = 50, after: str | None = None) -> Page[Alarm]:
    """Alarms of this installation, newest first, also those that are over."""
    return ALARMS.page(call.connection, limit=limit, after=after)


def look(platform: Platform) -> SystemStatus:
    """How the installation stands, for the server's own pages."""
    with platform.database.reading() as connection:
        return _status(platform, connection)


def readiness(platform: Platform) -> Readiness:
    """Whether the database answers with the tables of this version, a worker is there, and there is room on the disk."""
    checks = {"database": False, "migrations": False, "worker": False, "disk": False}
    try:
        with platform.database.reading() as connection:
            checks["worker"] = any(worker.is_alive(time.time()) for worker in workers.all_workers(connection))
        checks["database"] = True
        checks["migrations"] = schema.is_current(platform.database)
        checks["disk"] = shutil.disk_usage(platform.home).free >= DISK_READY_BYTES
    except (DanluError, OSError):
        pass  # what could not be asked is not ready
    return Readiness(all(checks.values()), checks)


def watch(platform: Platform) -> list[Alarm]:
    """Look at disk, memory and workers; raise and clear alarms, and return those that have changed."""
    now, host = time.time(), socket.gethostname()
    disk = shutil.disk_usage(platform.home)
    available, total = memory()
    with platform.database.reading() as connection:
        known = workers.all_workers(connection)
        waiting, homes = queue.counts(connection).get("queued", 0), queue.homes_that_wait(connection, now)
    alive = {worker.home for worker in known if worker.is_alive(now)}
    late = any(home not in alive if home is not None else not alive for home in homes)
    with platform.database.writing() as connection:
        settled = (
            alarms.settle(connection, "disk", host, is_wrong=disk.free < DISK_LOW_BYTES, fields={"free_bytes": disk.free, "total_bytes": disk.total}),
            alarms.settle(connection, "memory", host, is_wrong=available < MEMORY_LOW_BYTES, fields={"available_bytes": available, "total_bytes": total}),
            alarms.settle(connection, "worker", "", is_wrong=late, fields={"num_queued": waiting}),
        )
    return [alarm for alarm in settled if alarm is not None]


def memory() -> tuple[int, int]:
    """Bytes of memory that programs can still have, and all there are."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        return found["MemAvailable"], found["MemTotal"]
    except (OSError, KeyError, ValueError, IndexError):
        page = os.sysconf("SC_PAGE_SIZE")
        return page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")


def rss_bytes() -> int:
    """Memory that this process holds."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _status(platform: Platform, connection: Connection) -> SystemStatus:
    now = time.time()
    disk, (available, total) = shutil.disk_usage(platform.home), memory()
    oldest = queue.waiting_since(connection, now)
    return SystemStatus(
        version=danlu.__version__,
        now=now,
        jobs=queue.counts(connection),
        queue_age_seconds=max(0.0, now - oldest) if oldest is not None else 0.0,
        workers=[
            WorkerStatus(worker.host, worker.num_slots, worker.started_at, worker.heartbeat_at, worker.is_alive(now), worker.alarm)
            for worker in workers.all_workers(connection)
        ],
        disk_free_bytes=disk.free,
        disk_total_bytes=disk.total,
        memory_available_bytes=available,
        memory_total_bytes=total,
        alarms=alarms.open_alarms(connection),
    )
