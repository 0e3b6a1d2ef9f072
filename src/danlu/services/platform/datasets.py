"""Use cases on datasets: bring data in, look at it, correct it. A version never changes; whatever corrects it makes a new one."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from danlu import bundled
from danlu.artifacts import Stored
from danlu.errors import ConflictError, NotFoundError
from danlu.recipe.base import StrictModel
from danlu.services.platform import quotas
from danlu.services.platform.file_names import DatasetName
from danlu.services.platform.inputs import base_model_path
from danlu.services.platform.operations import Call, operation
from danlu.services.platform.platform import Platform
from danlu.services.platform.storage import cached, cached_file, check_quota
from danlu.store import datasets, jobs, workers
from danlu.store.datasets import DATASET_VERSIONS, DATASETS, Dataset, DatasetVersion, ListedDataset
from danlu.store.engine import Connection
from danlu.store.jobs import Job
from danlu.store.rows import Page

MAX_VERSIONS = 10_000
SHORT_JOB_SLOTS = 0
"""Looking at a file needs no GPU: it does not wait for one."""


class NewDataset(StrictModel):
    """A dataset from an example that comes with Danlu. Own files come as uploads."""

    example: str = Field(max_length=200)
    """One of the names that `list_examples` gives, such as `danlu/zhangjiajie`."""
    name: DatasetName | None = None
    """What to call it; the example's name when left out."""


class DatasetChange(StrictModel):
    """What to change of a dataset; its versions stay as they are."""

    name: DatasetName
    """What people call it."""


class ExampleView(StrictModel):
    """How to show an example."""

    base_model: str = Field("danlu/tiny", max_length=500)
    """Whose tokenizer and chat template are used: an embedded model or one of the hub."""
    objective: str = Field("sft", max_length=40)
    """What is trained on depends on it."""


@operation("GET", "/examples", right="user")
def list_examples(call: Call) -> list[str]:
    """Names of the example datasets that come with Danlu."""
    return bundled.example_names()


@operation("POST", "/projects/{project_id}/datasets", right="editor", own_transaction=True)
def create_dataset(call: Call, project_id: str, body: NewDataset) -> Dataset:
    """Make a dataset from a bundled example.

    Raises:
        NotFoundError: there is no such example.
        ConflictError: the name is taken.
    """
    path = bundled.dataset_path(body.example) if body.example in bundled.example_names() else None
    if path is None:
        raise NotFoundError(f"there is no example {body.example!r}", why="it does not come with Danlu", fix=f"one of: {', '.join(bundled.example_names())}")
    with call.platform.database.reading() as connection:
        check_quota(connection, call.platform, project_id, path.stat().st_size)
    stored = call.platform.artifacts.put_file(path)
    cached_file(call.platform, stored.digest, path.name)
    with call.platform.database.writing() as connection:
        name = body.name or path.stem
        version = add_version(connection, call.platform, project_id, stored, file_name=path.name, name=name, created_by=call.actor.user_id)
        made = DATASETS.get(connection, version.dataset_id)
        call.settle(connection, made)
        return made


@operation("GET", "/projects/{project_id}/datasets", right="viewer")
def list_datasets(call: Call, project_id: str, limit: int = 50, after: str | None = None) -> Page[ListedDataset]:
    """Datasets of a project, newest first, each with its newest version and how many rows that has."""
    found = DATASETS.page(call.connection, limit=limit, after=after, project_id=project_id)
    return Page(datasets.with_newest(call.connection, found.items), found.next)


@operation("GET", "/datasets/{dataset_id}", right="viewer")
def get_dataset(call: Call, dataset_id: str) -> Dataset:
    """Return one dataset."""
    return DATASETS.get(call.connection, dataset_id)


@operation("PATCH", "/datasets/{dataset_id}", right="editor")
def change_dataset(call: Call, dataset_id: str, body: DatasetChange, version: int | None = None) -> Dataset:
    """Rename a dataset.

    Raises:
        ConflictError: the name is taken, or it was changed since `version` was read.
    """
    return DATASETS.update(call.connection, dataset_id, version=version, name=body.name)


@operation("DELETE", "/datasets/{dataset_id}", right="editor")
def delete_dataset(call: Call, dataset_id: str) -> None:
    """Delete a dataset with its versions; refused while a run refers to one of them.

    Raises:
        ConflictError: a run was trained on it.
    """
    used = datasets.runs_that_use(call.connection, dataset_id)
    if used:
        named = ", ".join(used[:3]) + (" and others" if len(used) > 3 else "")
        raise ConflictError(f"{dataset_id} is still used", why=f"trained on it: {named}", fix="delete these runs first: their proof rests on this data")
    DATASETS.delete(call.connection, dataset_id)


