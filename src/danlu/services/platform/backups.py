"""Backups: the database as it is at one instant, the list of the artifacts it refers to, and these too when asked for.

A backup is a folder. Its `backup.json` is written last and holds the checksum of the database, so half a backup is no backup.
PostgreSQL is copied by its own tools; its artifacts are listed and copied all the same.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

import danlu
from danlu.artifacts import Artifacts
from danlu.errors import ConflictError, DatabaseError, RunBusyError, StorageError
from danlu.files import fsync_dir, keep_private, read_json, storage_errors, write_json
from danlu.services.platform import moving
from danlu.services.platform.platform import Platform
from danlu.settings import Settings
from danlu.store import artifacts, schema
from danlu.store.engine import Database

DATABASE, ARTIFACTS, SEAL, CONTENT = "danlu.sqlite", "artifacts.jsonl", "backup.json", "artifacts"
LOCKS = ("studio.lock", "worker.lock")
"""Whoever works on a home folder holds one of these."""


@dataclass(frozen=True)
class Backup:
    """A backup that is whole."""

    folder: str
    made_at: float
    danlu_version: str
    database_sha256: str | None
    """None: the database is PostgreSQL's and is copied with its own tools."""
    artifacts: int
    bytes: int
    """Of all artifacts."""
    holds_artifacts: bool
    """Whether their content is in the backup, or only its list."""
    home: str | None = None
    """The home folder that it was made of."""


@dataclass(frozen=True)
class Restored:
    """What was put back."""

    set_aside: list[str]
    """Files that were there before; delete them when all is well."""
    artifacts_restored: int
    artifacts_missing: list[str]
    """Digests that the database refers to and that are nowhere; the first 1,000."""
    jobs_without_data: list[str]
    """Jobs that are not over and whose data is among these: they will fail."""


