"""Alarms: what an administrator has to know about this installation, from when until when."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from danlu.store import tables
from danlu.store.rows import Noun


@dataclass(frozen=True)
class Alarm:
    """Something that is wrong, or was."""

    id: str
    kind: str
    """`disk`, `memory`, `worker`."""
    place: str
    """The host it is about."""
    fields: dict[str, Any]
    """The numbers."""
    cleared_at: float | None
    created_at: float
    updated_at: float
    version: int


ALARMS = Noun(tables.alarms, Alarm, prefix="alm")


def open_alarms(connection: Connection) -> list[Alarm]:
    """Alarms that have not been cleared, oldest first."""
    statement = select(tables.alarms).where(tables.alarms.c.cleared_at.is_(None)).order_by(tables.alarms.c.id)
    return [Alarm(**row) for row in connection.execute(statement).mappings()]


def settle(connection: Connection, kind: str, place: str, *, is_wrong: bool, fields: dict[str, Any]) -> Alarm | None:
    """Raise an alarm when something is wrong and none is open, clear it when it is right again; return what has changed."""
    found = next((alarm for alarm in open_alarms(connection) if (alarm.kind, alarm.place) == (kind, place)), None)
    if is_wrong and found is None:
        return ALARMS.insert(connection, kind=kind, place=place, fields=fields)
    if not is_wrong and found is not None:
        return ALARMS.update(connection, found.id, cleared_at=time.time())
    return None
