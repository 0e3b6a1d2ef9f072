"""The rows of a data file as JSON lines with an index, so that any page of a million rows is one seek away.

Made once, beside the file. A line is [number, row, problem]: where the row stands in its file, its columns (null when it cannot be
read), and why it cannot be read. The index holds the offset of each line, 8 bytes each.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from danlu.data.json_rows import Unreadable
from danlu.data.read import open_rows
from danlu.files import fsync_dir, storage_errors

LINES, INDEX = ".rows.jsonl", ".rows.index"
"""They lie beside the file of a user, whose name never begins with a dot."""
MAX_CELL_CHARS = 20_000
"""A preview shows so much of a cell."""
MAX_PAGE_BYTES = 4 * 1024 * 1024
CANNOT_BE_SHOWN = "holds values that JSON cannot hold"


@dataclass(frozen=True)
class FileRow:
    """One row of a data file."""

    number: int
    """Line, sheet row or record, as everywhere else."""
    row: dict[str, Any] | None
    problem: str | None
    """Why it cannot be read."""


@dataclass(frozen=True)
class Rows:
    """Some rows, and where to go on."""

    items: list[FileRow]
    total: int
    """Rows of the whole file, those that cannot be read included."""
    next: int | None
    """Give it as `offset` for what follows; null at the end."""


def index_rows(path: Path, folder: Path) -> int:
    """Write the table of the rows of `path` into `folder`; return how many rows there are.

    Raises:
        DataError: the file cannot be read.
        StorageError: the table cannot be written.
    """
    offsets = array("Q")
    lines, index = folder / f"{LINES}.{os.getpid()}.tmp", folder / f"{INDEX}.{os.getpid()}.tmp"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with lines.open("wb", buffering=1 << 20) as file:
                position = 0
                for number, row, _ in open_rows(path).entries:
                    written = _line(number, row)
                    offsets.append(position)
                    position += file.write(written)
            with index.open("wb") as file:
                offsets.tofile(file)
            os.replace(lines, folder / LINES)
            os.replace(index, folder / INDEX)  # last: a table without an index does not exist
            fsync_dir(folder)
        finally:
            lines.unlink(missing_ok=True)
            index.unlink(missing_ok=True)
    return len(offsets)


def has_index(folder: Path) -> bool:
    """Whether the table is there."""
    return (folder / INDEX).is_file() and (folder / LINES).is_file()


def read_page(folder: Path, *, offset: int, limit: int) -> Rows:
    """Rows `offset` to `offset + limit` (counted from 0), fewer where they are large."""
    items: list[FileRow] = []
    with storage_errors(folder), (folder / INDEX).open("rb") as index, (folder / LINES).open("rb") as lines:
        total = os.fstat(index.fileno()).st_size // 8
        offset = max(0, min(offset, total))
        index.seek(8 * offset)
        if start := index.read(8):
            first = array("Q", start)[0]
            lines.seek(first)
            for line in lines:
                items.append(_shown(line))
                if len(items) >= limit or lines.tell() - first > MAX_PAGE_BYTES:
                    break
    end = offset + len(items)
    return Rows(items, total, end if end < total else None)


def search(folder: Path, *, offset: int, limit: int, text: str, only_problems: bool, max_scanned: int = 200_000) -> Rows:
    """Rows from `offset` on that hold `text` (whatever the case) or cannot be read; looks at no more than `max_scanned` rows."""
    wanted, items, seen = text.casefold(), [], 0
    with storage_errors(folder), (folder / INDEX).open("rb") as index, (folder / LINES).open("rb") as lines:
        total = os.fstat(index.fileno()).st_size // 8
        offset = max(0, min(offset, total))
        index.seek(8 * offset)
        if start := index.read(8):
            lines.seek(array("Q", start)[0])
            for line in lines:
                seen += 1
                if not (only_problems and b",null," not in line) and wanted in line.decode().casefold():
                    found = _shown(line)
                    if found.problem is not None or not only_problems:
                        items.append(found)
                if len(items) >= limit or seen >= max_scanned:
                    break
    end = offset + seen
    return Rows(items, total, end if end < total else None)


def all_rows(folder: Path) -> Iterator[FileRow]:
    """Every row, whole."""
    with storage_errors(folder), (folder / LINES).open("rb") as lines:
        for line in lines:
            yield FileRow(*orjson.loads(line))


def _line(number: int, row: Any) -> bytes:
    if isinstance(row, Unreadable):
        return orjson.dumps([number, None, row.reason], option=orjson.OPT_APPEND_NEWLINE)
    try:
        return orjson.dumps([number, row, None], option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:  # lone surrogates, nesting beyond what is written
        return orjson.dumps([number, None, CANNOT_BE_SHOWN], option=orjson.OPT_APPEND_NEWLINE)


def _shown(line: bytes) -> FileRow:
    number, row, problem = orjson.loads(line)
    if row is not None and len(line) > MAX_CELL_CHARS:
        row = {name: _cut(value) for name, value in row.items()}
    return FileRow(number, row, problem)


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= MAX_CELL_CHARS else value[:MAX_CELL_CHARS] + "…"
    if isinstance(value, list | dict):
        written = orjson.dumps(value).decode()
        return value if len(written) <= MAX_CELL_CHARS else written[:MAX_CELL_CHARS] + "…"
    return value
