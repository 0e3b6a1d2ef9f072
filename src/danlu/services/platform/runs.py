"""Use cases on runs in the queue: submit, watch, hold, go on, compare. The work itself is `services.runs`, in the job's process."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from danlu.errors import ConflictError
from danlu.recipe.base import StrictModel
from danlu.recipe.load import validate
from danlu.services.platform import quotas
from danlu.services.platform.jobs import Priority
from danlu.services.platform.operations import Call, operation
from danlu.store import jobs
from danlu.store.jobs import JOBS, Job
from danlu.store.rows import Page
from danlu.store.runs import RUNS, Run

RunState = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]


class NewRun(StrictModel):
    """A run to submit."""

    recipe: dict[str, Any]
    """What to run, as in a recipe file."""
    name: str = Field("", max_length=200)
    """What people call it; the dataset's name when left out."""
    priority: Priority = "standard"
    """express goes before standard, standard before saver; a saver makes room for the others and goes on later."""
    not_before: float | None = None
    """Earliest time to start, in seconds since 1970 (UTC): tonight, say."""


@operation("POST", "/projects/{project_id}/runs", right="editor")
def submit_run(call: Call, project_id: str, body: NewRun) -> Run:
    """Put a recipe into the queue.

    Raises:
        RecipeError: the recipe has mistakes; all of them are told.
    """
    quotas.check_jobs(call, project_id)
    recipe = validate(body.recipe, source="recipe")
    made = RUNS.insert(
        call.connection,
        project_id=project_id,
        name=body.name or recipe.dataset.rpartition("/")[2][:200],
        state="queued",
        recipe=recipe.to_dict(),
        base_model=recipe.base_model,
        created_by=call.actor.user_id,
    )
    payload = {"type": "train", "run_dir": str(call.platform.run_folder(made.id)), "recipe": recipe.to_dict()}
    jobs.submit(
        call.connection,
        project_id=project_id,
        kind="train",
        payload=payload,
        run_id=made.id,
        priority=body.priority,
        not_before=body.not_before,
        created_by=call.actor.user_id,
    )
    return made


@operation("GET", "/projects/{project_id}/runs", right="viewer")
def list_runs(call: Call, project_id: str, state: RunState | None = None, limit: int = 50, after: str | None = None) -> Page[Run]:
    """Runs of a project, newest first."""
    return RUNS.page(call.connection, limit=limit, after=after, project_id=project_id, **({} if state is None else {"state": state}))


@operation("GET", "/runs/{run_id}", right="viewer")
def get_run(call: Call, run_id: str) -> Run:
    """Return one run."""
    return RUNS.get(call.connection, run_id)


@operation("GET", "/runs/{run_id}/jobs", right="viewer")
def list_run_jobs(call: Call, run_id: str) -> list[Job]:
    """Jobs of a run, oldest first."""
    return JOBS.all(call.connection, run_id=run_id)


@operation("DELETE", "/runs/{run_id}", right="admin")
def delete_run(call: Call, run_id: str) -> None:
    """Delete a run; refused while a job of it is not over.

    Raises:
        ConflictError: a job of it runs or waits.
    """
    for job in JOBS.all(call.connection, run_id=run_id):
        if not job.is_over:
            raise ConflictError(f"run {run_id} is at work", why=f"job {job.id} is {job.state}", fix="cancel it first")
    RUNS.delete(call.connection, run_id)
