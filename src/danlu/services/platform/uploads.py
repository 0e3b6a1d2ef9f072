"""Use cases on uploads: files of up to 20 GB that arrive in pieces, over connections that break.

    begin_upload -> id;  append(..., offset, chunk, sha256) -> the upload, with the next offset;  finish_upload -> a dataset version

A chunk is forced to disk before it is acknowledged, so what was acknowledged survives `kill -9`; a cut upload goes on at
`received_bytes`. Memory is bounded by one chunk.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import Field

from danlu.artifacts import Stored
from danlu.errors import ConflictError, NotFoundError, UploadError
from danlu.files import fsync_dir, storage_errors
from danlu.recipe.base import StrictModel
from danlu.services.platform import access, quotas
from danlu.services.platform.access import Actor
from danlu.services.platform.datasets import add_version
from danlu.services.platform.file_names import DatasetName, safe_file_name
from danlu.services.platform.operations import Call, operation
from danlu.services.platform.platform import Platform
from danlu.services.platform.storage import check_quota, keep_cached
from danlu.store import uploads
from danlu.store.datasets import DATASET_VERSIONS, DATASETS, DatasetVersion
from danlu.store.engine import Connection
from danlu.store.rows import Page
from danlu.store.uploads import UPLOADS, Upload

MAX_UPLOAD_BYTES = 20 * 1024**3
MAX_CHUNK_BYTES = 32 * 1024**2
"""More at once is refused; doors should read no more than that of a request's body."""
KEPT_SECONDS = 7 * 24 * 3600.0
"""An upload that nobody has gone on with is removed after that."""


class NewUpload(StrictModel):
    """A file to upload."""

    file_name: str = Field(min_length=1, max_length=10_000)
    """What it is called where it comes from; folders are left out."""
    size_bytes: int = Field(ge=1, le=MAX_UPLOAD_BYTES)
    """Its size; no more will be taken."""
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """Checksum of the whole file, when it is known."""
    dataset: str | None = Field(None, max_length=80)
    """Id of the dataset it becomes a new version of; a new dataset when left out."""
    name: DatasetName | None = None
    """Name of the new dataset; the file's when left out, with a number when that is taken."""


@operation("POST", "/projects/{project_id}/uploads", right="editor", own_transaction=True)
def begin_upload(call: Call, project_id: str, body: NewUpload) -> Upload:
    """Announce a file; what comes next is its first chunk.

    Raises:
        NoRoomError: it would not fit.
        NotFoundError: there is no such dataset in this project.
        ConflictError: the name is taken.
        QuotaError: too many uploads of the project are under way.
    """
    file_name = safe_file_name(body.file_name)
    with call.platform.database.writing() as connection:
        if body.dataset is not None and DATASETS.find(connection, id=body.dataset, project_id=project_id) is None:
            raise NotFoundError(
                "there is no such dataset in this project", why="the id is mistyped, or it belongs elsewhere", fix="list the datasets of this project"
            )
        quotas.check_uploads(connection, project_id)
        check_quota(connection, call.platform, project_id, body.size_bytes)
        made = UPLOADS.insert(
            connection,
            project_id=project_id,
            dataset_id=body.dataset,
            name=_name_for(connection, project_id, body, file_name),
            file_name=file_name,
            size_bytes=body.size_bytes,
            sha256=body.sha256,
            received_bytes=0,
            state="open",
            expires_at=time.time() + KEPT_SECONDS,
            created_by=call.actor.user_id,
        )
        folder = _folder(call.platform, made.id)
        with storage_errors(folder):
            folder.mkdir(parents=True)
            (folder / "data").touch()
            fsync_dir(folder)
            fsync_dir(folder.parent)
        call.settle(connection, made)
    return made


@operation("GET", "/projects/{project_id}/uploads", right="viewer")
def list_uploads(call: Call, project_id: str, limit: int = 50, after: str | None = None) -> Page[Upload]:
    """Uploads of a project, newest first; finished ones for a week."""
    return UPLOADS.page(call.connection, limit=limit, after=after, project_id=project_id)


@operation("GET", "/uploads/{upload_id}", right="viewer")
def get_upload(call: Call, upload_id: str) -> Upload:
    """How far an upload has come: go on at `received_bytes`."""
    return UPLOADS.get(call.connection, upload_id)


