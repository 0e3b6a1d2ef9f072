"""`studio.jobs`: the queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from danlu.client.transport import Method, Noun
from danlu.services.platform import jobs

POLL_SECONDS = 0.5


class Jobs(Noun):
    """Jobs: look at them, hold them back, reorder and cancel them, read their logs."""

    queue = Method(jobs.list_queue)
    list = Method(jobs.list_jobs)
    get = Method(jobs.get_job)
    cancel = Method(jobs.cancel_job)
    pause = Method(jobs.pause_job)
    resume = Method(jobs.resume_job)
    move = Method(jobs.move_job)
    read_log = Method(jobs.read_log)

    def log(self, job_id: str, *, attempt: int | None = None, follow: bool = False, sleep: Callable[[float], None] = time.sleep) -> Iterator[str]:
        """The log of a job's newest attempt (or of one), piece by piece; with `follow` until nothing more will come.

        A job that is started anew begins a new log: what follows is that one, from its beginning.
        """
        offset, current = 0, attempt or self.get(job_id).attempt
        while True:
            part = self.read_log(job_id, attempt=current or None, offset=offset)
            if part.text:
                yield part.text
            progressed, offset = bool(part.text), max(offset, part.next)
            if progressed:
                continue
            newest = self.get(job_id)
            if attempt is None and newest.attempt != current:
                offset, current = 0, newest.attempt
                continue
            if part.is_over or not follow:
                return
            sleep(POLL_SECONDS)
