"""Writing files so that a crash at any instant leaves either the old or the new content, never half of one."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    except _write_errors() as error:
        number = error.errno if isinstance(error, OSError) else _os_error_number(str(error))
        fixes = {
            errno.ENOSPC: "free some disk space, then start the same command again: it continues where it was",
            errno.EROFS: "choose a writable folder with --run-dir or DANLU_HOME",
            errno.EACCES: "choose a writable folder with --run-dir or DANLU_HOME, or change its permissions",
        }
        raise StorageError(
            f"cannot write {path}",
            why=os.strerror(number) if number else str(error) or repr(error),
            fix=fixes.get(number or 0, "check the disk, then start the same command again"),
        ) from error


def _write_errors() -> tuple[type[Exception], ...]:
    """OSError, and what safetensors raises in its place where it is loaded."""
    safetensors = sys.modules.get("safetensors")
    return (OSError,) if safetensors is None else (OSError, safetensors.SafetensorError)


def _os_error_number(message: str) -> int | None:
    found = re.search(r"os error (\d+)", message)
    return int(found[1]) if found else None


def fsync_dir(path: Path) -> None:
    """Make renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def keep_private(path: Path) -> None:
    """Make an empty file that only its owner may read; from one that is there, take the rights of everybody away (a group keeps its own)."""
    with storage_errors(path):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            mode = path.stat().st_mode & 0o7777
            if mode & 0o007:
                with suppress(PermissionError):  # it is another user's
                    path.chmod(mode & ~0o007)


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


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes have left below `folder`; those of living ones stay."""
    with storage_errors(folder):
        for path in folder.rglob(".*.tmp"):
            found = re.search(r"\.(\d+)\.tmp$", path.name)
            if found and path.is_file() and not _is_alive(int(found[1])):
                path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OverflowError, PermissionError):
        return True
    return True


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
    """Return the JSON value stored in `path`.

    Raises:
        StorageError: it is not whole.
    """
    try:
        return orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> StorageError:
    return StorageError(f"{path} is damaged", why=f"it is not valid JSON: {why}", fix="restore it from a copy, or start a new run")


def read_jsonl(path: Path) -> Iterator[Any]:
    """Yield the JSON values of `path`, one a line; a last line that was cut by a crash is left out.

    Raises:
        StorageError: another line is not whole.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise _damaged(path, f"line {number}: {error}") from error
            yield value


def append(descriptor: int, content: bytes) -> None:
    """Append all of `content` to an open file, or nothing of it when it does not fit."""
    size = os.fstat(descriptor).st_size
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        os.ftruncate(descriptor, size)
        raise