def append(platform: Platform, actor: Actor, upload_id: str, *, offset: int, chunk: bytes, sha256: str) -> Upload:
    """Add a chunk at `offset`, which is where the upload stands; it is on disk when this returns.

    A chunk that was acknowledged, but whose acknowledgement was lost, may be sent again: the upload then says where it stands.

    Raises:
        SignInError, ForbiddenError, NotFoundError: the actor may not.
        ConflictError: the upload stands elsewhere (another writer, or a lost answer), or is finished.
        UploadError: the chunk does not match its checksum, is empty, too large, or longer than what was announced.
        StorageError: the disk is full; nothing of the chunk counts.
    """
    with platform.database.reading() as connection:
        access.check(connection, actor, "editor", {"upload_id": upload_id})
    if not 1 <= len(chunk) <= MAX_CHUNK_BYTES:
        raise UploadError(f"a chunk of {len(chunk):,} bytes", why=f"a chunk has between 1 and {MAX_CHUNK_BYTES:,} bytes", fix="send the file in smaller pieces")
    if hashlib.sha256(chunk).hexdigest() != sha256.lower():
        raise UploadError(f"the chunk at {offset} is damaged", why="it does not match the SHA-256 that was sent with it", fix="send it again")
    with _held(platform, upload_id) as data:
        with platform.database.reading() as connection:
            upload = UPLOADS.get(connection, upload_id)
        _check_fits(upload, offset, len(chunk))
        platform.artifacts.check_room(len(chunk))
        with storage_errors(data), data.open("r+b") as file:
            file.seek(offset)
            file.write(chunk)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        with platform.database.writing() as connection:
            return UPLOADS.update(connection, upload_id, received_bytes=offset + len(chunk), expires_at=time.time() + KEPT_SECONDS)


