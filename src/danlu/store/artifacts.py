"""Artifacts that rows refer to: what is not listed here, nothing refers to."""

from __future__ import annotations

import time

from sqlalchemy import Connection, insert, select

from danlu.store.tables import artifacts


def remember(connection: Connection, digest: str, size_bytes: int) -> None:
    """List an artifact, so that rows can refer to it."""
    if connection.execute(select(artifacts.c.digest).where(artifacts.c.digest == digest)).scalar() is None:
        connection.execute(insert(artifacts).values(digest=digest, size_bytes=size_bytes, created_at=time.time()))
