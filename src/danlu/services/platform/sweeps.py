"""Use cases on runs that come of several: sweeps (the best of many settings) and merges (one adapter of several)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field, ValidationError

from danlu.errors import ConflictError, NoEffectError, NotFoundError, RecipeError, TooLargeError
from danlu.recipe.base import StrictModel
from danlu.recipe.load import validate, with_settings
from danlu.recipe.recipe import Recipe
from danlu.recipe.sweep import SweepConfig, ranges_to_search, values_to_try
from danlu.services.platform import sweep_members
from danlu.services.platform.inputs import check_is_here, check_size, run_of
from danlu.services.platform.operations import Call, operation
from danlu.services.platform.runs import Start, carrier, start
from danlu.services.platform.watching import Curve
from danlu.store.engine import Connection
from danlu.store.jobs import JOBS, Job
from danlu.store.rows import Page
from danlu.store.runs import RUNS, Run

MAX_MEMBERS = 256
MAX_MISTAKES = 20
SHARED = ("dataset", "base_model", "start_from", "data.mix", "data.replay", "data.split.validation_dataset", "data.split.test_dataset", "evaluation")
"""What no member has for itself."""


class NewSweep(Start):
    """Settings of a recipe to try."""

    recipe: dict[str, Any]
    """What all members share, as in a recipe file."""
    sweep: dict[str, Any]
    """What they differ in: `{"set": {"method.rank": [4, 8]}}`, with `rungs` and `keep`, or `trials` and `space`."""


class SweepPreview(StrictModel):
    """A sweep to look at before it is submitted."""

    recipe: dict[str, Any]
    """What all members share; with nothing left `auto` more can be told (`preview_run` makes one)."""
    sweep: dict[str, Any] = {}
    """What they differ in; empty to be told only what is worth trying."""
    num_steps: int | None = Field(None, ge=1, le=10**9)
    """Steps of one member, where a preview has told them: for the steps at which members are compared."""


class NewMerge(Start):
    """Runs to make one adapter of."""

    run_ids: list[str] = Field(min_length=2, max_length=20)
    """Finished runs with adapters over the same base model; ids, or models as `name@number`."""
    how: Literal["linear", "svd", "ties", "dare_linear", "dare_ties"] = "linear"
    """linear: exact weighted sum. svd: the same at one rank. ties and dare keep a part of each run's changes."""
    weights: list[float] | None = None
    """One for each run; equal shares when left out."""
    rank: int | None = Field(None, ge=1, le=4096)
    """Rank of the result (not for linear)."""
    density: float = Field(0.5, gt=0, le=1)
    """Share of each run's changes that is kept (ties and dare)."""


@dataclass(frozen=True)
class SweepMember:
    """One member of a sweep."""

    rank: int
    name: str
    settings: dict[str, Any]
    """What it differs in, by dotted path."""
    validation_loss: float | None
    """The lowest so far."""
    best_step: int | None
    steps: int
    num_steps: int | None
    state: str
    """`waiting`, `training`, `trained`, `left` (others were better when they were compared) or `failed`."""
    note: str
    """Where it was left, or why it failed."""


@dataclass(frozen=True)
class SweepTable:
    """How the members of a sweep stand."""

    run_id: str
    state: str
    """`running`, `proving` (the best is measured) or `finished`; else what its job is: `queued`, `paused`, `failed`, ..."""
    best: str | None
    members: list[SweepMember]
    """Best first."""
    sweep: dict[str, Any]
    """What it tries, as it was submitted."""
    num_members: int
    """How many there will be."""


@dataclass(frozen=True)
class ListedSweep:
    """A sweep in the list."""

    run: Run
    """The run that its best member becomes."""
    sweep: dict[str, Any]
    """What it tries."""
    num_members: int


@dataclass(frozen=True)
class MemberCurves:
    """Loss in training and in validation of a member of a sweep."""

    name: str
    curves: list[Curve]


@dataclass(frozen=True)
class Rung:
    """When members are compared, and how many go on then."""

    step: int
    num_members: int


@dataclass(frozen=True)
class PreviewedSweep:
    """What a sweep will try, and whether it can be submitted."""

    is_ready: bool
    mistakes: list[str]
    num_members: int
    members: list[dict[str, Any]]
    """What each differs in; empty where Optuna chooses."""
    rungs: list[Rung]
    num_steps: int | None
    """Steps of all members together, those that are left not counted any further; null where it is not known."""
    suggestions: dict[str, list[Any]]
    """Values worth trying by path."""
    ranges: dict[str, str]
    """Ranges worth searching by path, for a search by Optuna."""