def has_received(platform: Platform, actor: Actor, upload_id: str, *, length: int, piece_bytes: int, sha256: Sequence[str]) -> bool:
    """Whether the first `length` bytes of an upload have these checksums, piece by piece: only then may another file of its name go on with it.

    Raises:
        SignInError, ForbiddenError, NotFoundError: the actor may not.
        UploadError: there cannot be so many pieces of that size.
    """
    with platform.database.reading() as connection:
        access.check(connection, actor, "editor", {"upload_id": upload_id})
        upload = UPLOADS.get(connection, upload_id)
    if length < 1 or not 1 <= piece_bytes <= MAX_CHUNK_BYTES or len(sha256) != -(-length // piece_bytes):
        raise UploadError(
            f"{len(sha256)} checksums for {length:,} bytes in pieces of {piece_bytes:,}",
            why="each piece has one",
            fix=f"take pieces of {MAX_CHUNK_BYTES:,} bytes",
        )
    if upload.state != "open" or length > upload.received_bytes:
        return False
    with storage_errors(_folder(platform, upload_id)), (_folder(platform, upload_id) / "data").open("rb") as file:
        left = length
        for wanted in sha256:
            piece = file.read(min(piece_bytes, left))
            left -= len(piece)
            if hashlib.sha256(piece).hexdigest() != wanted:
                return False
    return True


@operation("POST", "/uploads/{upload_id}/finish", right="editor", own_transaction=True)
def finish_upload(call: Call, upload_id: str) -> DatasetVersion:
    """Verify the whole file and make it a dataset version; asked again, the same one is returned.

    Raises:
        ConflictError: it is not whole yet, or the name of the dataset is taken.
        UploadError: it is not the file that was announced.
    """
    platform = call.platform
    with _held(platform, upload_id) as data:
        with platform.database.reading() as connection:
            upload = UPLOADS.get(connection, upload_id)
            if upload.dataset_version_id is not None:
                return DATASET_VERSIONS.get(connection, upload.dataset_version_id)
        if upload.state != "open" or upload.received_bytes < upload.size_bytes:
            raise ConflictError(
                f"{upload_id} cannot be finished",
                why=f"{upload.received_bytes:,} of {upload.size_bytes:,} bytes have arrived"
                if upload.state == "open"
                else "it was finished, and its dataset is deleted",
                fix=f"send the rest, from offset {upload.received_bytes}" if upload.state == "open" else "upload the file again",
            )
        stored = platform.artifacts.put_file(data, is_final=True)
        _check_whole(upload, stored)
        keep_cached(platform, stored.digest, upload.file_name, data)  # before the job that looks it over
        with platform.database.writing() as connection:
            version = _make_version(connection, platform, call.actor, upload, stored)
            call.settle(connection, version)
    shutil.rmtree(_folder(platform, upload_id), ignore_errors=True)
    return version


@operation("DELETE", "/uploads/{upload_id}", right="editor")
def abandon_upload(call: Call, upload_id: str) -> None:
    """Give an upload up; what has arrived is deleted."""
    UPLOADS.delete(call.connection, upload_id)
    shutil.rmtree(_folder(call.platform, upload_id), ignore_errors=True)


def remove_expired(platform: Platform, *, now: float) -> int:
    """Remove uploads that nobody has gone on with, and folders that no upload owns; return how many."""
    count = 0
    with platform.database.reading() as connection:
        found = uploads.expired(connection, now)
    for upload in found:
        with platform.database.writing() as connection:
            current = UPLOADS.find(connection, id=upload.id)
            if current is not None and current.expires_at < now:
                UPLOADS.delete(connection, upload.id)
                count += 1
    for folder in (platform.home / "uploads").glob("upl_*"):
        with platform.database.reading() as connection:
            is_owned = UPLOADS.find(connection, id=folder.name) is not None
        with suppress(FileNotFoundError):  # another server collects too
            if not is_owned and now - folder.stat().st_mtime > 3600:  # one that is just being begun has no row yet
                shutil.rmtree(folder, ignore_errors=True)
    return count


def _name_for(connection: Connection, project_id: str, body: NewUpload, file_name: str) -> str:
    """Name of the dataset that the file becomes; told to be taken now, not after gigabytes."""
    if body.name is None and body.dataset is None:
        return _free_name(connection, project_id, file_name)
    wanted = body.name or _stem(file_name)
    if body.dataset is None and DATASETS.find(connection, project_id=project_id, name=wanted) is not None:
        raise ConflictError(
            f"{wanted!r} exists already", why="a dataset of this project has this name", fix="choose another name, or upload a new version of it"
        )
    return wanted


def _stem(file_name: str) -> str:
    return file_name.partition(".")[0].replace("@", "_") or "data"


def _free_name(connection: Connection, project_id: str, file_name: str) -> str:
    """The file's name for a dataset, with a number where that is taken.

    Raises:
        ConflictError: a thousand of them are.
    """
    stem = _stem(file_name)
    for wanted in (stem, *(f"{stem[:190]} {number}" for number in range(2, 1000))):
        if DATASETS.find(connection, project_id=project_id, name=wanted) is None:
            return wanted
    raise ConflictError(f"{stem!r} exists already", why="a thousand datasets of this project have this name", fix="choose another name")


def _make_version(connection: Connection, platform: Platform, actor: Actor, upload: Upload, stored: Stored) -> DatasetVersion:
    name, stem = upload.name, _stem(upload.file_name)
    is_own = name != stem and not re.fullmatch(rf"{re.escape(stem[:190])} \d+", name)
    if upload.dataset_id is None and not is_own and DATASETS.find(connection, project_id=upload.project_id, name=name) is not None:
        name = _free_name(connection, upload.project_id, upload.file_name)  # nobody chose it, and another file has taken it since
    version = add_version(
        connection, platform, upload.project_id, stored, file_name=upload.file_name, dataset_id=upload.dataset_id, name=name, created_by=actor.user_id
    )
    UPLOADS.update(connection, upload.id, state="finished", dataset_version_id=version.id)
    return version


def _check_fits(upload: Upload, offset: int, length: int) -> None:
    if upload.state != "open":
        raise ConflictError(f"{upload.id} is finished", why="its file has become a dataset version", fix="begin a new upload")
    if offset != upload.received_bytes:
        raise ConflictError(
            f"{upload.id} stands at {upload.received_bytes}, not at {offset}",
            why="another writer was here, or an answer was lost",
            fix=f"go on with the chunk at offset {upload.received_bytes}",
        )
    if offset + length > upload.size_bytes:
        raise UploadError(
            f"{upload.id} would become longer than announced",
            why=f"{upload.size_bytes:,} bytes were announced, this chunk ends at {offset + length:,}",
            fix="begin a new upload with the right size",
        )


def _check_whole(upload: Upload, stored: Stored) -> None:
    if stored.size_bytes != upload.size_bytes or upload.sha256 not in (None, stored.digest):
        raise UploadError(
            f"{upload.file_name} is not the file that was announced",
            why=f"its SHA-256 is {stored.digest}, announced was {upload.sha256}",
            fix="abandon the upload and send the file again",
        )


def _folder(platform: Platform, upload_id: str) -> Path:
    return platform.home / "uploads" / upload_id


@contextmanager
def _held(platform: Platform, upload_id: str) -> Iterator[Path]:
    """Be the only one who works on an upload, on this machine; yields its data file."""
    folder = _folder(platform, upload_id)
    try:
        file = (folder / "lock").open("a")
    except FileNotFoundError:
        yield folder / "data"  # finished or abandoned: whoever asks the database learns it
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield folder / "data"