def backup(platform: Platform, folder: Path, *, with_artifacts: bool = False) -> Backup:
    """Write a backup into a new folder, while the platform is in use.

    Raises:
        StorageError: the folder exists, or cannot be written.
        ArtifactDamagedError, ArtifactMissingError: content that should be copied is not whole.
    """
    if folder.exists():
        raise StorageError(f"{folder} exists already", why="a backup is never written over another one", fix="give the name of a new folder")
    staging = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    with storage_errors(folder):
        staging.mkdir(mode=0o700, parents=True)
        try:
            made = _write(platform, staging, folder, with_artifacts=with_artifacts)
            os.rename(staging, folder)
            fsync_dir(folder.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return made


def _write(platform: Platform, staging: Path, folder: Path, *, with_artifacts: bool) -> Backup:
    digest = None
    if platform.database.is_sqlite:
        schema.backup(platform.database, staging / DATABASE)
        digest = _sha256(staging / DATABASE)
    # What is listed was there when the database was copied, or was put since: nothing the copy refers to can be collected so soon.
    count = num_bytes = 0
    kept = Artifacts.open(str(staging / CONTENT), min_free_bytes=platform.settings.min_free_bytes) if with_artifacts else None
    with storage_errors(staging), (staging / ARTIFACTS).open("wb") as listing, platform.database.reading() as connection:
        for artifact in artifacts.all_artifacts(connection):
            if not artifacts.is_referred_to(connection, artifact.digest):
                continue
            listing.write(orjson.dumps({"digest": artifact.digest, "size_bytes": artifact.size_bytes}, option=orjson.OPT_APPEND_NEWLINE))
            count, num_bytes = count + 1, num_bytes + artifact.size_bytes
            if kept is not None:
                kept.check_room(artifact.size_bytes)
                copy = platform.artifacts.fetch(artifact.digest, staging / "copy")
                kept.put_file(copy, is_final=True)
                copy.unlink()
        listing.flush()
        os.fsync(listing.fileno())
    made = Backup(str(folder), time.time(), danlu.__version__, digest, count, num_bytes, with_artifacts, str(platform.home))
    write_json(staging / SEAL, asdict(made))
    return made


def restore(settings: Settings, folder: Path) -> Restored:
    """Put the database of a backup in place of the present one, which is set aside, and put back artifacts that are gone.

    The home may be another one than the backup was made of: what waited there goes on here. Nothing may work on the home folder meanwhile.

    Raises:
        StorageError: the folder is no whole backup.
        RunBusyError: a server or a worker runs.
        DatabaseError: the database of the backup is damaged.
    """
    seal = read_backup(folder)
    with _alone(settings.home):
        set_aside = _put_back(settings, folder, seal)
        database = Database(settings.database_url)
        try:
            schema.upgrade(database, backups=settings.home / "backups")
            platform = Platform(settings, database)
            restored, missing = _put_back_artifacts(platform, folder, holds_artifacts=seal.holds_artifacts)
            moving.move_in(platform, seal.home)
            without_data = moving.fetch_inputs(platform)
        finally:
            database.close()
    return Restored(set_aside, restored, missing, without_data)


def read_backup(folder: Path) -> Backup:
    """What a backup says of itself, after checking that it is whole.

    Raises:
        StorageError: it is not.
    """
    try:
        found: dict[str, Any] = read_json(folder / SEAL)
        seal = Backup(**found | {"folder": str(folder)})
    except (FileNotFoundError, NotADirectoryError, TypeError) as error:
        raise StorageError(f"{folder} is no backup", why=f"it has no whole {SEAL}", fix="give a folder that `danlu backup` has written") from error
    if seal.database_sha256 is not None and ((folder / DATABASE).is_file() and _sha256(folder / DATABASE)) != seal.database_sha256:
        raise StorageError(f"the backup in {folder} is damaged", why=f"{DATABASE} does not match its checksum", fix="take an older backup")
    return seal


def _put_back(settings: Settings, folder: Path, seal: Backup) -> list[str]:
    path = Database(settings.database_url).path
    if path is None or seal.database_sha256 is None:
        if path is None and seal.database_sha256 is None:
            return []  # pg_restore has put it back; what is left are the artifacts
        raise ConflictError("the backup is of another kind of database", why="one is SQLite, the other PostgreSQL", fix="set DANLU_DATABASE_URL as it was then")
    schema.check(folder / DATABASE)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = path.with_name(f".{path.name}.restoring")
        staging.unlink(missing_ok=True)
        keep_private(staging)
        shutil.copyfile(folder / DATABASE, staging)
        with staging.open("rb") as copy:
            os.fsync(copy.fileno())
        if _sha256(staging) != seal.database_sha256:
            raise DatabaseError("the copy of the backup is damaged", why="it does not match its checksum", fix="check the disk")
        suffix = time.strftime("%Y%m%d-%H%M%S")
        set_aside = []
        for name in ("-wal", "-shm", ""):  # the log belongs to the old file: read into the new one it would damage it
            old = path.with_name(path.name + name)
            if old.exists():
                aside = path.with_name(f"{path.name}.before-restore-{suffix}{name}")
                old.rename(aside)
                set_aside.append(str(aside))
        staging.rename(path)
        fsync_dir(path.parent)
    return set_aside


def _put_back_artifacts(platform: Platform, folder: Path, *, holds_artifacts: bool) -> tuple[int, list[str]]:
    """Bring what is missing or damaged back from the backup; everything is read once."""
    kept = Artifacts.open(str(folder / CONTENT)) if holds_artifacts else None
    restored, missing = 0, list[str]()
    with platform.database.reading() as connection:
        needed = [found.digest for found in artifacts.all_artifacts(connection) if artifacts.is_referred_to(connection, found.digest)]
    for digest in needed:
        if platform.artifacts.exists(digest) and platform.artifacts.verify(digest) is None:
            continue
        if kept is not None and kept.exists(digest):
            copy = kept.fetch(digest, platform.home / "scratch" / digest)
            try:
                platform.artifacts.put_file(copy)
                restored += 1
            finally:
                copy.unlink(missing_ok=True)
        elif len(missing) < 1000:
            missing.append(digest)
    return restored, missing


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold the locks of server and worker.

    Raises:
        RunBusyError: one of them runs.
    """
    with ExitStack() as stack:
        for name in LOCKS:
            with storage_errors(home):
                home.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context((home / name).open("a+"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunBusyError(
                    f"a {name.partition('.')[0]} works on {home}", why="it would go on with the old database", fix="stop it first, then restore"
                ) from error
        yield


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
