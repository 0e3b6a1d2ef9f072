"""Datasets and their versions. A version never changes: a correction makes a new one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

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


def runs_that_use(connection: Connection, dataset_id: str) -> list[str]:
    """Ids of runs that were trained on a version of a dataset; the first few."""
    join = tables.runs.join(tables.dataset_versions, tables.runs.c.dataset_version_id == tables.dataset_versions.c.id)
    query = select(tables.runs.c.id).select_from(join).where(tables.dataset_versions.c.dataset_id == dataset_id).order_by(tables.runs.c.id).limit(4)
    return list(connection.execute(query).scalars())
