"""What runs measure while they run: points of curves and events, as their files hold them, and how far those files were read.

The offsets are written with the rows they stand for: whatever is killed when, no line is lost and none counts twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import orjson
from sqlalchemy import Connection, Insert, Table, Text, bindparam, cast, column, delete, exists, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB

from danlu.store.engine import without_nul
from danlu.store.runs import Run
from danlu.store.tables import jobs, run_events, run_points, run_reads, runs

MAX_ROWS = 2_000
"""Most rows that one answer holds."""


@dataclass(frozen=True)
class Point:
    """One line of metrics.jsonl."""

    step: int
    kind: str
    """`train` or `validation`."""
    values: dict[str, Any]


@dataclass(frozen=True)
class RunEvent:
    """One line of events.jsonl."""

    number: int
    """Its line, from 0."""
    kind: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Read:
    """How far the files of a run were read."""

    run_id: str
    metrics_file: int | None = None
    metrics_offset: int = 0
    events_offset: int = 0
    num_events: int = 0
    num_bad_lines: int = 0
    read_until: float | None = None


def read_of(connection: Connection, run_id: str) -> Read:
    """How far a run was read; from the beginning when it never was."""
    row = connection.execute(select(run_reads).where(run_reads.c.run_id == run_id)).mappings().first()
    return Read(run_id) if row is None else Read(**row)


def unread_runs(connection: Connection, *, home: str | None = None) -> list[Run]:
    """Runs that have begun and whose files were not read to their end: all, or those whose files lie in `home`."""
    is_new = or_(run_reads.c.run_id.is_(None), run_reads.c.read_until.is_(None), run_reads.c.read_until.is_distinct_from(runs.c.finished_at))
    query = select(runs).join_from(runs, run_reads, run_reads.c.run_id == runs.c.id, isouter=True).where(runs.c.started_at.is_not(None), is_new)
    if home is not None:
        query = query.where(~exists(select(1).where(jobs.c.run_id == runs.c.id, jobs.c.home != home)))
    return [Run(**row) for row in connection.execute(query.order_by(runs.c.started_at.desc())).mappings()]


def store(connection: Connection, read: Read, points: Sequence[Point] = (), events: Sequence[RunEvent] = (), *, drop_after: int | None = None) -> None:
    """Add what was read together with how far; a point or event that is there already is replaced by itself.

    `drop_after` removes points of later steps: a run that was resumed from a checkpoint makes them again.
    """
    if drop_after is not None:
        connection.execute(delete(run_points).where(run_points.c.run_id == read.run_id, run_points.c.step > drop_after))
    if points:
        rows = {(point.step, point.kind): {"run_id": read.run_id, "step": point.step, "kind": point.kind, "values": point.values} for point in points}
        _upsert(connection, run_points, list(rows.values()), ("run_id", "step", "kind"))
    if events:
        _upsert(connection, run_events, [{"run_id": read.run_id, "number": e.number, "kind": e.kind, "fields": e.fields} for e in events], ("run_id", "number"))
    _upsert(connection, run_reads, [vars(read)], ("run_id",))


def _upsert(connection: Connection, table: Table, rows: list[dict[str, Any]], key: tuple[str, ...]) -> None:
    """Add rows, or replace those that are there.

    PostgreSQL is given all of them as one JSON text, which it takes apart itself: a statement for each row costs more than twice as much.
    """
    is_text = connection.dialect.name == "postgresql" and len(rows) > 1
    given: Any = {"given": without_nul(orjson.dumps(rows).decode())} if is_text else rows
    connection.execute(_upserting(table, key, connection.dialect.name, is_text=is_text), given)


@cache
def _upserting(table: Table, key: tuple[str, ...], dialect: str, *, is_text: bool) -> Insert:
    """The statement; with `is_text` its rows come as one JSON text `given`."""
    made = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    changed = {column.name: made.excluded[column.name] for column in table.columns if column.name not in key}
    adding: Any = made
    if is_text:
        rows = func.jsonb_to_recordset(cast(bindparam("given", type_=Text), JSONB)).table_valued(*(column(one.name, one.type) for one in table.columns))
        adding = made.from_select([column.name for column in table.columns], select(rows.render_derived(name="given", with_types=True)))
    statement: Insert = adding.on_conflict_do_update(index_elements=list(key), set_=changed)
    return statement


def points_after(connection: Connection, run_id: str, *, kind: str | None, after: int, limit: int) -> list[Point]:
    """Points of steps beyond `after`, in order."""
    query = select(*run_points.c["step", "kind", "values"]).where(run_points.c.run_id == run_id, run_points.c.step > after)
    if kind is not None:
        query = query.where(run_points.c.kind == kind)
    return [Point(*row) for row in connection.execute(query.order_by(run_points.c.step, run_points.c.kind).limit(limit))]


def last_point(connection: Connection, run_id: str, kind: str) -> Point | None:
    """The newest point of a kind."""
    query = select(*run_points.c["step", "kind", "values"]).where(run_points.c.run_id == run_id, run_points.c.kind == kind)
    row = connection.execute(query.order_by(run_points.c.step.desc()).limit(1)).first()
    return None if row is None else Point(*row)


def series(connection: Connection, run_id: str, kind: str, names: Sequence[str], *, after: int = -1) -> Iterator[tuple[Any, ...]]:
    """(step, value of each name) in order; only these numbers are taken out of the rows."""
    values = [run_points.c["values"][name].as_float() for name in names]
    query = select(run_points.c.step, *values).where(run_points.c.run_id == run_id, run_points.c.kind == kind, run_points.c.step > after)
    yield from (tuple(row) for row in connection.execute(query.order_by(run_points.c.step)))


def events_after(connection: Connection, run_id: str, *, kind: str | None, after: int, limit: int) -> list[RunEvent]:
    """Events of numbers beyond `after`, in order."""
    query = select(*run_events.c["number", "kind", "fields"]).where(run_events.c.run_id == run_id, run_events.c.number > after)
    if kind is not None:
        query = query.where(run_events.c.kind == kind)
    return [RunEvent(*row) for row in connection.execute(query.order_by(run_events.c.number).limit(limit))]


def again_from_start(read: Read, inode: int | None) -> Read:
    """The same with metrics.jsonl to be read anew."""
    return replace(read, metrics_file=inode, metrics_offset=0)
