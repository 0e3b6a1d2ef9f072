"""`studio.runs`: submit a recipe, wait for it, read its proof."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from danlu.client.events import POLL_SECONDS, Happening
from danlu.client.report import Report
from danlu.client.transfers import save
from danlu.client.transport import Method, Noun, covers
from danlu.errors import DanluError, JobError, error_from
from danlu.recipe.recipe import Recipe
from danlu.services.platform import downloads, proofs, runs, sweeps, taking, watching
from danlu.services.platform.jobs import Priority
from danlu.services.platform.runs import NewRun, RunState
from danlu.services.platform.watching import Kind
from danlu.store.jobs import Job
from danlu.store.rows import Page
from danlu.store.runs import Run

AWAY = (502, 503, 504)
"""What is told while a server, or its database, starts again."""
OVER = ("succeeded", "failed", "cancelled")


class Runs(Noun):
    """Runs: executions of recipes."""

    cases = Method(proofs.list_cases)
    change = Method(runs.change_run)
    compare = Method(proofs.compare_runs)
    continue_ = Method(runs.continue_run)
    curves = Method(watching.get_curves)
    delete = Method(runs.delete_run)
    diagnoses = Method(watching.list_diagnoses)
    download_report = Method(downloads.download_report)
    duplicate = Method(runs.duplicate_run)
    evaluation = Method(proofs.get_evaluation)
    evaluations = Method(proofs.list_evaluations)
    events = Method(watching.list_events)
    forecast = Method(watching.get_forecast)
    jobs = Method(runs.list_run_jobs)
    list_sweeps = Method(sweeps.list_sweeps)
    merge = Method(sweeps.submit_merge)
    points = Method(watching.list_points)
    preview_sweep = Method(sweeps.preview_sweep)
    proof = Method(proofs.get_proof)
    report = Method(proofs.get_report)
    resume = Method(runs.resume_run)
    samples = Method(watching.list_samples)
    stop = Method(runs.stop_run)
    sweep = Method(sweeps.submit_sweep)
    sweep_curves = Method(sweeps.get_sweep_curves)
    sweep_table = Method(sweeps.get_sweep)
    take = Method(taking.take_run)

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

    def report(self) -> Report:
        """The proof of a finished run.

        Raises:
            NotFoundError: it has none (yet).
        """
        return Report(self._runs.report(self.id))

    def save_report(self, target: str | Path) -> Path:
        """Write the report as one page (HTML) that needs nothing else."""
        return save(self._runs.download_report(self.id), Path(target).expanduser())

    def follow(self) -> Iterator[Happening]:
        """Events (`event`), numbers (`point`) and the run itself whenever it changes (`run`), from its beginning until it is over."""
        return self._runs.transport.follow("runs", self.id)

    def log(self, *, follow: bool = False) -> Iterator[str]:
        """The logs of its jobs, in order, piece by piece; with `follow` until nothing more will come."""
        for job in self.jobs():
            yield from self._runs.studio.jobs.log(job.id, follow=follow)

    def wait(
        self, on_step: Callable[[dict[str, Any]], object] | None = None, *, timeout_seconds: float | None = None, poll_seconds: float = POLL_SECONDS
    ) -> RunHandle:
        """Wait until the run is over; `on_step` is given what was measured at each step as it comes: `{"step": 10, "loss": 2.1, ...}`.

        A server may be away for ten minutes meanwhile: it is waited for too.

        Raises:
            DanluError: what ended the run, when it failed.
            JobError: it was cancelled, or is not over after `timeout_seconds`.
        """
        self._runs.transport.wake()
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        seen = dict.fromkeys(get_args(Kind), -1)
        answered_at = time.monotonic()
        while True:
            try:
                is_over = self.refresh().is_over  # before the points: the last ones must not be missed
                if on_step is not None:
                    self._tell(on_step, seen)
                answered_at = time.monotonic()
            except DanluError as error:
                if error.http_status not in AWAY or time.monotonic() - answered_at > self._runs.transport.patience_seconds:
                    raise
                is_over = False
            if is_over:
                break
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

    def _tell(self, on_step: Callable[[dict[str, Any]], object], seen: dict[Kind, int]) -> None:
        """Hand on what was measured since; of each kind separately, since a validation may come after the steps behind it."""
        for kind in seen:
            while points := self._runs.points(self.id, kind=kind, after=seen[kind]):
                for point in points:
                    on_step({"step": point.step, **point.values})
                seen[kind] = points[-1].step

    def __repr__(self) -> str:
        return f"<run {self.id} {self.state}>"
