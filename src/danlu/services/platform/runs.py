"""Use cases on runs in the queue: submit, watch, hold, go on, repeat, delete. The work itself is `services.runs`, in the job's process.

A run's state is that of the job that carries it out; the store changes both in one transaction (store/runs.follow).
"""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import Field

from danlu.errors import ConflictError, NotFoundError
from danlu.recipe.base import StrictModel
from danlu.recipe.load import validate, with_settings
from danlu.services.platform import quotas
from danlu.services.platform.file_names import Name, OptionalName
from danlu.services.platform.inputs import Inputs, fetch, find_inputs
from danlu.services.platform.jobs import Priority
from danlu.services.platform.operations import Call, operation
from danlu.store import jobs, workers
from danlu.store.engine import Connection
from danlu.store.jobs import JOBS, Job
from danlu.store.rows import Page
from danlu.store.runs import CARRIERS, MODELS, RUNS, Run, forget

RunState = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]


class Start(StrictModel):
    """How a run is called and when it starts."""

    name: OptionalName = ""
    """What people call it; the dataset's name when left out."""
    priority: Priority = "standard"
    """express goes before standard, standard before saver; a saver makes room for the others and goes on later."""
    not_before: float | None = Field(None, ge=0, le=1e11)
    """Earliest time to start, in seconds since 1970 (UTC): tonight, say."""


class NewRun(Start):
    """A run to submit."""

    recipe: dict[str, Any]
    """What to run, as in a recipe file."""


class RunChange(StrictModel):
    """What to change of a run."""

    name: Name
    """What people call it."""


class Stop(StrictModel):
    """What becomes of a run that is stopped."""

    outcome: Literal["keep", "discard"] = "keep"
    """keep: it saves a checkpoint and can go on later. discard: it is deleted with all its files."""


class Duplicate(Start):
    """The same run once more, with other settings."""

    settings: dict[str, Any] = Field(default={}, max_length=100)
    """New values by dotted path, e.g. `{"optim.learning_rate": 0.0001}`; a recommendation of the coach fits here."""


class NextRound(Start):
    """One more round on new data, from the weights of a finished run."""

    dataset: str = Field(min_length=1)
    """The new data: a dataset of the project."""
    replay: float = Field(0.2, ge=0, le=10)
    """Rows of the earlier round that are trained on again, as a share of the new ones."""
    settings: dict[str, Any] = Field(default={}, max_length=100)
    """New values by dotted path."""


@operation("POST", "/projects/{project_id}/runs", right="editor", own_transaction=True)
def submit_run(call: Call, project_id: str, body: NewRun) -> Run:
    """Put a recipe into the queue.

    Raises:
        RecipeError: the recipe has mistakes; all of them are told.
        NotFoundError: it names a dataset or a run that this project does not have.
        ForbiddenError: it names a file of the server.
    """
    return start(call, project_id, body.recipe, body)


@operation("GET", "/projects/{project_id}/runs", right="viewer")
def list_runs(call: Call, project_id: str, state: RunState | None = None, limit: int = 50, after: str | None = None) -> Page[Run]:
    """Runs of a project, newest first."""
    return RUNS.page(call.connection, limit=limit, after=after, project_id=project_id, discarded_at=None, **({} if state is None else {"state": state}))


@operation("GET", "/runs/{run_id}", right="viewer")
def get_run(call: Call, run_id: str) -> Run:
    """Return one run."""
    return RUNS.get(call.connection, run_id)


@operation("PATCH", "/runs/{run_id}", right="editor")
def change_run(call: Call, run_id: str, body: RunChange, version: int | None = None) -> Run:
    """Give a run another name."""
    return RUNS.update(call.connection, run_id, version=version, name=body.name)


@operation("GET", "/runs/{run_id}/jobs", right="viewer")
def list_run_jobs(call: Call, run_id: str) -> list[Job]:
    """Jobs of a run, oldest first."""
    return JOBS.all(call.connection, run_id=run_id)


@operation("POST", "/runs/{run_id}/duplicate", right="editor", own_transaction=True)
def duplicate_run(call: Call, run_id: str, body: Duplicate) -> Run:
    """Run a recipe again as it was written, with other settings where they are given.

    Raises:
        RecipeError: the settings do not fit.
    """
    with call.platform.database.reading() as connection:
        run = RUNS.get(connection, run_id)
    recipe = with_settings(validate(run.recipe, source=f"run {run_id}"), body.settings)
    return start(call, run.project_id, recipe.to_dict(), body)


@operation("POST", "/runs/{run_id}/continue", right="editor", own_transaction=True)
def continue_run(call: Call, run_id: str, body: NextRound) -> Run:
    """Train one more round on new data, starting from the weights of a finished run.

    Raises:
        ConflictError: it has not finished.
        RecipeError: the settings do not fit.
    """
    with call.platform.database.reading() as connection:
        run = RUNS.get(connection, run_id)
    if run.state != "succeeded" or run.resolved is None:
        raise ConflictError(f"run {run_id} has not finished", why=f"it is {run.state}: there are no weights to go on from", fix="wait for it, or resume it")
    values = {**run.recipe, "method": run.resolved["method"], "dataset": body.dataset, "start_from": run_id}
    values["data"] = {**run.recipe["data"], "format": "auto", "replay": {"run": run_id, "share": body.replay} if body.replay else None}
    recipe = with_settings(validate(values, source="the next round"), body.settings)
    return start(call, run.project_id, recipe.to_dict(), body)


