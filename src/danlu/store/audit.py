"""The audit log: who did what, when, from where. Lines are only ever added."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from danlu.store.rows import MAX_PAGE, Page
from danlu.store.tables import audit_log


@dataclass(frozen=True)
class AuditLine:
    """One thing that was done. It names ids, never contents."""

    number: int
    at: float
    """Seconds since 1970 (UTC)."""
    user_id: str | None
    """None for the owner of the machine, and for nobody known."""
    action: str
    """Name of the operation, or `sign_in`, `sign_in_failed`, `sign_out`."""
    subject: str
    """Id of what it was done to."""
    project_id: str | None
    address: str | None
    fields: dict[str, Any]


def append(connection: Connection, *, user_id: str | None, action: str, subject: str, project_id: str | None, address: str | None, **fields: Any) -> None:
    """Add a line."""
    row = {"at": time.time(), "user_id": user_id, "action": action, "subject": subject, "project_id": project_id, "address": address}
    connection.execute(insert(audit_log).values(**row, fields=fields))


def page(
    connection: Connection, *, limit: int = 50, after: str | None = None, since: float | None = None, until: float | None = None, **where: str | None
) -> Page[AuditLine]:
    """Return up to `limit` lines, newest first; values of `where` that are None do not filter."""
    limit = max(1, min(limit, MAX_PAGE))
    columns = audit_log.columns
    query = select(audit_log).where(*(columns[name] == value for name, value in where.items() if value is not None))
    if since is not None:
        query = query.where(columns.at >= since)
    if until is not None:
        query = query.where(columns.at < until)
    if after is not None:
        query = query.where(columns.number < _number(after))
    lines = [AuditLine(**row) for row in connection.execute(query.order_by(columns.number.desc()).limit(limit + 1)).mappings()]
    return Page(lines[:limit], str(lines[limit - 1].number) if len(lines) > limit else None)


def _number(after: str) -> int:
    """The line that a page begins behind; nothing is behind what no page gave."""
    return int(after) if after.isascii() and after.isdigit() and len(after) <= 18 else 0
