"""Use cases on runs that come of several: sweeps (the best of many settings) and merges (one adapter of several)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError

from danlu.errors import ConflictError, NoEffectError, NotFoundError, RecipeError
from danlu.files import read_json
from danlu.recipe.load import validate, with_settings
from danlu.recipe.sweep import SweepConfig
from danlu.services.platform.inputs import check_is_here, run_of
from danlu.services.platform.operations import Call, operation
from danlu.services.platform.runs import Start, carrier, start
from danlu.store.runs import Run

MAX_MEMBERS = 256


class NewSweep(Start):
    """Settings of a recipe to try."""

    recipe: dict[str, Any]
    """What all members share, as in a recipe file."""
    sweep: dict[str, Any]
    """What they differ in: `{"set": {"method.rank": [4, 8]}}`, with `rungs` and `keep`, or `trials` and `space`."""


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
class SweepTable:
    """How the members of a sweep stand."""

    run_id: str
    state: str
    """`running`, `paused`, `proving` or `finished`."""
    best: str | None
    members: list[dict[str, Any]]
    """Best first: `{rank, name, settings, validation_loss, best_step, steps, num_steps, state, note}`."""


@operation("POST", "/projects/{project_id}/sweeps", right="editor", own_transaction=True)
def submit_sweep(call: Call, project_id: str, body: NewSweep) -> Run:
    """Try several settings of one recipe; the best member becomes the run that is returned.

    Raises:
        RecipeError: the recipe, the search, or a member does not validate.
    """
    try:
        config = SweepConfig.model_validate(body.sweep)
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, entry['loc'])) or 'sweep'}: {entry['msg'].removeprefix('Value error, ')}" for entry in error.errors())
        raise RecipeError(f"the sweep cannot be understood: {lines}", why="it is checked before anything starts", fix="see docs/sweeps.md") from error
    num_members = config.trials or 1
    for values in config.set.values():
        num_members *= len(values)
    if num_members > MAX_MEMBERS:
        raise NoEffectError(f"a sweep of {num_members} members is too much", why=f"at most {MAX_MEMBERS} are tried", fix="give fewer values, or use trials")
    written = validate(body.recipe, source="recipe")
    for settings in config.members() if config.set else []:
        _check_member(settings)
        with_settings(written, settings)
    for path in config.space:
        _check_member({path: None})
    return start(call, project_id, body.recipe, body, kind="sweep", more={"sweep": config.model_dump(mode="json")})


@operation("GET", "/runs/{run_id}/sweep", right="viewer")
def get_sweep(call: Call, run_id: str) -> SweepTable:
    """The members of a sweep, best first.

    Raises:
        NotFoundError: the run is no sweep.
    """
    job = carrier(call.connection, run_id)
    if job.kind != "sweep":
        raise NotFoundError(f"run {run_id} is no sweep", why=f"it is carried out by a job of kind {job.kind}", fix="submit a sweep")
    path = call.platform.run_folder(run_id) / "sweep" / "results.json"
    found: dict[str, Any] = read_json(path) if path.exists() else {"state": job.state, "members": []}
    members = [{name: value for name, value in member.items() if name != "path"} for member in found["members"]]
    return SweepTable(run_id, found["state"], found.get("best"), members)


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


def _check_member(settings: dict[str, Any]) -> None:
    """Names of files and models are the same for all members: they were found, and checked, before."""
    for path in settings:
        if path.split(".")[0] in ("dataset", "base_model", "start_from") or path.startswith(("data.mix", "data.replay", "evaluation")):
            raise NoEffectError(f"{path} cannot be swept", why="members share data, base model and what is measured", fix="submit runs of their own")
