"""Datasets and their versions. A version never changes: a correction makes a new one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
