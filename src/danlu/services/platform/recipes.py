"""Use cases on recipes before they run: check one, describe what one can say, preview what one will do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

import orjson
import yaml
from pydantic import Field

from danlu.data import findings
from danlu.errors import DanluError, JobError, RecipeError, TooManyRequestsError, error_from
from danlu.evaluation.report import words
from danlu.executors.local import KEPT_ENVIRONMENT
from danlu.recipe.base import StrictModel
from danlu.recipe.load import parse_yaml, validate
from danlu.recipe.recipe import Recipe, SplitConfig
from danlu.recipe.recommend import Goal
from danlu.services.forecasts import free_device
from danlu.services.platform.inputs import MAX_RECIPE_BYTES, check_size, find_inputs
from danlu.services.platform.operations import Call, operation
from danlu.services.platform.platform import Platform
from danlu.services.platform.runs import check_starts
from danlu.store import queue
from danlu.store.datasets import DATASET_VERSIONS, DatasetVersion

PREVIEW_SECONDS = 60.0
"""A preview that takes longer is given up: a chat template or a tokenizer may be made to hang."""
_AT_ONCE = threading.BoundedSemaphore(2)
_WAITING = threading.BoundedSemaphore(4)
"""Those that work and those that wait for it: each holds one of the few threads that everybody's requests are answered in."""


class RecipeText(StrictModel):
    """A recipe to check: as values, or as the text of a YAML file."""

    recipe: dict[str, Any] | None = None
    """As plain values."""
    text: str | None = Field(None, max_length=MAX_RECIPE_BYTES)
    """As YAML."""


class Preview(StrictModel):
    """A recipe to look at before it runs."""

    recipe: dict[str, Any]
    """As in a recipe file; what is `auto` is filled in."""
    goal: Goal | None = None
    """Choose the method and everything else for this goal; left out, only what is `auto` is chosen."""


@dataclass(frozen=True)
class Obstacle:
    """Why something cannot be started, or should not be."""

    code: str
    what: str
    why: str
    fix: str
    changes: dict[str, Any] = field(default_factory=dict)
    """Settings by dotted path with which it could be."""


@dataclass(frozen=True)
class CheckedRecipe:
    """What came of checking a recipe."""

    is_valid: bool
    recipe: dict[str, Any] | None
    """All of its settings, defaults included."""
    text: str | None
    """The same as YAML."""
    mistakes: list[str]
    """One line for each, with its path."""


@dataclass(frozen=True)
class PreviewedRun:
    """What a run will take, and whether it can start."""

    is_ready: bool
    problems: list[Obstacle]
    recipe: dict[str, Any] | None
    """With nothing left `auto`."""
    reasons: list[dict[str, Any]]
    """`{path, value, en, zh, source}` of each value that was chosen."""
    forecast: dict[str, Any] | None
    device: dict[str, Any] | None
    rows: dict[str, Any] | None
    """What the data doctor said of the dataset version, where it was looked at."""
    free_disk_bytes: int
    num_jobs_ahead: int
    split: dict[str, int] | None = None
    """Examples for `train`, `validation` and `test`, and those `mixed_in` from elsewhere; duplicates are taken off where the data was looked over."""


@operation("POST", "/recipes/check", right="user", status=200, is_logged=False)
def check_recipe(call: Call, body: RecipeText) -> CheckedRecipe:
    """Check a recipe and tell every mistake; return it whole, as values and as YAML.

    Raises:
        TooLargeError: it is larger than anybody writes one; to read it would keep a processor busy.
    """
    check_size(body.recipe or {})
    try:
        if (body.recipe is None) == (body.text is None):
            raise RecipeError("give either recipe or text", why="one of them is checked", fix="leave the other out")
        recipe = validate(body.recipe if body.recipe is not None else parse_yaml(body.text or "", "the text"), source="recipe")
    except RecipeError as error:
        lines = [line.strip() for line in error.what.splitlines()]
        return CheckedRecipe(False, None, None, lines[1:] or [f"{error.what}: {error.why}"])
    return CheckedRecipe(True, recipe.to_dict(), yaml.safe_dump(recipe.to_dict(), allow_unicode=True, sort_keys=False), [])


@operation("GET", "/recipes/schema", right="user")
def get_recipe_schema(call: Call) -> dict[str, Any]:
    """The JSON Schema of recipes: every setting with its type, range, default and help, also of what plugins add."""
    return Recipe.model_json_schema()


