"""Use cases on exports: make one, see what was verified, fetch its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import Field

from danlu.errors import ConflictError
from danlu.recipe.base import EXPORTERS, StrictModel
from danlu.services.platform import quotas
from danlu.services.platform.access import Actor
from danlu.services.platform.downloads import download_export_file
from danlu.services.platform.inputs import check_is_here
from danlu.services.platform.jobs import Priority
from danlu.services.platform.operations import Call, operation
from danlu.services.platform.platform import Platform
from danlu.store import jobs, removals, workers
from danlu.store.jobs import JOBS, Job
from danlu.store.rows import Page
from danlu.store.runs import EXPORTS, RUNS, Export, home_of


class NewExport(StrictModel):
    """An export to make."""

    type: str = Field(max_length=80)
    """The form: `adapter`, `merged`, ..."""
    priority: Priority = "express"
    """Its class in the queue."""


@dataclass(frozen=True)
class ExportFile:
    """One file of an export."""

    name: str
    size_bytes: int
    digest: str
    """SHA-256, hexadecimal."""


@dataclass(frozen=True)
class ExportContent:
    """An export with its files."""

    export: Export
    files: list[ExportFile]


@operation("POST", "/runs/{run_id}/exports", right="editor")
def submit_export(call: Call, run_id: str, body: NewExport) -> Job:
    """Export a finished run; the job that does it is returned, and the export appears when it was verified.

    Raises:
        UnknownNameError: there is no such form.
        ConflictError: the run has not finished or lies elsewhere, or the same export is under way.
    """
    exporter = EXPORTERS.parse({"type": body.type})
    run = RUNS.get(call.connection, run_id)
    if run.state != "succeeded":
        raise ConflictError(f"run {run_id} has not finished", why=f"it is {run.state}", fix="wait for it, or resume it")
    check_is_here(call.platform, call.connection, run)
    for job in JOBS.all(call.connection, run_id=run_id, kind="export"):
        if not job.is_over and job.payload["to"] == exporter.type:
            raise ConflictError(f"this export of run {run_id} is under way", why=f"job {job.id} is {job.state}", fix="wait for it")
    quotas.check_jobs(call.platform, call.connection, run.project_id)
    payload = {"type": "export", "run_dir": str(call.platform.run_folder(run_id)), "to": exporter.type}
    values: dict[str, Any] = {"project_id": run.project_id, "run_id": run_id, "priority": body.priority, "created_by": call.actor.user_id}
    home = workers.home_id(call.platform.database, call.platform.home)  # the run's files are here
    return jobs.submit(call.connection, kind="export", payload=payload, home=home, **values)


@operation("GET", "/projects/{project_id}/exports", right="viewer")
def list_exports(call: Call, project_id: str, run_id: str | None = None, limit: int = 50, after: str | None = None) -> Page[Export]:
    """Exports of a project, or of one run, newest first."""
    return EXPORTS.page(call.connection, limit=limit, after=after, project_id=project_id, **({} if run_id is None else {"run_id": run_id}))


@operation("GET", "/exports/{export_id}", right="viewer")
def get_export(call: Call, export_id: str) -> ExportContent:
    """Return one export with the names, sizes and checksums of its files."""
    export = EXPORTS.get(call.connection, export_id)
    return ExportContent(export, _files(call.platform, export))


@operation("DELETE", "/exports/{export_id}", right="editor")
def delete_export(call: Call, export_id: str) -> None:
    """Delete an export with its files; it can be made again from the run."""
    export = EXPORTS.get(call.connection, export_id)
    folder = f"runs/{export.run_id}/exports/{export.type}"
    EXPORTS.delete(call.connection, export_id)
    removals.add(call.connection, {folder: home_of(call.connection, export.run_id)})


def read_file(platform: Platform, actor: Actor, export_id: str, name: str) -> tuple[ExportFile, Iterator[bytes]]:
    """A file of an export and its bytes (verified on the way), for pages that send files.

    Raises:
        NotFoundError: it has no such file, or the actor may not see it.
        StorageError: the artifact is missing or damaged.
    """
    download = download_export_file(platform, actor, export_id, name)
    found = ExportFile(name, download.size_bytes, download.tag)
    return found, download.read(0, found.size_bytes)


def _files(platform: Platform, export: Export) -> list[ExportFile]:
    found = orjson.loads(b"".join(platform.artifacts.read(export.digest)))["files"]
    return [ExportFile(file["name"], file["size_bytes"], file["digest"]) for file in found]