@operation("GET", "/datasets/{dataset_id}/versions", right="viewer")
def list_dataset_versions(call: Call, dataset_id: str, limit: int = 50, after: str | None = None) -> Page[DatasetVersion]:
    """Versions of a dataset, newest first."""
    return DATASET_VERSIONS.page(call.connection, limit=limit, after=after, dataset_id=dataset_id)


@operation("GET", "/dataset-versions/{dataset_version_id}", right="viewer")
def get_dataset_version(call: Call, dataset_version_id: str) -> DatasetVersion:
    """Return one version with the data doctor's report, once it was looked over."""
    return DATASET_VERSIONS.get(call.connection, dataset_version_id)


@operation("POST", "/dataset-versions/{dataset_version_id}/inspect", right="editor", own_transaction=True)
def inspect_dataset(call: Call, dataset_version_id: str) -> Job:
    """Look a version over again; its report is replaced when the job ends."""
    with call.platform.database.reading() as connection:
        version = DATASET_VERSIONS.get(connection, dataset_version_id)
    cached(call.platform, version)
    with call.platform.database.writing() as connection:
        job = submit_inspection(connection, call.platform, version, created_by=call.actor.user_id)
        call.settle(connection, job)
        return job


@operation("POST", "/dataset-versions/{dataset_version_id}/rows/{number}/show", right="editor", own_transaction=True)
def show_example(call: Call, dataset_version_id: str, number: int, body: ExampleView) -> Job:
    """Show one row as a model would read it: the job's result holds its tokens and which of them are trained on.

    Raises:
        UnknownNameError: there is no such base model.
    """
    with call.platform.database.reading() as connection:
        version = DATASET_VERSIONS.get(connection, dataset_version_id)
    path = cached(call.platform, version)
    base_model = base_model_path(call.platform, body.base_model) or body.base_model
    payload = {
        "type": "show_example",
        "path": str(path),
        "digest": version.digest,
        "number": number,
        "base_model": base_model,
        "objective": body.objective,
    }
    with call.platform.database.writing() as connection:
        job = _submit(connection, call.platform, version, "show_example", payload, created_by=call.actor.user_id)
        call.settle(connection, job)
        return job


def add_version(
    connection: Connection,
    platform: Platform,
    project_id: str,
    stored: Stored,
    *,
    file_name: str,
    dataset_id: str | None = None,
    name: str = "",
    parent_id: str | None = None,
    created_by: str | None = None,
) -> DatasetVersion:
    """Make a version of a dataset (a new one without `dataset_id`) from stored content, and have it looked over.

    Raises:
        ConflictError: the name of the new dataset is taken.
    """
    if dataset_id is None:
        dataset_id = DATASETS.insert(connection, project_id=project_id, name=name, created_by=created_by).id
    newest = datasets.newest_version(connection, dataset_id)
    if newest is not None and newest.number >= MAX_VERSIONS:
        raise ConflictError(f"{dataset_id} has {newest.number} versions", why="that is as many as there can be", fix="begin a new dataset with the newest one")
    made = DATASET_VERSIONS.insert(
        connection,
        project_id=project_id,
        dataset_id=dataset_id,
        number=1 if newest is None else newest.number + 1,
        file_name=file_name,
        digest=stored.digest,
        size_bytes=stored.size_bytes,
        parent_id=parent_id,
        created_by=created_by,
    )
    submit_inspection(connection, platform, made, created_by=created_by)
    return made


def submit_inspection(connection: Connection, platform: Platform, version: DatasetVersion, *, created_by: str | None) -> Job:
    """Have a version looked over by a job; its file is in the cache already."""
    path = platform.home / "cache" / version.digest / version.file_name
    payload = {"type": "inspect", "path": str(path), "digest": version.digest, "dataset_version_id": version.id}
    return _submit(connection, platform, version, "inspect", payload, created_by=created_by)


def _submit(connection: Connection, platform: Platform, version: DatasetVersion, kind: str, payload: dict[str, Any], *, created_by: str | None) -> Job:
    """Queue a short job in this home, where the cached file is."""
    quotas.check_jobs(platform, connection, version.project_id)
    return jobs.submit(
        connection,
        project_id=version.project_id,
        kind=kind,
        payload=payload,
        priority="express",
        num_slots=SHORT_JOB_SLOTS,
        home=workers.home_id(platform.database, platform.home),
        created_by=created_by,
    )