@operation("POST", "/projects/{project_id}/runs/preview", right="viewer", status=200, own_transaction=True, is_logged=False)
def preview_run(call: Call, project_id: str, body: Preview) -> PreviewedRun:
    """What a run will take, the values it will use with their reasons, and whether it can start.

    Raises:
        TooManyRequestsError: too many previews are under way.
    """
    free = shutil.disk_usage(call.platform.home).free
    try:
        with call.platform.database.reading() as connection:
            found = find_inputs(call.platform, connection, call.actor, project_id, body.recipe)
            check_starts(connection, found)
            ahead = sum(job.kind != "chat" for job in queue.unfinished(connection))
            version = DATASET_VERSIONS.find(connection, id=found.dataset_version_id) if found.dataset_version_id else None
        found.fetch(call.platform)
        question = {"recipe": found.recipe.to_dict(), "paths": found.paths, "goal": body.goal, "price_per_hour": call.platform.settings.price_per_hour}
        told = _ask(question | {"memory_bytes": free_device().available_bytes})
    except TooManyRequestsError:
        raise
    except DanluError as error:
        return PreviewedRun(False, [Obstacle(error.code, error.what, error.why, error.fix)], None, [], None, None, None, free, 0)
    problems = _problems(told["forecast"], free)
    rows = version.report if version is not None else None
    split = _split(call.platform, version, told)
    return PreviewedRun(not problems, problems, told["recipe"], told["reasons"], told["forecast"], told["device"], rows, free, ahead, split)


def _split(platform: Platform, version: DatasetVersion | None, told: dict[str, Any]) -> dict[str, int]:
    """What training would hold out: exactly where the doctor has left what it found, else by counting."""
    counted: dict[str, int] = told["split"]
    folder = platform.home / "cache" / version.digest if version is not None else None
    wanted = SplitConfig.model_validate(told["recipe"]["data"]["split"])
    if folder is None or wanted.is_given or not findings.has_findings(folder):
        return counted | {"train": told["forecast"]["num_examples"] - counted["mixed_in"]}
    seed = told["recipe"]["seed"]
    known = findings.preview_split(folder, validation=wanted.validation, test=wanted.test, max_examples=wanted.max_examples, seed=seed)
    return {"train": known.train, "validation": known.validation, "test": known.test, "mixed_in": counted["mixed_in"]}


def _problems(forecast: dict[str, Any], free: int) -> list[Obstacle]:
    found: list[Obstacle] = []
    if forecast["fit"] == "too_big":
        needed, there = words.size(forecast["memory"]["peak_bytes"]), words.size(forecast["available_bytes"])
        best: dict[str, Any] = next((option["changes"] for option in forecast["alternatives"]), {})
        fix = "take the settings that are offered" if best else "use a smaller base model"
        found.append(Obstacle("DL501", "this run does not fit into memory", f"it needs {needed}, and {there} are free", fix, best))
    if forecast["disk_bytes"] > free:
        needed, there = words.size(forecast["disk_bytes"]), words.size(free)
        found.append(Obstacle("DL700", "the disk has no room for this run", f"it needs {needed}, and {there} are free", "delete old runs"))
    return found


def _ask(question: dict[str, Any]) -> dict[str, Any]:
    """Let a process of its own look at model and data: what hangs or eats memory there does not harm the server.

    Raises:
        DanluError: what it says.
        JobError: it took too long or died.
        TooManyRequestsError: others are being looked at, and others wait already.
    """
    if not _WAITING.acquire(blocking=False):
        raise TooManyRequestsError("too many previews are under way", why="each takes a processor for some seconds", fix="ask again in some seconds")
    try:
        return _answered(question)
    finally:
        _WAITING.release()


def _answered(question: dict[str, Any]) -> dict[str, Any]:
    environment = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    with _AT_ONCE:
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "danlu.worker.preview"],
                input=orjson.dumps(question),
                capture_output=True,
                timeout=PREVIEW_SECONDS,
                env=environment,
            )
        except subprocess.TimeoutExpired as error:
            raise JobError(
                f"the preview took longer than {PREVIEW_SECONDS:g} seconds", why="the data or the model's files are slow to read", fix="submit it without"
            ) from error
    if done.returncode != 0:
        raise JobError("the preview crashed", why=f"its process ended with code {done.returncode}", fix="check the base model and the data file")
    answer: dict[str, Any] = orjson.loads(done.stdout)
    if "error" in answer:
        raise error_from(answer["error"])
    return answer
