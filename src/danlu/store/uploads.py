"""Uploads: files that arrive in pieces, and how far each has come."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from danlu.store import tables
from danlu.store.rows import Noun


@dataclass(frozen=True)
class Upload:
    """A file on its way. `received_bytes` are safely on disk: an upload that was cut goes on from there."""

    id: str
    project_id: str
    dataset_id: str | None
    name: str
    file_name: str
    size_bytes: int
    sha256: str | None
    received_bytes: int
    state: str
    dataset_version_id: str | None
    expires_at: float
    created_by: str | None
    created_at: float
    updated_at: float
    version: int


UPLOADS = Noun(tables.uploads, Upload, prefix="upl")


def reserved_bytes(connection: Connection, project_id: str) -> int:
    """What the uploads that are under way will take."""
    column = tables.uploads.c
    query = select(func.coalesce(func.sum(column.size_bytes), 0)).where(column.project_id == project_id, column.state == "open")
    return int(connection.execute(query).scalar_one())


def num_open(connection: Connection, project_id: str) -> int:
    """How many uploads are under way."""
    column = tables.uploads.c
    return connection.execute(select(func.count()).where(column.project_id == project_id, column.state == "open")).scalar_one()


def expired(connection: Connection, now: float) -> list[Upload]:
    """Uploads whose time is over, finished ones too."""
    rows = connection.execute(select(tables.uploads).where(tables.uploads.c.expires_at < now).limit(1000)).mappings()
    return [Upload(**row) for row in rows]
