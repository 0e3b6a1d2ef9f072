"""What a recipe names, found for one project: datasets, base model, earlier runs. Whoever asks gets nothing that is not theirs.

Names, not paths: a path is taken from administrators only, and only below the folders that the installation allows
(`DANLU_ROOTS`, and `data` and `models` in the home folder). Holds no operations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import orjson

from danlu import bundled
from danlu.errors import ConflictError, ForbiddenError, NotFoundError, TooLargeError, UnknownNameError
from danlu.models.catalogue import EMBEDDED
from danlu.recipe.load import validate
from danlu.recipe.recipe import Recipe
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.storage import cached_file
from danlu.store import workers
from danlu.store.datasets import DATASET_VERSIONS, DATASETS, DatasetVersion
from danlu.store.engine import Connection
from danlu.store.runs import MODELS, RUNS, Run, home_of

MAX_RECIPE_BYTES = 100_000
"""Of a recipe as JSON. It is stored with its run, twice, and lists of runs hold it: what is larger is data, and belongs into a dataset."""
LOCAL = "local/"
"""Base models that an administrator has put into `models` of the home folder go by `local/NAME`."""
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w.-]{1,100})?")
FOLDER_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")


@dataclass
class Inputs:
    """A recipe whose names are pinned, and where on this machine they lie."""

    recipe: Recipe
    paths: dict[str, str] = field(default_factory=dict)
    """Absolute path of what goes by a name."""
    artifacts: dict[str, str] = field(default_factory=dict)
    """Digest of each path that is a copy of an artifact."""
    dataset_version_id: str | None = None
    """The version of the recipe's `dataset`, where it is one."""

    def fetch(self, platform: Platform) -> None:
        """Bring the files of datasets to this machine, where they are not here yet; each is verified on the way.

        Raises:
            StorageError: an artifact is missing or damaged, or the disk is full.
        """
        fetch(platform, self.artifacts)


def fetch(platform: Platform, artifacts: Mapping[str, str]) -> None:
    """Copy artifacts (digest by path) into the cache, where they are not there yet.

    Raises:
        StorageError: one is missing or damaged, or the disk is full.
    """
    for path, digest in artifacts.items():
        cached_file(platform, digest, Path(path).name)


def find_inputs(platform: Platform, connection: Connection, actor: Actor, project_id: str, values: Mapping[str, Any]) -> Inputs:
    """Validate a recipe and find what it names.

    Raises:
        RecipeError: it has mistakes; all of them are told.
        TooLargeError: it is no recipe any more.
        NotFoundError: this project has no such dataset or run.
        ForbiddenError: it names a path that this user may not name.
    """
    check_size(values)
    written = validate(dict(values), source="recipe")
    search = _Search(platform, connection, actor, project_id)
    pinned = written.to_dict()
    pinned["dataset"] = search.dataset(written.dataset, is_main=True)
    pinned["data"]["mix"] = {search.dataset(name): share for name, share in written.data.mix.items()}
    for split, name in written.data.split.datasets.items():
        pinned["data"]["split"][f"{split}_dataset"] = search.dataset(name)
    search.base_model(written.base_model)
    if written.start_from is not None:
        pinned["start_from"] = search.run(written.start_from)
    if written.data.replay is not None:
        pinned["data"]["replay"]["run"] = search.run(written.data.replay.run)
    for suite in pinned["evaluation"]["suites"]:
        if suite.get("file") is not None:
            search.path(suite["file"], "evaluation.suites.file")
    found = search.found
    found.recipe = validate(pinned, source="recipe")
    return found


def check_size(values: Mapping[str, Any]) -> None:
    """Refuse a recipe, or what a sweep tries, that is larger than anybody writes one.

    Raises:
        TooLargeError: it is.
    """
    try:
        size = len(orjson.dumps(values, default=str))
    except orjson.JSONEncodeError:  # nested without end, or a key that is none: what checks the recipe says so
        return
    if size > MAX_RECIPE_BYTES:
        raise TooLargeError(
            f"this recipe has {size:,} bytes", why=f"{MAX_RECIPE_BYTES:,} bytes are the limit", fix="leave out what is no setting; data belongs into a dataset"
        )


def run_of(connection: Connection, project_id: str, name: str) -> Run:
    """A run of the project by its id, or by a model `name@number` that came out of it.

    Raises:
        NotFoundError: the project has none of that name.
    """
    run = RUNS.find(connection, id=name, project_id=project_id)
    if run is None:
        stem, _, number = name.rpartition("@")
        model = MODELS.find(connection, project_id=project_id, name=stem, number=int(number)) if number.isdigit() and len(number) < 9 else None
        run = None if model is None else RUNS.get(connection, model.run_id)
    if run is None or run.discarded_at is not None:
        raise NotFoundError(
            f"this project has no run or model {name[:80]!r}", why="the id is mistyped, it was deleted, or it belongs elsewhere", fix="list the runs"
        )
    return run


