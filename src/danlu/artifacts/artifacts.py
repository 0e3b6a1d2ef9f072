"""Putting content in and getting it back verified.

Content lies under its SHA-256, and beside it the SHA-256 of each block of 4 MB: so also a part of a file is verified before it is
handed out. Putting writes to a staging folder, forces it to disk and renames it; a process killed at any instant leaves either
nothing or the whole. What is put again replaces what is there, so damage is healed by putting the same content again.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import orjson

from danlu.artifacts.names import is_digest, is_safe_name, plain_files
from danlu.artifacts.place import LocalFolder, Place
from danlu.errors import ArtifactDamagedError, ArtifactMissingError, NoRoomError, StorageError
from danlu.files import fsync_dir, storage_errors

BLOCK_BYTES = 4 * 1024 * 1024
MAGIC = b"DLB1"
BLOCKS = ".blocks"
MAX_MANIFEST_BYTES = 64 * 1024 * 1024
MIN_FREE_BYTES = 512 * 1024 * 1024
STAGING_SECONDS = 24 * 3600.0
"""What a killed process has left in the staging folder is removed after that."""

Announce = Callable[[str, int, Sequence[str]], None]
"""Is told (digest, size in bytes, digests of its parts) before content is put, so that nobody collects it meanwhile."""


@dataclass(frozen=True)
class Stored:
    """What was put: its SHA-256 in hexadecimal, and its size (of a folder: of all its files)."""

    digest: str
    size_bytes: int


class Artifacts:
    """Content by its digest. Any number of processes may put and read at once."""

    def __init__(self, place: Place, staging: Path, *, min_free_bytes: int = 0, announce: Announce = lambda digest, size, parts: None) -> None:
        self.place, self.staging, self.min_free_bytes, self._announce = place, staging, min_free_bytes, announce

    @classmethod
    def open(cls, url: str, *, staging: Path | None = None, min_free_bytes: int = 0, announce: Announce = lambda digest, size, parts: None) -> Artifacts:
        """Open the artifacts in a folder, or at `s3://...`, `gs://...`, `az://...`.

        Raises:
            StorageError: it is no address of these kinds, or cannot be reached.
            MissingExtraError: the part that reads such addresses is not installed.
        """
        if "://" not in url:
            root = Path(url).expanduser()
            return cls(LocalFolder(root), staging or root / "staging", min_free_bytes=min_free_bytes, announce=announce)
        from danlu.artifacts.remote import Bucket

        return cls(Bucket(url), staging or Path.home() / ".danlu" / "staging", min_free_bytes=min_free_bytes, announce=announce)

    def put_file(self, path: Path, *, is_final: bool = False) -> Stored:
        """Keep the content of a file. With `is_final` nobody will write to it again, so it need not be copied; it stays where it is.

        Must not be called inside a database transaction: the announcement is one of its own.

        Raises:
            NoRoomError: the disk would have less room left than is kept free.
            StorageError: it cannot be read or written.
        """
        with storage_errors(path):
            size = path.stat().st_size
        self.check_room(0 if is_final and self.place.is_local else size)
        with self._staged() as staged:
            with storage_errors(path), path.open("rb") as source:
                if is_final and _link(path, staged):
                    digest, size, blocks = _read_through(source, None)
                    os.fsync(source.fileno())
                else:
                    with storage_errors(staged), staged.open("wb") as copy:
                        digest, size, blocks = _read_through(source, copy)
                        copy.flush()
                        os.fsync(copy.fileno())
            self._put(staged, digest, size, blocks, ())
        return Stored(digest, size)

    def put_bytes(self, content: bytes, *, parts: Sequence[str] = ()) -> Stored:
        """Keep some bytes."""
        self.check_room(len(content))
        blocks = [hashlib.sha256(content[start : start + BLOCK_BYTES]).digest() for start in range(0, len(content), BLOCK_BYTES)]
        digest = hashlib.sha256(content).hexdigest()
        with self._staged() as staged:
            _write(staged, content)
            self._put(staged, digest, len(content), blocks, parts)
        return Stored(digest, len(content))

    def put_folder(self, folder: Path, *, is_final: bool = False) -> Stored:
        """Keep a folder: each file (`is_final`: see `put_file`), and a manifest of them, whose digest is the folder's.

        Raises:
            UnsafeModelError: it holds a link, a device, or a name that other systems read differently.
        """
        with storage_errors(folder):
            files = [(name, self.put_file(path, is_final=is_final)) for name, path in plain_files(folder)]
        entries = [{"name": name, "digest": stored.digest, "size_bytes": stored.size_bytes} for name, stored in files]
        manifest = self.put_bytes(orjson.dumps({"danlu_folder": 1, "files": entries}), parts=sorted({stored.digest for _, stored in files}))
        return Stored(manifest.digest, sum(stored.size_bytes for _, stored in files))

    def exists(self, digest: str) -> bool:
        """Whether there is such an artifact."""
        return is_digest(digest) and self.place.size(_name(digest)) is not None

    def size(self, digest: str) -> int:
        """Bytes of an artifact.

        Raises:
            ArtifactMissingError: there is none.
        """
        size = self.place.size(_name(digest)) if is_digest(digest) else None
        if size is None:
            raise _missing(digest)
        return size

    def read(self, digest: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Pieces of at most 4 MB; each is verified before it is handed out.

        Raises:
            ArtifactMissingError: there is no such artifact; told at once.
            ArtifactDamagedError: a piece does not match its checksum; told where it is met.
        """
        size, blocks = self._blocks(digest)
        start = max(0, start)
        end = size if length is None else min(size, start + max(0, length))
        return self._pieces(digest, blocks, start, end)

    def fetch(self, digest: str, target: Path) -> Path:
        """Write an artifact to a file, verified as a whole before the file gets its name.

        Raises:
            ArtifactMissingError: there is no such artifact.
            ArtifactDamagedError: it does not match its digest.
            StorageError: the file cannot be written.
        """
        pieces = self.read(digest)
        whole = hashlib.sha256()
        temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("wb") as file:
                    for piece in pieces:
                        whole.update(piece)
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                if whole.hexdigest() != digest:
                    raise _damaged(digest, "its content has another SHA-256")
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            fsync_dir(target.parent)
        return target

    def fetch_folder(self, digest: str, target: Path) -> Path:
        """Write a folder that `put_folder` kept; `target` appears when all of it is there and verified.

        Raises:
            ArtifactMissingError, ArtifactDamagedError: it, or a file of it, is not there or not whole.
            StorageError: `target` exists, or cannot be written.
        """
        entries = self._manifest(digest)
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            staging = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.tmp")
            try:
                staging.mkdir()
                for name, part in entries:
                    self.fetch(part, staging / name)
                os.rename(staging, target)
                fsync_dir(target.parent)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        return target

    def verify(self, digest: str) -> str | None:
        """Read an artifact from end to end; return what is wrong with it, or None."""
        whole = hashlib.sha256()
        try:
            for piece in self.read(digest):
                whole.update(piece)
        except StorageError as error:
            return error.why
        return None if whole.hexdigest() == digest else "its content has another SHA-256"

    def delete(self, digest: str) -> None:
        """Forget an artifact. Whether something refers to it is the caller's business."""
        if is_digest(digest):
            self.place.remove(_name(digest))
            self.place.remove(_name(digest) + BLOCKS)

    def digests(self) -> Iterator[tuple[str, float]]:
        """Every artifact, and when it was last put (seconds since 1970)."""
        for name, taken in self.place.names():
            digest = name.rpartition("/")[2]
            if is_digest(digest):
                yield digest, taken

    def check_room(self, num_bytes: int) -> None:
        """Refuse to write so many bytes when the disk would have less left than is kept free.

        Raises:
            NoRoomError: it would.
        """
        with storage_errors(self.staging):
            self.staging.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.staging).free
        if free - num_bytes < self.min_free_bytes:
            raise NoRoomError(
                f"{num_bytes / 1e6:,.1f} MB would not leave enough room on the disk",
                why=f"{free / 1e6:,.1f} MB are free at {self.staging}, of which {self.min_free_bytes / 1e6:,.1f} MB are kept free",
                fix="free some disk space, or lower DANLU_MIN_FREE_BYTES",
            )

    def sweep_staging(self, *, older_than_seconds: float = STAGING_SECONDS) -> int:
        """Remove what killed processes have left half written; return how many files."""
        found = [path for path in self.staging.glob("put-*") if time.time() - path.stat().st_mtime > older_than_seconds]
        for path in found:
            path.unlink(missing_ok=True)
        return len(found)

    def _put(self, staged: Path, digest: str, size: int, blocks: list[bytes], parts: Sequence[str]) -> None:
        """First the announcement, then the block sums, then the content: content without its sums never exists."""
        self._announce(digest, size, parts)
        with self._staged() as sums:
            _write(sums, MAGIC + struct.pack("<Q", size) + b"".join(blocks))
            self.place.take(sums, _name(digest) + BLOCKS)
        self.place.take(staged, _name(digest))

    def _blocks(self, digest: str) -> tuple[int, list[bytes]]:
        size = self.size(digest)
        num_blocks = -(-size // BLOCK_BYTES)
        try:
            sums = self.place.read(_name(digest) + BLOCKS, 0, 12 + 32 * num_blocks + 1)
        except FileNotFoundError as error:
            raise _damaged(digest, "its block sums are gone") from error
        if sums[:12] != MAGIC + struct.pack("<Q", size) or len(sums) != 12 + 32 * num_blocks:
            raise _damaged(digest, f"it has {size} bytes, which its block sums do not fit")
        return size, [sums[12 + 32 * number : 44 + 32 * number] for number in range(num_blocks)]

    def _pieces(self, digest: str, blocks: list[bytes], start: int, end: int) -> Iterator[bytes]:
        if start >= end:
            return
        for number in range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES)):
            first = number * BLOCK_BYTES
            try:
                block = self.place.read(_name(digest), first, BLOCK_BYTES)
            except FileNotFoundError as error:
                raise _missing(digest) from error
            if hashlib.sha256(block).digest() != blocks[number]:
                raise _damaged(digest, f"bytes {first} to {first + len(block)} do not match their checksum")
            yield block[max(0, start - first) : end - first]

    def _manifest(self, digest: str) -> list[tuple[str, str]]:
        if self.size(digest) > MAX_MANIFEST_BYTES:
            raise _damaged(digest, "it is too large for the manifest of a folder")
        content = b"".join(self.read(digest))
        if hashlib.sha256(content).hexdigest() != digest:
            raise _damaged(digest, "its content has another SHA-256")
        try:
            found = orjson.loads(content)
            entries = [(str(entry["name"]), str(entry["digest"])) for entry in found["files"]] if found["danlu_folder"] == 1 else None
        except (orjson.JSONDecodeError, KeyError, TypeError):
            entries = None
        if entries is None or not all(is_safe_name(name) and is_digest(part) for name, part in entries):
            raise _damaged(digest, "it is no manifest of a folder")
        return entries

    @contextmanager
    def _staged(self) -> Iterator[Path]:
        """A name for a new file in the staging folder; what is left there afterwards is removed."""
        with storage_errors(self.staging):
            self.staging.mkdir(parents=True, exist_ok=True)
        path = self.staging / f"put-{secrets.token_hex(12)}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _name(digest: str) -> str:
    return f"sha256/{digest[:2]}/{digest}"


