"""Use cases on what is kept: how much it takes, what may go, whether it is whole; and files of datasets for the jobs that read them."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danlu.errors import NoRoomError
from danlu.files import storage_errors
from danlu.services.platform.operations import Call, operation
from danlu.services.platform.platform import Platform
from danlu.store import artifacts, queue, schema, uploads
from danlu.store.datasets import DatasetVersion
from danlu.store.engine import Connection

GRACE_SECONDS = 24 * 3600.0
"""What was put is not collected before that, even if nothing refers to it: its run may still be working on it."""
CACHE_SECONDS = 7 * 24 * 3600.0
"""A cached file that no job needs, and none has asked for since, is removed; it can be fetched again."""
MAX_PROBLEMS = 1000
CHECK_EVERY_BYTES = 32 * 1024 * 1024
"""How often it is looked whether there is room for what grows."""


@dataclass(frozen=True)
class Usage:
    """What a project takes, in bytes."""

    used_bytes: int
    """Data, models and exports; what is used twice counts once."""
    reserved_bytes: int
    """Uploads that are under way."""
    quota_bytes: int | None
    free_bytes: int
    """Left on the disk."""


@dataclass(frozen=True)
class Collected:
    """What a collection removed."""

    artifacts: int
    bytes: int
    uploads: int
    cached_files: int


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be."""

    subject: str
    """`database`, or a digest."""
    what: str
    is_referred_to: bool
    """Whether a dataset, a model or an export needs it."""


@dataclass(frozen=True)
class Health:
    """What a check found."""

    artifacts: int
    bytes: int
    problems: list[Problem]


@operation("GET", "/projects/{project_id}/storage", right="viewer")
def get_usage(call: Call, project_id: str) -> Usage:
    """How much room a project takes, and how much is left."""
    platform = call.platform
    used, reserved = artifacts.used_bytes(call.connection, project_id), uploads.reserved_bytes(call.connection, project_id)
    return Usage(used, reserved, platform.settings.project_quota_bytes, shutil.disk_usage(platform.home).free)


@operation("POST", "/storage/collect", right="operator", status=200, own_transaction=True)
def collect_garbage(call: Call) -> Collected:
    """Remove content that nothing refers to, uploads whose time is over, and cached files that no job has asked for lately."""
    return collect(call.platform)


@operation("POST", "/storage/check", right="operator", status=200, own_transaction=True)
def check_storage(call: Call) -> Health:
    """Read the database and every artifact from end to end, and tell what is missing or damaged."""
    return check(call.platform)


def check_quota(connection: Connection, platform: Platform, project_id: str, num_bytes: int) -> None:
    """Refuse what would not fit into the project's share or on the disk.

    Raises:
        NoRoomError: it would not.
    """
    check_share(connection, platform, project_id, num_bytes)
    platform.artifacts.check_room(num_bytes)


def check_share(connection: Connection, platform: Platform, project_id: str, num_bytes: int) -> None:
    """Refuse what would not fit into the project's share.

    Raises:
        NoRoomError: it would not.
    """
    quota = platform.settings.project_quota_bytes
    if quota is not None:
        taken = artifacts.used_bytes(connection, project_id) + uploads.reserved_bytes(connection, project_id)
        if taken + num_bytes > quota:
            raise NoRoomError(
                f"{num_bytes / 1e6:,.1f} MB would be more than the project's share",
                why=f"it has {taken / 1e6:,.1f} MB of {quota / 1e6:,.1f} MB, uploads under way included",
                fix="delete datasets, models or exports of the project, or ask the administrator to raise DANLU_PROJECT_QUOTA_BYTES",
            )


@contextmanager
def scratch_folder(platform: Platform) -> Iterator[Path]:
    """An empty folder of the home for what is made on the way; it goes with the block."""
    folder = platform.home / "scratch"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        yield Path(made)


def write_lines(platform: Platform, project_id: str, path: Path, lines: Iterable[bytes]) -> None:
    """Write content that is made on the way, whose size nobody knows before: it ends where the project's share or the disk does.

    Raises:
        NoRoomError: there is no more room.
        StorageError: it cannot be written.
    """
    total = unchecked = 0
    with storage_errors(path), path.open("wb", buffering=1 << 20) as file:
        for line in lines:
            file.write(line)
            unchecked += len(line)
            if unchecked >= CHECK_EVERY_BYTES:
                total, unchecked = total + unchecked, 0
                _check_growth(platform, project_id, total)
        _check_growth(platform, project_id, total + unchecked)


