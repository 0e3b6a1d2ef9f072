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
from danlu.services.platform.platform import Platform
from danlu.store import queue, workers
from danlu.worker.housekeeping import Housekeeper
from danlu.worker.supervisor import Supervisor

IDLE_SECONDS = 10.0


def has_work(platform: Platform) -> bool:
    """Whether a job runs or waits that this home may carry out. One that a person has paused does not count: nothing happens to it by itself."""
    home = workers.home_id(platform.database, platform.home)
    with platform.database.reading() as connection:
        return any(job.state != "paused" and job.home in (None, home) for job in queue.unfinished(connection))


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
    housekeeper, is_idle = Housekeeper(platform), until_idle(platform)

    def is_stopping() -> bool:
        if not housekeeper.is_alive():
            housekeeper.start()  # asked for the first time: the lock of the home is ours
        return asked.is_set() or is_idle()

    try:
        Supervisor.of(platform).run(is_stopping)
    except RunBusyError:
        return 0
    finally:
        if housekeeper.is_alive():
            housekeeper.stop()
        platform.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