def _link(path: Path, staged: Path) -> bool:
    """Give the file a second name; False where the file system cannot."""
    try:
        os.link(path, staged)
    except OSError:
        return False
    return True


def _write(path: Path, content: bytes) -> None:
    with storage_errors(path), path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read_through(source: IO[bytes], copy: IO[bytes] | None) -> tuple[str, int, list[bytes]]:
    """Read a file once; return its SHA-256, its size and the sums of its blocks, and write it on to `copy`."""
    whole, size, blocks = hashlib.sha256(), 0, []
    while block := source.read(BLOCK_BYTES):
        whole.update(block)
        blocks.append(hashlib.sha256(block).digest())
        size += len(block)
        if copy is not None:
            copy.write(block)
    return whole.hexdigest(), size, blocks


def _missing(digest: str) -> ArtifactMissingError:
    return ArtifactMissingError(
        f"the artifact {digest[:12]} is missing",
        why="its file was removed from outside Danlu, or the artifact folder is not the one it was put into",
        fix="put the same file in again, or restore the artifacts from a backup",
    )


def _damaged(digest: str, why: str) -> ArtifactDamagedError:
    return ArtifactDamagedError(
        f"the artifact {digest[:12]} is damaged", why=why, fix="put the same file in again, or restore it from a backup; check the disk"
    )
