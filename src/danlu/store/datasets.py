"""Datasets and their versions. A version never changes: a correction makes a new one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select, update

from danlu.store import tables
from danlu.store.rows import Noun


@dataclass(frozen=True)
class Dataset:
    """A name under which versions of a data file are kept."""

    id: str
    project_id: str
    name: str
    created_by: str | None
    created_at: float
    updated_at: float
    version: int


@dataclass(frozen=True)
class DatasetVersion:
    """One data file as it was brought in or corrected; its content is an artifact."""

    id: str
    project_id: str
    dataset_id: str
    number: int
    file_name: str
    digest: str
    size_bytes: int
    report: dict[str, Any] | None
    parent_id: str | None
    created_by: str | None
    created_at: float
    updated_at: float
    version: int


@dataclass(frozen=True)
class NewestVersion:
    """What lists show of a dataset's newest version."""

    number: int
    file_name: str
    size_bytes: int
    rows_in: int | None
    """Rows of the file; None until it was looked at."""
    usable: int | None
    """Of these, rows that can be used."""


@dataclass(frozen=True)
class ListedDataset(Dataset):
    """A dataset as lists show it."""

    newest: NewestVersion | None


DATASETS = Noun(tables.datasets, Dataset, prefix="dts")
DATASET_VERSIONS = Noun(tables.dataset_versions, DatasetVersion, prefix="dsv")


def keep_report(connection: Connection, payload: dict[str, Any], result: dict[str, Any] | None) -> None:
    """Write what a finished look at a version's file has found into the version; nothing when the version is gone."""
    column = tables.dataset_versions.c
    mine = (column.id == payload.get("dataset_version_id"), column.digest == payload.get("digest"))
    values = {"report": (result or {}).get("report"), "updated_at": time.time(), "version": column.version + 1}
    connection.execute(update(tables.dataset_versions).where(*mine).values(**values))


def newest_version(connection: Connection, dataset_id: str) -> DatasetVersion | None:
    """The version with the highest number."""
    column = tables.dataset_versions.c
    query = select(tables.dataset_versions).where(column.dataset_id == dataset_id).order_by(column.number.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else DatasetVersion(**row)


def with_newest(connection: Connection, found: Sequence[Dataset]) -> list[ListedDataset]:
    """These datasets, each with its newest version; one query for all."""
    column = tables.dataset_versions.c
    last = (
        select(column.dataset_id, func.max(column.number).label("number")).where(column.dataset_id.in_([one.id for one in found])).group_by(column.dataset_id)
    )
    newest = last.subquery()
    counts = [column.report[name].as_integer().label(name) for name in ("rows_in", "usable")]
    is_newest = (column.dataset_id == newest.c.dataset_id) & (column.number == newest.c.number)
    query = select(column.dataset_id, column.number, column.file_name, column.size_bytes, *counts).join(newest, is_newest)
    versions = {row.pop("dataset_id"): NewestVersion(**row) for row in map(dict, connection.execute(query).mappings())}
    return [ListedDataset(**vars(one), newest=versions.get(one.id)) for one in found]


def runs_that_use(connection: Connection, dataset_id: str) -> list[str]:
    """Ids of runs that were trained on a version of a dataset; the first few."""
    join = tables.runs.join(tables.dataset_versions, tables.runs.c.dataset_version_id == tables.dataset_versions.c.id)
    query = select(tables.runs.c.id).select_from(join).where(tables.dataset_versions.c.dataset_id == dataset_id).order_by(tables.runs.c.id).limit(4)
    return list(connection.execute(query).scalars())
