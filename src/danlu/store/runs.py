"""Runs, what they measured while they ran, and what came out of them: evaluations, models, exports."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, exists, or_, select, update

from danlu.store import removals, tables
from danlu.store.rows import Noun

CARRIERS = ("train", "sweep", "merge")
"""Kinds of jobs that are a run: its state is the job's."""
STATE_OF_JOB = {"waiting": "queued", "pausing": "running", "cancelling": "running"}
"""What a run is while its job is in that state; in all others it is what the job is."""


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
    discarded_at: float | None
    created_by: str | None
    created_at: float
    updated_at: float
    version: int

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.state in ("succeeded", "failed", "cancelled")


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


def follow(connection: Connection, job_id: str) -> None:
    """Bring a run in line with its job, in the transaction that changed the job: so the two never say different things.

    Other jobs of a run (exports) only have its folder looked at again.
    """
    jobs, runs = tables.jobs, tables.runs
    query = select(jobs.c.run_id, jobs.c.kind, jobs.c.state, jobs.c.error, jobs.c.started_at, jobs.c.finished_at).where(jobs.c.id == job_id)
    job = connection.execute(query).mappings().first()
    if job is None or job["run_id"] is None:
        return
    values = dict(job, state=STATE_OF_JOB.get(job["state"], job["state"]))
    run_id, kind = values.pop("run_id"), values.pop("kind")
    if kind not in CARRIERS:
        connection.execute(update(tables.run_reads).where(tables.run_reads.c.run_id == run_id).values(read_until=None))  # it may have made something
        return
    if job["state"] not in ("succeeded", "failed", "cancelled"):
        values["finished_at"] = None
    differs = or_(*(runs.c[name].is_distinct_from(values[name]) for name in ("state", "started_at", "finished_at")))
    connection.execute(update(runs).where(runs.c.id == run_id, differs).values(**values, updated_at=time.time(), version=runs.c.version + 1))


def forget(connection: Connection, run: Run) -> None:
    """Delete a run, and have its folders removed: of the run and of its jobs.

    Raises:
        ConflictError: a model in the registry came out of it.
    """
    found = connection.execute(select(tables.jobs.c.id, tables.jobs.c.home).where(tables.jobs.c.run_id == run.id)).all()
    folders = {f"runs/{run.id}": home_of(connection, run.id)} | {f"jobs/{id}": home for id, home in found}
    RUNS.delete(connection, run.id)
    removals.add(connection, folders)


def discarded(connection: Connection) -> list[Run]:
    """Runs that were discarded and on which no job works any more."""
    jobs, runs = tables.jobs, tables.runs
    is_at_work = exists(select(1).where(jobs.c.run_id == runs.c.id, jobs.c.state.not_in(("succeeded", "failed", "cancelled"))))
    return [Run(**row) for row in connection.execute(select(runs).where(runs.c.discarded_at.is_not(None), ~is_at_work)).mappings()]


def home_of(connection: Connection, run_id: str) -> str | None:
    """Home folder in which a run's files lie; None when no worker has had it yet."""
    jobs = tables.jobs
    return connection.execute(select(jobs.c.home).where(jobs.c.run_id == run_id, jobs.c.home.is_not(None)).order_by(jobs.c.id).limit(1)).scalar()


def folders_of_project(connection: Connection, project_id: str) -> dict[str, str | None]:
    """Folders (below their home folder) of all runs and jobs of a project, each with its home."""
    jobs, runs = tables.jobs, tables.runs
    found = connection.execute(select(jobs.c.id, jobs.c.run_id, jobs.c.home).where(jobs.c.project_id == project_id).order_by(jobs.c.id.desc())).all()
    folders = {f"runs/{id}": None for id in connection.execute(select(runs.c.id).where(runs.c.project_id == project_id)).scalars()}
    return folders | {f"runs/{run_id}": home for _, run_id, home in found if run_id and home} | {f"jobs/{id}": home for id, _, home in found}
