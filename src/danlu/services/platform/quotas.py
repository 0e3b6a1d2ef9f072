"""What a user, and a project, may use up. Called by the operations that make what is counted."""

from __future__ import annotations

from danlu.errors import QuotaError
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.store import keys, notices, uploads
from danlu.store.engine import Connection
from danlu.store.projects import num_made_by, num_waiting_jobs

MAX_KEYS = 200
"""Valid API keys of a user."""
MAX_SUBSCRIPTIONS = 20
"""Addresses that a project tells: each end of a run is a message to every one, from this server."""
MAX_OPEN_UPLOADS = 500
"""Uploads of a project that are under way: each has a folder, however small it is."""


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


def check_projects(platform: Platform, connection: Connection, actor: Actor) -> None:
    """Refuse another project of who has made many: each has a share of the disk and a place for jobs of its own.

    Raises:
        QuotaError: `DANLU_MAX_PROJECTS` is reached.
    """
    most = platform.settings.network.max_projects
    if actor.user_id is not None and not actor.is_operator and (made := num_made_by(connection, actor.user_id)) >= most:
        raise QuotaError(f"you have made {made} projects", why=f"at most {most} may be there (DANLU_MAX_PROJECTS)", fix="delete one, or ask an administrator")


def check_keys(connection: Connection, user_id: str, now: float) -> None:
    """Refuse another key of who has many.

    Raises:
        QuotaError: there are as many as there may be.
    """
    if keys.num_alive(connection, user_id, now) >= MAX_KEYS:
        raise QuotaError(f"you have {MAX_KEYS} valid API keys", why="that is as many as there can be", fix="revoke those that are not used any more")


def check_subscriptions(connection: Connection, project_id: str) -> None:
    """Refuse another address to tell of a project that tells many.

    Raises:
        QuotaError: there are as many as there may be.
    """
    if notices.num_subscriptions(connection, project_id) >= MAX_SUBSCRIPTIONS:
        raise QuotaError(f"this project tells {MAX_SUBSCRIPTIONS} addresses", why="that is as many as there can be", fix="delete one first")


def check_uploads(connection: Connection, project_id: str) -> None:
    """Refuse another upload of a project that has many under way.

    Raises:
        QuotaError: there are as many as there may be.
    """
    if uploads.num_open(connection, project_id) >= MAX_OPEN_UPLOADS:
        raise QuotaError(f"{MAX_OPEN_UPLOADS} uploads of this project are under way", why="that is as many as there can be", fix="finish or abandon some first")