@operation("POST", "/projects/{project_id}/sweeps", right="editor", own_transaction=True)
def submit_sweep(call: Call, project_id: str, body: NewSweep) -> Run:
    """Try several settings of one recipe; the best member becomes the run that is returned.

    Raises:
        RecipeError: the recipe, the search, or a member does not validate.
    """
    config = _config(body.sweep)
    check_size(body.recipe)
    written = validate(body.recipe, source="recipe")
    for settings in config.members() if config.set else config.ends():
        with_settings(written, settings)
    return start(call, project_id, body.recipe, body, kind="sweep", more={"sweep": config.model_dump(mode="json")})


@operation("POST", "/projects/{project_id}/sweeps/preview", right="viewer", status=200, is_logged=False)
def preview_sweep(call: Call, project_id: str, body: SweepPreview) -> PreviewedSweep:
    """What a sweep would try and when its members would be compared; without values, which are worth trying.

    Raises:
        RecipeError: the recipe has mistakes.
    """
    check_size(body.recipe)
    written = validate(body.recipe, source="recipe")
    worth = values_to_try(written.to_dict()), ranges_to_search(written.to_dict())
    if not body.sweep:
        return PreviewedSweep(False, [], 0, [], [], None, *worth)
    try:
        config = _config(body.sweep)
    except (RecipeError, NoEffectError, TooLargeError) as error:
        return PreviewedSweep(False, [f"{error.what}\n{error.why}"], 0, [], [], None, *worth)
    members = config.members() if config.set else []
    mistakes = _mistakes(written, members or config.ends())
    if config.space and find_spec("optuna") is None:
        mistakes.append("Optuna is not installed\npip install 'danlu[sweep]'")
    rungs, num_steps = _rungs(written, config, body.num_steps)
    return PreviewedSweep(not mistakes, mistakes, config.num_members, members, rungs, num_steps, *worth)


@operation("GET", "/projects/{project_id}/sweeps", right="viewer")
def list_sweeps(call: Call, project_id: str, limit: int = 50, after: str | None = None) -> Page[ListedSweep]:
    """Sweeps of a project, newest first."""
    page = JOBS.page(call.connection, limit=limit, after=after, project_id=project_id, kind="sweep")
    runs = {run.id: run for run in RUNS.all(call.connection, id=[job.run_id for job in page.items], discarded_at=None)}
    found = [(runs[job.run_id], SweepConfig.model_validate(job.payload["sweep"])) for job in page.items if job.run_id in runs]
    return Page([ListedSweep(run, config.model_dump(mode="json"), config.num_members) for run, config in found], page.next)


@operation("GET", "/runs/{run_id}/sweep", right="viewer")
def get_sweep(call: Call, run_id: str) -> SweepTable:
    """The members of a sweep, best first, as they stand now.

    Raises:
        NotFoundError: the run is no sweep.
    """
    job = _sweep_job(call.connection, run_id)
    config = SweepConfig.model_validate(job.payload["sweep"])
    said, best, members = sweep_members.table_of(call.platform.run_folder(run_id), config)
    if job.state in ("running", "pausing", "cancelling"):
        state = "proving" if said == "proving" else "running"
    else:
        state = "finished" if job.state == "succeeded" else job.state
    return SweepTable(run_id, state, best, [SweepMember(**member) for member in members], config.model_dump(mode="json"), config.num_members)


@operation("GET", "/runs/{run_id}/sweep/curves", right="viewer")
def get_sweep_curves(call: Call, run_id: str, names: str | None = None) -> list[MemberCurves]:
    """Loss of the members of a sweep in training and validation; only of those `names` (with commas between), or of all.

    Raises:
        NotFoundError: the run is no sweep.
    """
    _sweep_job(call.connection, run_id)
    folder = call.platform.run_folder(run_id)
    there = sorted(path.name for path in (folder / sweep_members.FOLDER / "runs").glob("*"))
    wanted = there if names is None else [name for name in names.split(",") if name in there]
    return [MemberCurves(name, list(sweep_members.measurements_of(folder, name).curves)) for name in wanted]


