"""Use cases on the queue: look at jobs, hold them back, reorder and cancel them, read their logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from danlu.files import storage_errors
from danlu.recipe.base import StrictModel
from danlu.services.platform import quotas
from danlu.services.platform.access import check, visible_projects
from danlu.services.platform.operations import Call, operation
from danlu.store import jobs, queue
from danlu.store.jobs import JOBS, Job
from danlu.store.rows import Page

Priority = Literal["express", "standard", "saver"]
MAX_LOG_BYTES = 256 * 1024


class Move(StrictModel):
    """A new place in the queue."""

    before: str | None = None
    """Job to stand before; last in its class when left out."""
    priority: Priority | None = None
    """Class to move to."""


@dataclass(frozen=True)
class LogPart:
    """A part of a job's log."""

    text: str
    next: int
    """Offset in bytes at which the next part begins."""
    is_over: bool
    """Whether nothing more will come."""


@operation("GET", "/jobs", right="user")
def list_queue(call: Call, project_id: str | None = None) -> list[Job]:
    """Jobs that are not over, of one project or of all the user may see: running ones first, then in the order they will start."""
    visible = visible_projects(call.connection, call.actor)
    found = queue.unfinished(call.connection, project_id=project_id)
    return [job for job in found if visible is None or job.project_id in visible]


@operation("GET", "/projects/{project_id}/jobs", right="viewer")
def list_jobs(call: Call, project_id: str, state: str | None = None, kind: str | None = None, limit: int = 50, after: str | None = None) -> Page[Job]:
    """Jobs of a project, newest first."""
    only = {name: value for name, value in (("state", state), ("kind", kind)) if value is not None}
    return JOBS.page(call.connection, limit=limit, after=after, project_id=project_id, **only)


@operation("GET", "/jobs/{job_id}", right="viewer")
def get_job(call: Call, job_id: str) -> Job:
    """Return one job."""
    return JOBS.get(call.connection, job_id)


@operation("POST", "/jobs/{job_id}/cancel", right="editor", status=200)
def cancel_job(call: Call, job_id: str) -> Job:
    """Ask for the end of a job; what it has saved stays."""
    return jobs.cancel(call.connection, job_id)


@operation("POST", "/jobs/{job_id}/pause", right="editor", status=200)
def pause_job(call: Call, job_id: str) -> Job:
    """Let a job write a checkpoint and stop until it is resumed."""
    return jobs.pause(call.connection, job_id)


@operation("POST", "/jobs/{job_id}/resume", right="editor", status=200)
def resume_job(call: Call, job_id: str) -> Job:
    """Put a paused, failed or cancelled job back into the queue; it goes on from its last checkpoint.

    Raises:
        QuotaError: too many jobs of the project wait already.
    """
    quotas.check_jobs(call.platform, call.connection, JOBS.get(call.connection, job_id).project_id)
    return jobs.resume(call.connection, job_id)


@operation("POST", "/jobs/{job_id}/move", right="editor", status=200)
def move_job(call: Call, job_id: str, body: Move) -> Job:
    """Give a job that has not started another place in the queue."""
    if body.before is not None:
        check(call.connection, call.actor, "viewer", {"job_id": body.before})
    return queue.move(call.connection, job_id, before=body.before, priority=body.priority)


@operation("GET", "/jobs/{job_id}/log", right="viewer")
def read_log(call: Call, job_id: str, attempt: int | None = None, offset: int = 0, limit: int = 65_536) -> LogPart:
    """Read the log of an attempt (the newest by default) from a byte offset on."""
    job = JOBS.get(call.connection, job_id)
    path = call.platform.job_folder(job_id) / f"attempt-{attempt or job.attempt}" / "log.txt"
    is_over = job.is_over or (attempt is not None and attempt < job.attempt)
    if not path.exists():
        return LogPart("", 0, is_over)
    with storage_errors(path), path.open("rb") as file:
        file.seek(max(0, offset))
        read = file.read(max(1, min(limit, MAX_LOG_BYTES)))
        is_end = not file.read(1)
    whole = read if is_end and is_over else read[: _whole(read)]
    return LogPart(whole.decode("utf-8", errors="replace"), max(0, offset) + len(whole), is_over and is_end)


def _whole(read: bytes) -> int:
    """Length without the beginning of a character that has not come whole."""
    for back in range(1, min(4, len(read)) + 1):
        byte = read[-back]
        if byte < 0x80:
            return len(read)
        if byte >= 0xC0:  # the first byte of a character says how many follow
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(read) if back >= needed else len(read) - back
    return len(read)
