"""Where artifacts lie: what a place must be able to do, and the local folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from danlu.files import fsync_dir, storage_errors


class Place(Protocol):
    """Keeps named content. Names are relative paths that `Artifacts` makes from digests."""

    is_local: bool

    def size(self, name: str) -> int | None:
        """Bytes of what is kept under the name; None when there is nothing."""

    def take(self, staged: Path, name: str) -> None:
        """Keep a file, all of it or nothing, in place of what was there; `staged` may be gone afterwards."""

    def read(self, name: str, start: int, length: int) -> bytes:
        """Up to `length` bytes.

        Raises:
            FileNotFoundError: there is nothing of that name.
        """

    def remove(self, name: str) -> None:
        """Forget what is kept under the name, if anything is."""

    def names(self) -> Iterator[tuple[str, float]]:
        """Every name, and when its content was taken (seconds since 1970)."""


class LocalFolder:
    """A folder of this machine."""

    is_local = True

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """File of a name."""
        return self.root / name

    def size(self, name: str) -> int | None:
        """Bytes of the file."""
        try:
            return self.path(name).stat().st_size
        except FileNotFoundError:
            return None

    def take(self, staged: Path, name: str) -> None:
        """Rename the file to its place; it is on disk when this returns."""
        target = self.path(name)
        with storage_errors(target):
            for folder in reversed([folder for folder in target.parents if self.root in folder.parents]):
                if not folder.exists():
                    folder.mkdir(parents=True, exist_ok=True)
                    fsync_dir(folder.parent)
            staged.chmod(0o444)
            os.utime(staged)
            os.replace(staged, target)
            fsync_dir(target.parent)

    def read(self, name: str, start: int, length: int) -> bytes:
        """Read a part of the file."""
        with self.path(name).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def remove(self, name: str) -> None:
        """Delete the file."""
        with storage_errors(self.path(name)):
            self.path(name).unlink(missing_ok=True)

    def names(self) -> Iterator[tuple[str, float]]:
        """Every file."""
        for path in sorted((self.root / "sha256").glob("*/*")):
            try:
                yield str(path.relative_to(self.root)), path.stat().st_mtime
            except FileNotFoundError:  # removed while we were looking
                continue