@operation("POST", "/projects/{project_id}/merges", right="editor", own_transaction=True)
def submit_merge(call: Call, project_id: str, body: NewMerge) -> Run:
    """Make one adapter of several finished runs, and prove it on what all of them held out.

    Raises:
        NotFoundError: one of them is no run of this project.
        ConflictError: one has not finished, or they have different base models.
    """
    with call.platform.database.reading() as connection:
        runs = [run_of(connection, project_id, name) for name in dict.fromkeys(body.run_ids)]
        for run in runs:
            check_is_here(call.platform, connection, run)
    if len(runs) < 2:
        raise NoEffectError("one run cannot be merged with itself", why="the result would be that run", fix="name two or more runs")
    if body.weights is not None and len(body.weights) != len(runs):
        raise NoEffectError(f"{len(body.weights)} weights were given for {len(runs)} runs", why="each run has one weight", fix="give as many numbers as runs")
    for run in runs:
        if run.state != "succeeded":
            raise ConflictError(f"run {run.id} has not finished", why=f"it is {run.state}", fix="wait for it, or resume it")
        if run.base_model != runs[0].base_model:
            raise ConflictError(
                f"runs {runs[0].id} and {run.id} have different base models",
                why=f"{runs[0].base_model} and {run.base_model}",
                fix="merge runs over the same one",
            )
    folders = [str(call.platform.run_folder(run.id)) for run in runs]
    more = {"folders": folders, **body.model_dump(include={"how", "weights", "rank", "density"})}
    how = body if body.name else body.model_copy(update={"name": " + ".join(run.name for run in runs)[:200]})
    return start(call, project_id, runs[0].recipe, how, kind="merge", more=more)


def _config(values: dict[str, Any]) -> SweepConfig:
    """What a sweep tries.

    Raises:
        TooLargeError: it is no list of settings any more.
        RecipeError: it cannot be understood.
        NoEffectError: it would try too much, or what members share.
    """
    check_size(values)
    try:
        config = SweepConfig.model_validate(values)
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, entry['loc'])) or 'sweep'}: {entry['msg'].removeprefix('Value error, ')}" for entry in error.errors())
        raise RecipeError(f"the sweep cannot be understood: {lines}", why="it is checked before anything starts", fix="see docs/sweeps.md") from error
    if config.num_members > MAX_MEMBERS:
        raise NoEffectError(
            f"a sweep of {config.num_members} members is too much", why=f"at most {MAX_MEMBERS} are tried", fix="give fewer values, or use trials"
        )
    for path in (*config.set, *config.space):
        _check_path(path)
    return config


def _mistakes(written: Recipe, members: list[dict[str, Any]]) -> list[str]:
    """What is wrong with members, each told once."""
    found: dict[str, None] = {}
    if not written.data.split.has_validation:
        found["data.split.validation: members are ranked by their validation loss; set it to 0.1"] = None
    for settings in members:
        try:
            with_settings(written, settings)
        except RecipeError as error:
            found |= dict.fromkeys([line.strip() for line in error.what.splitlines()[1:]] or [error.what])
    return list(found)[:MAX_MISTAKES]


def _rungs(written: Recipe, config: SweepConfig, num_steps: int | None) -> tuple[list[Rung], int | None]:
    """When members of so many steps are compared, and how many steps all of them take together."""
    every = written.training.validate_every_steps
    if num_steps is None or every == "auto":
        return [], None
    alive, before, total, rungs = config.num_members, 0, 0, []
    for step in config.rung_steps(num_steps, int(every)) if config.set else []:
        if alive == 1:
            break
        total, before, alive = total + alive * (step - before), step, config.num_kept(alive)
        rungs.append(Rung(step, alive))
    return rungs, total + alive * (num_steps - before)


def _sweep_job(connection: Connection, run_id: str) -> Job:
    """The job that carries out a sweep.

    Raises:
        NotFoundError: the run is no sweep.
    """
    job = carrier(connection, run_id)
    if job.kind != "sweep":
        raise NotFoundError(f"run {run_id} is no sweep", why=f"it is carried out by a job of kind {job.kind}", fix="submit a sweep")
    return job


def _check_path(path: str) -> None:
    """Names of files and models are the same for all members: they were found, and checked, before. Neither they, nor what holds them, can be swept."""
    if any(path == shared or path.startswith(f"{shared}.") or shared.startswith(f"{path}.") for shared in SHARED):
        raise NoEffectError(f"{path} cannot be swept", why="members share data, base model and what is measured", fix="submit runs of their own")
