"""`studio.runs`: submit a recipe, wait for it, read its proof."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from danlu.client.jobs import POLL_SECONDS
from danlu.client.problems import error_from
from danlu.client.transport import Method, Noun, covers
from danlu.errors import JobError
from danlu.recipe.recipe import Recipe
from danlu.services.platform import runs
from danlu.services.platform.jobs import Priority
from danlu.services.platform.runs import NewRun, RunState
from danlu.store.jobs import Job
from danlu.store.rows import Page
from danlu.store.runs import Run

OVER = ("succeeded", "failed", "cancelled")


class Runs(Noun):
    """Runs: executions of recipes."""

    jobs = Method(runs.list_run_jobs)
    delete = Method(runs.delete_run)

    @covers(runs.submit_run)
    def submit(
        self,
        recipe: Recipe | Mapping[str, Any],
        *,
        project: str | None = None,
        name: str = "",
        priority: Priority = "standard",
        not_before: float | None = None,
    ) -> RunHandle:
        """Put a recipe into the queue of a project (`Studio.project_id` says which, when none is named).

        Raises:
            RecipeError: the recipe has mistakes; all of them are told.
        """
        values = recipe.to_dict() if isinstance(recipe, Recipe) else dict(recipe)
        body = NewRun(recipe=values, name=name, priority=priority, not_before=not_before)
        return RunHandle(self, self.transport.call(runs.submit_run, self.studio.project_id(project), body))

    @covers(runs.list_runs)
    def list(self, project: str | None = None, *, state: RunState | None = None, limit: int = 50, after: str | None = None) -> Page[Run]:
        """Runs of a project, newest first."""
        return self.transport.call(runs.list_runs, self.studio.project_id(project), state=state, limit=limit, after=after)

    @covers(runs.get_run)
    def get(self, run_id: str) -> RunHandle:
        """Return one run."""
        return RunHandle(self, self.transport.call(runs.get_run, run_id))


class RunHandle:
    """A run, and what can be done with it."""

    def __init__(self, runs: Runs, record: Run) -> None:
        self._runs = runs
        self.record = record
        """The run as it was when it was last looked at (`refresh`)."""

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    @property
    def state(self) -> str:
        """queued, running, paused, succeeded, failed or cancelled, when it was last looked at."""
        return self.record.state

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it by itself, when it was last looked at."""
        return self.record.state in OVER

    def refresh(self) -> RunHandle:
        """Look again."""
        self.record = self._runs.transport.call(runs.get_run, self.id)
        return self

    def jobs(self) -> list[Job]:
        """Its jobs, oldest first."""
        return self._runs.jobs(self.id)

    def cancel(self) -> RunHandle:
        """Ask for the end of all its jobs that are not over; what they have saved stays."""
        for job in self.jobs():
            if not job.is_over:
                self._runs.studio.jobs.cancel(job.id)
        return self.refresh()

    def log(self, *, follow: bool = False) -> Iterator[str]:
        """The logs of its jobs, in order, piece by piece; with `follow` until nothing more will come."""
        for job in self.jobs():
            yield from self._runs.studio.jobs.log(job.id, follow=follow)

    def wait(
        self, on_step: Callable[[dict[str, Any]], object] | None = None, *, timeout_seconds: float | None = None, poll_seconds: float = POLL_SECONDS
    ) -> RunHandle:
        """Wait until the run is over; `on_step` is given each measurement as it comes.

        Raises:
            DanluError: what ended the run, when it failed.
            JobError: it was cancelled, or is not over after `timeout_seconds`.
        """
        self._runs.transport.wake()
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while not self.refresh().is_over:
            if deadline is not None and time.monotonic() > deadline:
                raise JobError(
                    f"run {self.id} is {self.state} after {timeout_seconds:g} seconds", why="it takes longer", fix="wait again; it goes on meanwhile"
                )
            time.sleep(poll_seconds)
        if self.state == "failed" and self.record.error:
            raise error_from(self.record.error)
        if self.state != "succeeded":
            raise JobError(f"run {self.id} is {self.state}", why="somebody cancelled it", fix="resume its job; it goes on from its last checkpoint")
        return self

    def __repr__(self) -> str:
        return f"<run {self.id} {self.state}>"