@operation("POST", "/runs/{run_id}/stop", right="editor", status=200)
def stop_run(call: Call, run_id: str, body: Stop) -> Run:
    """Stop a run: let it save a checkpoint and go on later, or throw it away.

    Raises:
        ConflictError: it is over already, or models came out of it.
    """
    job = carrier(call.connection, run_id)
    if body.outcome == "keep":
        jobs.pause(call.connection, job.id)
        return RUNS.get(call.connection, run_id)
    if job.state == "succeeded":
        raise ConflictError(f"run {run_id} is finished", why="there is nothing left to stop", fix="delete it instead")
    if models := MODELS.all(call.connection, run_id=run_id):
        raise ConflictError(f"run {run_id} is still used", why=f"model {models[0].name}@{models[0].number} came out of it", fix="delete the model first")
    for other in JOBS.all(call.connection, run_id=run_id):
        if not other.is_over:
            jobs.cancel(call.connection, other.id)
    return RUNS.update(call.connection, run_id, discarded_at=time.time())


@operation("POST", "/runs/{run_id}/resume", right="editor", status=200, own_transaction=True)
def resume_run(call: Call, run_id: str) -> Run:
    """Go on with a paused, failed or cancelled run from its last checkpoint.

    Raises:
        ConflictError: it is in the queue, running, or done.
        QuotaError: too many jobs of the project wait already.
    """
    with call.platform.database.reading() as connection:
        payload = carrier(connection, run_id).payload
    fetch(call.platform, payload.get("artifacts", {}))  # the cache may have been cleared since
    with call.platform.database.writing() as connection:
        job = carrier(connection, run_id)
        quotas.check_jobs(call.platform, connection, job.project_id)
        jobs.resume(connection, job.id)
        resumed = RUNS.get(connection, run_id)
        call.settle(connection, resumed)
        return resumed


@operation("DELETE", "/runs/{run_id}", right="admin")
def delete_run(call: Call, run_id: str) -> None:
    """Delete a run with its files; refused while something works on it or goes on from it.

    Raises:
        ConflictError: a job of it runs or waits, another run starts from it, or a model of the registry came out of it.
    """
    run = RUNS.get(call.connection, run_id)
    for job in JOBS.all(call.connection, run_id=run_id):
        if not job.is_over:
            raise ConflictError(f"run {run_id} is at work", why=f"job {job.id} is {job.state}", fix="cancel it first")
    for other in RUNS.all(call.connection, project_id=run.project_id, state=["queued", "running", "paused"]):
        if run_id in used_runs(other.recipe):
            raise ConflictError(f"run {run_id} is still used", why=f"run {other.id} starts from it", fix="wait for that one, or cancel it first")
    forget(call.connection, run)


def start(call: Call, project_id: str, values: dict[str, Any], how: Start, *, kind: str = "train", more: dict[str, Any] | None = None) -> Run:
    """Find what a recipe names, fetch it, and put the run with its job into the store and the queue.

    Raises:
        RecipeError, NotFoundError, ForbiddenError: see `find_inputs`.
    """
    with call.platform.database.reading() as connection:
        found = find_inputs(call.platform, connection, call.actor, project_id, values)
        check_starts(connection, found)
    found.fetch(call.platform)
    with call.platform.database.writing() as connection:
        made = enqueue(call, connection, project_id, found, how, kind=kind, more=more)
        call.settle(connection, made)
        return made


def enqueue(call: Call, connection: Connection, project_id: str, found: Inputs, how: Start, *, kind: str, more: dict[str, Any] | None = None) -> Run:
    """Add a run and the job that carries it out.

    Raises:
        QuotaError: too many jobs of the project wait already.
    """
    quotas.check_jobs(call.platform, connection, project_id)
    recipe = found.recipe.to_dict()
    made = RUNS.insert(
        connection,
        project_id=project_id,
        name=how.name or found.recipe.dataset.rpartition("/")[2][:200],
        state="queued",
        recipe=recipe,
        base_model=found.recipe.base_model,
        dataset_version_id=found.dataset_version_id,
        created_by=call.actor.user_id,
    )
    payload = {"type": kind, "run_dir": str(call.platform.run_folder(made.id)), "recipe": recipe, "paths": found.paths, "artifacts": found.artifacts}
    jobs.submit(
        connection,
        project_id=project_id,
        kind=kind,
        payload=payload | (more or {}),
        run_id=made.id,
        priority=how.priority,
        not_before=how.not_before,
        home=workers.home_id(call.platform.database, call.platform.home),  # its files are here
        created_by=call.actor.user_id,
    )
    return made


def carrier(connection: Connection, run_id: str) -> Job:
    """The job that carries a run out.

    Raises:
        NotFoundError: there is none.
    """
    found = [job for job in JOBS.all(connection, run_id=run_id) if job.kind in CARRIERS]
    if not found:
        raise NotFoundError(f"run {run_id} has no job", why="it was made elsewhere", fix="duplicate it to run it again")
    return found[-1]


def used_runs(recipe: dict[str, Any]) -> set[str]:
    """Ids of the runs that a recipe goes on from."""
    return {name for name in (recipe.get("start_from"), ((recipe.get("data") or {}).get("replay") or {}).get("run")) if name}


def check_starts(connection: Connection, found: Inputs) -> None:
    """Refuse to start from a run that has not finished.

    Raises:
        ConflictError: it is not done.
    """
    for id in used_runs(found.recipe.to_dict()):
        run = RUNS.find(connection, id=id)
        if run is not None and run.state != "succeeded":
            raise ConflictError(f"run {id} has not finished", why=f"it is {run.state}: there are no weights to go on from", fix="wait for it, or resume it")