def check_is_here(platform: Platform, connection: Connection, run: Run) -> None:
    """Refuse to work with the files of a run that lie in another home on the same database: here they would only be missing.

    Raises:
        ConflictError: they do.
    """
    home = home_of(connection, run.id)
    if not platform.database.is_sqlite and home not in (None, workers.home_id(platform.database, platform.home)):
        host = next((worker.host for worker in workers.all_workers(connection) if worker.home == home), "an unknown host")
        raise ConflictError(
            f"the files of run {run.id} are on another machine", why=f"it belongs to the home {home} on {host}", fix="ask the server of that machine"
        )


def version_of(connection: Connection, project_id: str, name: str) -> tuple[str, DatasetVersion] | None:
    """A dataset version of the project by `name@number`, or the newest by `name`; with the name that pins it."""
    stem, _, number = name.rpartition("@")
    if not (stem and number.isdigit() and len(number) < 9):
        stem, number = name, ""
    dataset = DATASETS.find(connection, project_id=project_id, name=stem)
    if dataset is None:
        return None
    versions = [version for version in DATASET_VERSIONS.all(connection, dataset_id=dataset.id) if number in ("", str(version.number))]
    if not versions:
        return None
    newest = max(versions, key=lambda version: version.number)
    return f"{stem}@{newest.number}", newest


def roots(platform: Platform) -> list[Path]:
    """Folders below which administrators may name files and models."""
    return [*platform.settings.roots, platform.home.resolve() / "data", platform.home.resolve() / "models"]


def local_models(platform: Platform) -> dict[str, Path]:
    """Base models in the home folder by their names."""
    folder = platform.home / "models"
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return {LOCAL + path.name: path for path in found if FOLDER_NAME.fullmatch(path.name) and (path / "config.json").is_file()}


def base_model_path(platform: Platform, name: str) -> str | None:
    """Folder of a base model that anyone may name; None for an embedded one or one of the hub, which go by their names.

    Raises:
        UnknownNameError: it is none.
    """
    known = local_models(platform) if name.startswith(LOCAL) else {}
    if name in known:
        return str(known[name].resolve())
    if name in EMBEDDED or (HUB_NAME.fullmatch(name) and not name.startswith(("danlu/", LOCAL))):
        return None
    raise UnknownNameError(
        f"unknown base model {name[:80]!r}", why="it is neither embedded, nor in the home folder, nor a hub name", fix="use danlu/tiny, or list the base models"
    )


@dataclass
class _Search:
    platform: Platform
    connection: Connection
    actor: Actor
    project_id: str

    def __post_init__(self) -> None:
        self.found = Inputs(None)  # type: ignore[arg-type]  # set when all names are known

    def dataset(self, name: str, *, is_main: bool = False) -> str:
        """The name under which a dataset is used."""
        version = version_of(self.connection, self.project_id, name)
        if version is not None:
            pinned, row = version
            path = str(self.platform.home / "cache" / row.digest / row.file_name)
            self.found.paths[pinned], self.found.artifacts[path] = path, row.digest
            if is_main:
                self.found.dataset_version_id = row.id
            return pinned
        example = bundled.dataset_path(name)
        if example is not None:
            self.found.paths[name] = str(example)
            return name
        if is_path(name):
            return self.path(name, "dataset")
        known = [*bundled.example_names(), *(dataset.name for dataset in DATASETS.all(self.connection, project_id=self.project_id))]
        near = get_close_matches(name.partition("@")[0], known, n=1)
        raise NotFoundError(
            f"this project has no dataset {name[:80]!r}",
            why="it is neither a dataset of the project (name, or name@number) nor a bundled example",
            fix=f"did you mean {near[0]}?"
            if near
            else f"bring it in first (`danlu datasets add FILE`, or the page Datasets), or use {bundled.example_names()[0]}",
        )

    def base_model(self, name: str) -> str:
        """The name of a base model, once it is known to be one that may be used."""
        if is_path(name):
            return self.path(name, "base_model")
        path = base_model_path(self.platform, name)
        if path is not None:
            self.found.paths[name] = path
        return name

    def run(self, name: str) -> str:
        """The id of a run of this project."""
        run = run_of(self.connection, self.project_id, name)
        check_is_here(self.platform, self.connection, run)
        self.found.paths[run.id] = str(self.platform.run_folder(run.id))
        return run.id

    def path(self, name: str, setting: str) -> str:
        """A path below one of the roots, for administrators."""
        if not self.actor.is_operator or self.actor.key_role not in (None, "admin"):
            raise ForbiddenError(
                f"{setting}: files of the server cannot be named", why="you are no administrator", fix="upload the file, and use the dataset's name"
            )
        path = Path(name).expanduser().resolve()
        if not any(path.is_relative_to(root) for root in roots(self.platform)):
            raise ForbiddenError(
                f"{setting}: {name[:200]} lies outside the folders that may be used",
                why="they are " + ", ".join(str(root) for root in roots(self.platform)),
                fix="put it there, or add its folder to DANLU_ROOTS",
            )
        self.found.paths[name] = str(path)
        return name


def is_path(name: str) -> bool:
    """Whether a name is meant as a path on the server."""
    return name.startswith(("/", "~", ".")) or "\\" in name or name.count("/") > 1 or ".." in name
