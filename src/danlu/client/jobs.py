"""`studio.jobs`: the queue."""

from __future__ import annotations

from collections.abc import Iterator

from danlu.client.transport import Method, Noun
from danlu.services.platform import jobs, workers


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
    workers = Method(workers.list_workers)

    def log(self, job_id: str, *, attempt: int | None = None, follow: bool = False) -> Iterator[str]:
        """The log of a job's newest attempt (or of one), piece by piece; with `follow` that of every attempt, until the job is over."""
        if follow:
            yield from (found.fields["text"] for found in self.transport.follow("jobs", job_id) if found.kind == "log")
            return
        offset = 0
        while (part := self.read_log(job_id, attempt=attempt, offset=offset)).text:
            yield part.text
            offset = part.next
