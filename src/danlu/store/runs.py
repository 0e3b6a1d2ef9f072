"""Runs, what they measured while they ran, and what came out of them: evaluations, models, exports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from danlu.store import tables
from danlu.store.rows import Noun

RUN_STATES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Run:
    """One execution of a recipe; its files lie in its run folder."""

    id: str
    project_id: str
    name: str
    state: str
    recipe: dict[str, Any]
    resolved: dict[str, Any] | None
    fingerprint: str | None
    base_model: str
    dataset_version_id: str | None
    verdict: str | None
    summary: dict[str, Any] | None
    error: dict[str, Any] | None
    started_at: float | None
    finished_at: float | None
    created_by: str | None
    created_at: float
    updated_at: float
    version: int


@dataclass(frozen=True)
class Evaluation:
    """What was measured of a run: the content of its report.json."""

    id: str
    project_id: str
    run_id: str
    report: dict[str, Any]
    created_at: float
    updated_at: float
    version: int


@dataclass(frozen=True)
class Model:
    """A version of a model that a run made, kept in the registry."""

    id: str
    project_id: str
    name: str
    number: int
    run_id: str
    kind: str
    digest: str
    verdict: str | None
    created_by: str | None
    created_at: float
    updated_at: float
    version: int


@dataclass(frozen=True)
class Export:
    """A run as files that other tools load, with what was verified."""

    id: str
    project_id: str
    run_id: str
    type: str
    digest: str
    size_bytes: int
    verification: dict[str, Any]
    created_at: float
    updated_at: float
    version: int


RUNS = Noun(tables.runs, Run, prefix="run")
EVALUATIONS = Noun(tables.evaluations, Evaluation, prefix="evl")
MODELS = Noun(tables.models, Model, prefix="mdl")
EXPORTS = Noun(tables.exports, Export, prefix="exp")
