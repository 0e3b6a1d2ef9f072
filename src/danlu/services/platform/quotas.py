"""What a project may use up. Called by the operations that put jobs into the queue."""

from __future__ import annotations

from danlu.errors import QuotaError
from danlu.services.platform.platform import Platform
from danlu.store.engine import Connection
from danlu.store.projects import num_waiting_jobs


def check_jobs(platform: Platform, connection: Connection, project_id: str) -> None:
    """Refuse another job when too many of the project wait already.

    Raises:
        QuotaError: `DANLU_MAX_WAITING_JOBS` is reached.
    """
    most = platform.settings.network.max_waiting_jobs
    num_waiting = num_waiting_jobs(connection, project_id)
    if num_waiting >= most:
        raise QuotaError(
            f"{num_waiting} jobs of this project wait already", why=f"at most {most} may (DANLU_MAX_WAITING_JOBS)", fix="wait for some to end, or cancel them"
        )
