"""Names of files in a folder that becomes an artifact: relative, plain, and inside the folder on every system."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from danlu.errors import UnsafeModelError

MAX_NAME_BYTES = 255
RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
DIGEST = re.compile(r"[0-9a-f]{64}")


def is_digest(text: str) -> bool:
    """Whether the text is a SHA-256 as artifacts are named by."""
    return DIGEST.fullmatch(text) is not None


def is_safe_name(name: str) -> bool:
    """Whether a relative path stays inside its folder and means the same file on every system."""
    parts = name.split("/")
    return bool(name) and len(name) <= 4096 and all(_is_safe_part(part) for part in parts)


def _is_safe_part(part: str) -> bool:
    if part in ("", ".", "..") or len(part.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES or part[-1] in ". ":
        return False
    return part.isprintable() and not set(part) & set('\\:*?"<>|') and RESERVED.fullmatch(part) is None


def plain_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file of a folder by its relative name, in order.

    Raises:
        UnsafeModelError: it holds a link, a device or the like, or a name that other systems read differently.
    """
    for root, folders, files in os.walk(folder, followlinks=False):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = Path(root, name)
            relative = path.relative_to(folder).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            if not stat.S_ISREG(mode):
                raise UnsafeModelError(
                    f"{relative!r} in {folder} is {_kind(mode)}",
                    why="only plain files are kept: a link can lead to other people's files",
                    fix="put a copy of the file in its place",
                )
            if not is_safe_name(relative):
                raise UnsafeModelError(f"{relative!r} in {folder} cannot be kept", why="its name means something else on other systems", fix="rename the file")
            yield relative, path


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "no plain file")