def _check_growth(platform: Platform, project_id: str, num_bytes: int) -> None:
    with platform.database.reading() as connection:
        check_share(connection, platform, project_id, num_bytes)
    platform.artifacts.check_room(0)  # what was written is taken off already


def collect(platform: Platform, *, grace_seconds: float = GRACE_SECONDS, now: float | None = None) -> Collected:
    """Collect everything that may go. Safe beside anything that puts the same content at the same time."""
    from danlu.services.platform.uploads import remove_expired

    now = time.time() if now is None else now
    removed_uploads = remove_expired(platform, now=now)
    count = num_bytes = 0
    # Removing a folder frees its files for the next round.
    while found := list(_collect_unreferenced(platform, now - grace_seconds)):
        count, num_bytes = count + len(found), num_bytes + sum(found)
    orphans = list(_collect_orphans(platform, now - grace_seconds))
    platform.artifacts.sweep_staging()
    return Collected(count + len(orphans), num_bytes + sum(orphans), removed_uploads, _sweep_cache(platform, now - CACHE_SECONDS))


def _collect_unreferenced(platform: Platform, put_before: float) -> Iterator[int]:
    with platform.database.reading() as connection:
        found = artifacts.unreferenced(connection, put_before=put_before)
    for artifact in found:
        with platform.database.writing() as connection:
            if artifacts.forget(connection, artifact.digest, put_before=put_before):
                platform.artifacts.delete(artifact.digest)
                yield artifact.size_bytes


def _collect_orphans(platform: Platform, put_before: float) -> Iterator[int]:
    old = [digest for digest, taken in platform.artifacts.digests() if taken < put_before]
    if not old:
        return
    with platform.database.reading() as connection:
        known = {artifact.digest for artifact in artifacts.all_artifacts(connection)}
    for digest in old:
        if digest in known:
            continue
        with platform.database.writing() as connection:
            if artifacts.claim_orphan(connection, digest):
                size = platform.artifacts.size(digest)
                platform.artifacts.delete(digest)
                yield size


def check(platform: Platform) -> Health:
    """Compare everything that is kept with its checksums."""
    problems = [Problem("database", what, True) for what in schema.problems(platform.database)]
    count = num_bytes = 0
    with platform.database.reading() as connection:
        for artifact in artifacts.all_artifacts(connection):
            count, num_bytes = count + 1, num_bytes + artifact.size_bytes
            what = platform.artifacts.verify(artifact.digest)
            if what is not None and len(problems) < MAX_PROBLEMS:
                is_needed = artifacts.is_referred_to(connection, artifact.digest)
                if is_needed or platform.artifacts.exists(artifact.digest):  # a put that was killed leaves a row; nobody misses it
                    problems.append(Problem(artifact.digest, what, is_needed))
    return Health(count, num_bytes, problems)


def cached(platform: Platform, version: DatasetVersion) -> Path:
    """The file of a dataset version on this machine, under its own name, for jobs to read.

    Raises:
        ArtifactMissingError, ArtifactDamagedError: its content is not there, or not whole.
    """
    return cached_file(platform, version.digest, version.file_name)


def cached_file(platform: Platform, digest: str, file_name: str) -> Path:
    """A file of the cache, fetched and verified when it is not there yet. Readers never see half of it."""
    folder = platform.home / "cache" / digest
    target = folder / file_name
    with storage_errors(folder):
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True)
            platform.artifacts.check_room(platform.artifacts.size(digest))
            platform.artifacts.fetch(digest, target)
            target.chmod(0o444)
        os.utime(folder)
    return target


def keep_cached(platform: Platform, digest: str, file_name: str, path: Path) -> None:
    """Put a file whose content has just been stored into the cache, without reading it again where that is possible."""
    folder = platform.home / "cache" / digest
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        with suppress(OSError):  # another file system: it is fetched below
            os.link(path, folder / file_name)
    cached_file(platform, digest, file_name)


def _sweep_cache(platform: Platform, used_before: float) -> int:
    count = 0
    with platform.database.reading() as connection:
        needed = {digest for job in queue.unfinished(connection) for digest in needed_files(job.payload).values()}
    for folder in (platform.home / "cache").glob("*"):
        try:
            if folder.name not in needed and folder.stat().st_mtime < used_before:
                shutil.rmtree(folder, ignore_errors=True)
                count += 1
        except FileNotFoundError:
            continue
    return count


def needed_files(payload: dict[str, Any]) -> dict[str, str]:
    """Digest by path of the cached files that a job reads."""
    found = dict(payload.get("artifacts") or {})
    if payload.get("path") and payload.get("digest"):
        found[payload["path"]] = payload["digest"]
    return found
