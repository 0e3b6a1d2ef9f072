"""Which content is kept, what refers to it, and what may be collected.

A row is written before the content is put and goes in the same transaction in which the content is removed: putting and collecting
the same content at the same time wait for each other here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Text, cast, delete, exists, func, insert, literal, select, union
from sqlalchemy.dialects import postgresql, sqlite

from danlu.store.tables import artifact_parts, artifacts, dataset_versions, exports, models

REFERRING = (dataset_versions, models, exports, artifact_parts)
"""Tables with a column `digest`; each has a foreign key, so the database itself refuses to forget what they name."""


@dataclass(frozen=True)
class Artifact:
    """Content that is kept."""

    digest: str
    size_bytes: int
    created_at: float
    put_at: float


def record(connection: Connection, digest: str, size_bytes: int, parts: Sequence[str] = (), *, now: float | None = None) -> None:
    """Note that content is being put (again), and of a folder which files it consists of."""
    now = time.time() if now is None else now
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    row = {"digest": digest, "size_bytes": size_bytes, "created_at": now, "put_at": now}
    connection.execute(dialect.insert(artifacts).values(**row).on_conflict_do_update(index_elements=["digest"], set_={"put_at": now}))
    known = set(connection.execute(select(artifact_parts.c.digest).where(artifact_parts.c.folder_digest == digest)).scalars())
    if missing := [part for part in parts if part not in known]:
        connection.execute(insert(artifact_parts), [{"folder_digest": digest, "digest": part} for part in missing])


def find(connection: Connection, digest: str) -> Artifact | None:
    """Return what is known of an artifact."""
    row = connection.execute(select(artifacts).where(artifacts.c.digest == digest)).mappings().first()
    return None if row is None else Artifact(**row)


def all_artifacts(connection: Connection, *, batch: int = 1000) -> Iterator[Artifact]:
    """Every artifact by digest, read in batches."""
    last = ""
    while True:
        rows = connection.execute(select(artifacts).where(artifacts.c.digest > last).order_by(artifacts.c.digest).limit(batch)).mappings().all()
        if not rows:
            return
        yield from (Artifact(**row) for row in rows)
        last = rows[-1]["digest"]


def is_referred_to(connection: Connection, digest: str) -> bool:
    """Whether a dataset version, a model, an export or a folder needs it."""
    return any(connection.execute(select(exists().where(table.c.digest == digest))).scalar() for table in REFERRING)


def unreferenced(connection: Connection, *, put_before: float, limit: int = 1000) -> list[Artifact]:
    """Content that nothing refers to and that was not put lately."""
    query = select(artifacts).where(artifacts.c.put_at < put_before)
    for table in REFERRING:
        query = query.where(~exists().where(table.c.digest == artifacts.c.digest))
    return [Artifact(**row) for row in connection.execute(query.order_by(artifacts.c.put_at).limit(limit)).mappings()]


def forget(connection: Connection, digest: str, *, put_before: float) -> bool:
    """Remove the row of content that nothing refers to and that was not put lately; False when it must stay.

    Until this transaction ends, whoever puts the same content waits; remove the content before it ends.
    """
    if is_referred_to(connection, digest):
        return False
    return bool(connection.execute(delete(artifacts).where(artifacts.c.digest == digest, artifacts.c.put_at < put_before)).rowcount)


def claim_orphan(connection: Connection, digest: str) -> bool:
    """Take hold of content that has no row, as after restoring an older database; False when it has one.

    The row that is made and removed makes others wait until this transaction ends.
    """
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    row = {"digest": digest, "size_bytes": 0, "created_at": 0.0, "put_at": 0.0}
    made = dialect.insert(artifacts).values(**row).on_conflict_do_nothing().returning(artifacts.c.digest)
    if connection.execute(made).first() is None:
        return False
    connection.execute(delete(artifacts).where(artifacts.c.digest == digest))
    return True


def used_bytes(connection: Connection, project_id: str | None = None) -> int:
    """What the data, models and exports of a project take, or all that is kept; content that is used twice counts once."""
    if project_id is None:
        return int(connection.execute(select(func.coalesce(func.sum(artifacts.c.size_bytes), 0))).scalar_one())
    named = union(
        *(select(cast(table.c.digest, Text).label("digest")).where(table.c.project_id == project_id) for table in (dataset_versions, models, exports))
    )
    parts = select(artifact_parts.c.digest).where(artifact_parts.c.folder_digest.in_(select(named.subquery().c.digest)))
    wanted = union(select(named.subquery().c.digest), parts).subquery()
    query = select(func.coalesce(func.sum(artifacts.c.size_bytes), literal(0))).where(artifacts.c.digest.in_(select(wanted.c.digest)))
    return int(connection.execute(query).scalar_one())
