"""Writing files so that a crash at any instant leaves either the old or the new content, never half of one."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import orjson

from danlu.errors import StorageError


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError met while writing `path` into a StorageError that says what to do."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        fixes = {
            errno.ENOSPC: "free some disk space, then start the same command again: it continues where it was",
            errno.EROFS: "choose a writable folder with --run-dir or DANLU_HOME",
            errno.EACCES: "choose a writable folder with --run-dir or DANLU_HOME, or change its permissions",
        }
        raise StorageError(
            f"cannot write {path}",
            why=error.strerror or repr(error),
            fix=fixes.get(error.errno or 0, "check the disk, then start the same command again"),
        ) from error


def fsync_dir(path: Path) -> None:
    """Make renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_open(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`; rename it to `path` when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            fsync_dir(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the content of `path` atomically."""
    with atomic_open(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Replace the content of `path` atomically (UTF-8)."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """Replace `path` with `value` as indented JSON, atomically. NaN becomes null."""
    write_bytes(path, orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n")


def read_json(path: Path) -> Any:
    """Return the JSON value stored in `path`."""
    return orjson.loads(path.read_bytes())


def read_jsonl(path: Path) -> Iterator[Any]:
    """Yield the JSON values of `path`, one a line; a last line that was cut by a crash is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield orjson.loads(line)
