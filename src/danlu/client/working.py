"""The worker that `Studio.open` starts when nobody works on its home: it ends when the queue has been empty for a while.

`danlu studio` and `danlu worker` are for machines that are always there. This one is for a script: it outlives the script, so that what
was submitted is carried out, and leaves nothing running behind.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable

from danlu.errors import DatabaseError, RunBusyError
from danlu.executors.local import LocalExecutor
from danlu.services.platform.platform import Platform
from danlu.store import jobs
from danlu.worker.supervisor import Supervisor

IDLE_SECONDS = 10.0


def has_work(platform: Platform) -> bool:
    """Whether a job runs or waits. One that a person has paused does not count: nothing happens to it by itself."""
    with platform.database.reading() as connection:
        return any(job.state != "paused" for job in jobs.queue(connection))


def until_idle(platform: Platform, *, idle_seconds: float = IDLE_SECONDS, clock: Callable[[], float] = time.monotonic) -> Callable[[], bool]:
    """Return a function that says whether nothing has been there to do for `idle_seconds`."""
    last_busy = clock()

    def is_idle() -> bool:
        nonlocal last_busy
        try:
            is_busy = has_work(platform)
        except DatabaseError:  # who cannot ask does not know that there is nothing to do
            is_busy = True
        if is_busy:
            last_busy = clock()
        return clock() - last_busy >= idle_seconds

    return is_idle


def main() -> int:
    """Work on the home of DANLU_HOME until it is idle; 0 also when another worker is there already."""
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    platform = Platform.open()
    is_idle = until_idle(platform)
    try:
        Supervisor(platform.database, platform.home, LocalExecutor(platform.home)).run(lambda: asked.is_set() or is_idle())
    except RunBusyError:
        return 0
    finally:
        platform.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
