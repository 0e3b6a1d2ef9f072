"""Use cases on models: base models that can be used, and the registry of what runs made, each version with where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from danlu.errors import ConflictError, DanluError
from danlu.models.catalogue import EMBEDDED
from danlu.models.forecast import Alternative
from danlu.models.memory import Fit
from danlu.recipe.base import StrictModel
from danlu.run_dir import RunDir
from danlu.services.base_models import base_model_facts
from danlu.services.platform.file_names import clean_name
from danlu.services.platform.inputs import check_is_here, local_models
from danlu.services.platform.operations import Call, operation
from danlu.services.platform.recipes import Obstacle
from danlu.services.platform.runs import used_runs
from danlu.store.datasets import DATASET_VERSIONS, DATASETS
from danlu.store.rows import Page
from danlu.store.runs import EXPORTS, MODELS, RUNS, Export, Model, Run


class NewModel(StrictModel):
    """A finished run to keep as a version of a model."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^@/\\\s][^@/\\\n\r\t]*$"), AfterValidator(clean_name)]
    """The model's name; the version gets the next number under it."""


@dataclass(frozen=True)
class BaseModelChoice:
    """A base model that a recipe may name, and whether a usual LoRA run with it fits into the memory of this machine."""

    name: str
    is_embedded: bool
    size_bytes: int
    """Of its weights."""
    licence: str | None
    """As its model card states it."""
    num_parameters: int | None
    fit: Fit | None
    """`fits`, `tight` or `too_big`; null where config.json does not tell the sizes."""
    needed_bytes: int | None
    """Peak memory of the usual run: LoRA as it is recommended for 1,000 conversations of 512 tokens."""
    available_bytes: int | None
    """What is free for a run now: of a GPU where there is one, else of the machine."""
    alternative: Alternative | None
    """The mildest change with which it would fit, where it is too big; null where nothing helps."""
    problem: Obstacle | None
    """Why there is no forecast."""


@dataclass(frozen=True)
class DatasetSource:
    """The data that a run was trained on."""

    dataset_version_id: str
    name: str
    """As `name@number`."""
    digest: str


@dataclass(frozen=True)
class Lineage:
    """Where a model came from and what was made of it: data, recipe, runs, proof, exports."""

    model: Model
    run: Run
    recipe: dict[str, Any]
    """Resolved; its fingerprint is the run's."""
    dataset: DatasetSource | None
    """None for bundled examples and files of the server."""
    rounds: list[Run]
    """Earlier runs whose weights it started from, newest first."""
    verdict: dict[str, Any] | None
    exports: list[Export]


@operation("GET", "/base-models", right="user")
def list_base_models(call: Call) -> list[BaseModelChoice]:
    """Base models on this machine, and what fits its memory; a recipe may also name one of the hub, or (administrators) a folder."""
    return [_choice(name, folder) for name, folder in {**EMBEDDED, **local_models(call.platform)}.items()]


def _choice(name: str, folder: Path) -> BaseModelChoice:
    facts = base_model_facts(folder)
    usual, error = facts.usual, facts.error
    return BaseModelChoice(
        name,
        name in EMBEDDED,
        facts.size_bytes,
        facts.licence,
        facts.num_parameters,
        fit=usual.fit if usual else None,
        needed_bytes=usual.memory.peak_bytes if usual else None,
        available_bytes=usual.available_bytes if usual else None,
        alternative=facts.alternative,
        problem=_obstacle(error, folder, name) if error else None,
    )


def _obstacle(error: DanluError, folder: Path, name: str) -> Obstacle:
    """The error with the model's name in place of its path, which is nobody's business."""
    what, why, fix = (text.replace(str(folder), name) for text in (error.what, error.why, error.fix))
    return Obstacle(error.code, what, why, fix)


@operation("POST", "/runs/{run_id}/models", right="editor", own_transaction=True)
def register_model(call: Call, run_id: str, body: NewModel) -> Model:
    """Keep what a finished run made under a name, with the next number.

    Raises:
        ConflictError: the run has not finished, or lies elsewhere.
    """
    with call.platform.database.reading() as connection:
        run = RUNS.get(connection, run_id)
        check_is_here(call.platform, connection, run)
    run_dir = RunDir(call.platform.run_folder(run_id))
    folder = next((path for path in (run_dir.adapter, run_dir.model) if path.is_dir()), None)
    if run.state != "succeeded" or folder is None:
        raise ConflictError(f"run {run_id} has made no model yet", why=f"it is {run.state}", fix="wait for it, or resume it")
    stored = call.platform.artifacts.put_folder(folder, is_final=True)
    with call.platform.database.writing() as connection:
        earlier = MODELS.all(connection, project_id=run.project_id, name=body.name)
        same = next((model for model in earlier if model.digest == stored.digest and model.run_id == run_id), None)
        if same is not None:
            return same
        made = MODELS.insert(
            connection,
            project_id=run.project_id,
            name=body.name,
            number=max((model.number for model in earlier), default=0) + 1,
            run_id=run_id,
            kind="adapter" if folder == run_dir.adapter else "model",
            digest=stored.digest,
            verdict=run.verdict,
            created_by=call.actor.user_id,
        )
        call.settle(connection, made)
        return made


@operation("GET", "/projects/{project_id}/models", right="viewer")
def list_models(call: Call, project_id: str, name: str | None = None, limit: int = 50, after: str | None = None) -> Page[Model]:
    """Models of a project, or versions of one name, newest first."""
    return MODELS.page(call.connection, limit=limit, after=after, project_id=project_id, **({} if name is None else {"name": name}))


@operation("GET", "/models/{model_id}", right="viewer")
def get_model(call: Call, model_id: str) -> Model:
    """Return one model version."""
    return MODELS.get(call.connection, model_id)


@operation("GET", "/models/{model_id}/lineage", right="viewer")
def get_lineage(call: Call, model_id: str) -> Lineage:
    """Where a model came from: data version, recipe, run and the rounds before it, proof, exports."""
    connection, model = call.connection, MODELS.get(call.connection, model_id)
    run = RUNS.get(connection, model.run_id)
    source = None
    if run.dataset_version_id is not None:
        version = DATASET_VERSIONS.get(connection, run.dataset_version_id)
        source = DatasetSource(version.id, f"{DATASETS.get(connection, version.dataset_id).name}@{version.number}", version.digest)
    rounds: list[Run] = []
    earlier = run.recipe.get("start_from")
    while earlier and (found := RUNS.find(connection, id=earlier, project_id=model.project_id)) is not None and found not in rounds:
        rounds.append(found)
        earlier = found.recipe.get("start_from")
    exports = EXPORTS.all(connection, run_id=run.id)
    return Lineage(model, run, run.resolved or run.recipe, source, rounds, (run.summary or {}).get("verdict"), exports)


@operation("DELETE", "/models/{model_id}", right="admin")
def delete_model(call: Call, model_id: str) -> None:
    """Take a model version out of the registry; the run stays.

    Raises:
        ConflictError: a run that is not over starts from it.
    """
    model = MODELS.get(call.connection, model_id)
    for run in RUNS.all(call.connection, project_id=model.project_id, state=["queued", "running", "paused"]):
        if model.run_id in used_runs(run.recipe):
            raise ConflictError(f"model {model.name}@{model.number} is still used", why=f"run {run.id} starts from it", fix="wait for the run, or cancel it")
    MODELS.delete(call.connection, model_id)
