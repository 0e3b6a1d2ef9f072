"""Files to and from a studio: in pieces with checksums, going on where they were cut."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from danlu.errors import ConflictError, ServerError, StorageError
from danlu.files import fsync_dir, storage_errors
from danlu.services.platform import uploads
from danlu.services.platform.downloads import Download
from danlu.services.platform.uploads import NewUpload
from danlu.store.datasets import DatasetVersion
from danlu.store.uploads import Upload

if TYPE_CHECKING:
    from danlu.client.transport import Transport

CHUNK_BYTES = 8 * 1024**2
ATTEMPTS = 5
"""Attempts in a row without a byte, after which a transfer is given up. It can be started again."""


def upload(transport: Transport, project_id: str, path: Path, *, name: str | None = None, dataset_id: str | None = None) -> DatasetVersion:
    """Send a file and make it a dataset version. An upload of the same file that was cut is gone on with.

    Raises:
        StorageError: the file cannot be read, or has changed meanwhile.
        UploadError, NoRoomError: the studio does not take it.
    """
    with storage_errors(path), path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = os.fstat(file.fileno()).st_size
        wanted = NewUpload(file_name=path.name, size_bytes=size, sha256=sha256, dataset=dataset_id, name=None if dataset_id else name)
        current = _unfinished(transport, project_id, wanted) or transport.call(uploads.begin_upload, project_id, wanted)
        while current.received_bytes < size:
            file.seek(current.received_bytes)
            chunk = file.read(CHUNK_BYTES)
            if not chunk:
                raise StorageError(f"{path} has become shorter", why="it was changed while it was sent", fix="send it again when it is whole")
            current = _send(transport, current, chunk)
    return transport.call(uploads.finish_upload, current.id)


def save(download: Download, target: Path) -> Path:
    """Write a download to a file that is whole or not there at all; what a cut left behind is gone on with.

    Raises:
        StorageError: it cannot be written.
        ServerError: the server was not reached again.
    """
    partial = target.with_name(f".{target.name}.{hashlib.sha256(download.tag.encode()).hexdigest()[:12]}.part")
    failures = 0
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        file = partial.open("ab")
    with file:
        while (start := file.tell()) < download.size_bytes:
            try:
                for part in download.read(start, download.size_bytes - start):
                    with storage_errors(target):  # not around the reading: a lost connection is an OSError too
                        file.write(part)
            except ServerError:
                failures = failures + 1 if file.tell() == start else 1
                if failures >= ATTEMPTS:
                    raise
        with storage_errors(target):
            file.flush()
            os.fsync(file.fileno())
    with storage_errors(target):
        os.replace(partial, target)
        fsync_dir(target.parent)
    return target


def _unfinished(transport: Transport, project_id: str, wanted: NewUpload) -> Upload | None:
    """The newest upload of this very file that was not finished."""
    same = (wanted.file_name, wanted.size_bytes, wanted.sha256, wanted.dataset)
    for one in transport.call(uploads.list_uploads, project_id, limit=200).items:
        if one.state == "open" and (one.file_name, one.size_bytes, one.sha256, one.dataset_id) == same and wanted.name in (None, one.name):
            return one
    return None


def _send(transport: Transport, current: Upload, chunk: bytes) -> Upload:
    """Send one chunk; when its acknowledgement was lost, ask where the upload stands."""
    sha256 = hashlib.sha256(chunk).hexdigest()
    try:
        return transport.append(current.id, current.received_bytes, chunk, sha256)
    except ConflictError:
        found = transport.call(uploads.get_upload, current.id)
        if found.state != "open" or found.received_bytes == current.received_bytes:
            raise
        return found
