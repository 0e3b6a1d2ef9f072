"""The audit log: who did what, when, from where. Lines are only ever added."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Connection, insert

from danlu.store.tables import audit_log


def append(connection: Connection, *, user_id: str | None, action: str, subject: str, project_id: str | None, address: str | None, **fields: Any) -> None:
    """Add a line."""
    row = {"at": time.time(), "user_id": user_id, "action": action, "subject": subject, "project_id": project_id, "address": address}
    connection.execute(insert(audit_log).values(**row, fields=fields))
