"""The rows of a data file as JSON lines with an index, so that any page of a million rows is one seek away.

Made once, beside the file. A line is [number, row, problem]: where the row stands in its file, its columns (null when it cannot be
read), and why it cannot be read. The index holds the offset of each line, 8 bytes each. Beside them stands which columns there are in
all of the file.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from danlu.data.json_rows import Unreadable
from danlu.data.read import open_rows
from danlu.files import fsync_dir, read_json, storage_errors

LINES, INDEX, COLUMNS, LOCK = ".rows.jsonl", ".rows.index", ".rows.columns", ".rows.lock"
"""They lie beside the file of a user, whose name never begins with a dot."""
MAX_COLUMNS, MAX_NAME_CHARS = 1000, 1000
"""Columns that are counted, and the longest name of one: rows that each bring names of their own do not fill the memory."""
MAX_CELL_CHARS = 20_000
"""A preview shows so much of a cell."""
MAX_PAGE_BYTES = 4 * 1024 * 1024
MAX_SCANNED = 200_000
"""Rows that one search looks at: so nobody waits for the end of a large file."""
CANNOT_BE_SHOWN = "holds values that JSON cannot hold"


@dataclass(frozen=True)
class FileRow:
    """One row of a data file."""

    number: int
    """Line, sheet row or record, as everywhere else."""
    row: dict[str, Any] | None
    problem: str | None
    """Why it cannot be read."""
    is_cut: bool = False
    """Whether cells are shown in part only; what is shown must not be written back then."""


@dataclass(frozen=True)
class Rows:
    """Some rows, and where to go on."""

    items: list[FileRow]
    total: int | None
    """Rows of the whole file, those that cannot be read included; null while the file is being read: only its first rows are shown then."""
    next: int | None
    """Give it as `offset` for what follows; null at the end."""
    offset: int = 0
    """Place of the first of them, counted from 0."""
    columns: dict[str, int] = field(default_factory=dict)
    """Columns of the whole file, and in how many rows each stands; those of `items` while the file is being read."""
    has_more_columns: bool = False
    """Whether there are more than are named."""


class Columns:
    """Which columns rows have, in the order they appear, and in how many rows each stands."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.has_more = False

    def add(self, row: dict[str, Any]) -> None:
        """Count one row."""
        counts = self.counts
        for name in row:
            if name in counts:
                counts[name] += 1
            elif len(counts) < MAX_COLUMNS and len(name) <= MAX_NAME_CHARS:
                counts[name] = 1
            else:
                self.has_more = True


def index_rows(path: Path, folder: Path) -> int:
    """Write the table of the rows of `path` into `folder`, unless it is there; return how many rows there are.

    Who comes while another one writes it waits for that one.

    Raises:
        DataError: the file cannot be read.
        StorageError: the table cannot be written.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not has_index(folder):
                _write_table(path, folder)
        return (folder / INDEX).stat().st_size // 8


def _write_table(path: Path, folder: Path) -> None:
    offsets, columns, token = array("Q"), Columns(), secrets.token_hex(6)
    made = {name: folder / f"{name}.{token}.tmp" for name in (COLUMNS, LINES, INDEX)}
    try:
        with made[LINES].open("wb", buffering=1 << 20) as file:
            position = 0
            for number, row, _ in open_rows(path).entries:
                written, is_readable = _line(number, row)
                if is_readable:
                    columns.add(row)  # type: ignore[arg-type]  # readable rows are mappings
                offsets.append(position)
                position += file.write(written)
        made[COLUMNS].write_bytes(orjson.dumps({"counts": columns.counts, "has_more": columns.has_more}))
        with made[INDEX].open("wb") as file:
            offsets.tofile(file)
        for name, written_to in made.items():
            os.replace(written_to, folder / name)  # the index last: a table without one does not exist
        fsync_dir(folder)
    finally:
        for written_to in made.values():
            written_to.unlink(missing_ok=True)


def has_index(folder: Path) -> bool:
    """Whether the table is there."""
    return all((folder / name).is_file() for name in (INDEX, LINES, COLUMNS))


def read_head(path: Path, *, limit: int) -> Rows:
    """The first rows of a file that has no table yet.

    Raises:
        DataError: the file cannot be read.
    """
    columns, items, entries = Columns(), [], open_rows(path).entries
    for number, row, _ in islice(entries, limit):
        written, is_readable = _line(number, row)
        items.append(_shown(written))
        if is_readable:
            columns.add(row)  # type: ignore[arg-type]  # readable rows are mappings
    has_more_rows = next(entries, None) is not None
    return Rows(items, None, limit if has_more_rows else None, 0, columns.counts, columns.has_more)


def read_page(folder: Path, *, offset: int, limit: int) -> Rows:
    """Rows `offset` to `offset + limit` (counted from 0), fewer where they are large."""
    items: list[FileRow] = []
    with storage_errors(folder), (folder / INDEX).open("rb") as index, (folder / LINES).open("rb") as lines:
        total = os.fstat(index.fileno()).st_size // 8
        offset = max(0, min(offset, total))
        if offset < total:
            first = _seek(index, lines, offset)
            for line in lines:
                items.append(_shown(line))
                if len(items) >= limit or lines.tell() - first > MAX_PAGE_BYTES:
                    break
    end = offset + len(items)
    return Rows(items, total, end if end < total else None, offset, *_columns(folder))


def place_of(folder: Path, number: int) -> int:
    """Place (counted from 0) of the row with this number, or of the first one after it."""
    with storage_errors(folder), (folder / INDEX).open("rb") as index, (folder / LINES).open("rb") as lines:
        low, high = 0, os.fstat(index.fileno()).st_size // 8
        while low < high:
            middle = (low + high) // 2
            _seek(index, lines, middle)
            if int(lines.read(24)[1:].partition(b",")[0]) < number:
                low = middle + 1
            else:
                high = middle
        return low


def search(folder: Path, *, offset: int, limit: int, text: str, only_problems: bool) -> Rows:
    """Rows from `offset` on that hold `text` (whatever the case) or cannot be read; looks at no more than `MAX_SCANNED` rows."""
    wanted, items, seen = text.casefold(), [], 0
    with storage_errors(folder), (folder / INDEX).open("rb") as index, (folder / LINES).open("rb") as lines:
        total = os.fstat(index.fileno()).st_size // 8
        offset = max(0, min(offset, total))
        if offset < total:
            _seek(index, lines, offset)
            for line in lines:
                seen += 1
                if not (only_problems and b",null," not in line) and wanted in line.decode().casefold():
                    found = _shown(line)
                    if found.problem is not None or not only_problems:
                        items.append(found)
                if len(items) >= limit or seen >= MAX_SCANNED:
                    break
    end = offset + seen
    return Rows(items, total, end if end < total else None, offset, *_columns(folder))


def all_rows(folder: Path) -> Iterator[FileRow]:
    """Every row, whole."""
    with storage_errors(folder), (folder / LINES).open("rb") as lines:
        for line in lines:
            yield FileRow(*orjson.loads(line))


def _seek(index: BinaryIO, lines: BinaryIO, place: int) -> int:
    """Go to the row at a place; return where its line begins."""
    index.seek(8 * place)
    first = array("Q", index.read(8))[0]
    return lines.seek(first)


def _columns(folder: Path) -> tuple[dict[str, int], bool]:
    found = read_json(folder / COLUMNS)
    return found["counts"], found["has_more"]


def _line(number: int, row: Any) -> tuple[bytes, bool]:
    """The line of a row, and whether the row can be read."""
    if isinstance(row, Unreadable):
        return orjson.dumps([number, None, row.reason], option=orjson.OPT_APPEND_NEWLINE), False
    try:
        return orjson.dumps([number, row, None], option=orjson.OPT_APPEND_NEWLINE), True
    except orjson.JSONEncodeError:  # lone surrogates, nesting beyond what is written
        return orjson.dumps([number, None, CANNOT_BE_SHOWN], option=orjson.OPT_APPEND_NEWLINE), False


def _shown(line: bytes) -> FileRow:
    number, row, problem = orjson.loads(line)
    if row is None or len(line) <= MAX_CELL_CHARS:
        return FileRow(number, row, problem)
    cut = {name: _cut(value) for name, value in row.items()}
    return FileRow(number, cut, problem, is_cut=cut != row)


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= MAX_CELL_CHARS else value[:MAX_CELL_CHARS] + "…"
    if isinstance(value, list | dict):
        written = orjson.dumps(value).decode()
        return value if len(written) <= MAX_CELL_CHARS else written[:MAX_CELL_CHARS] + "…"
    return value
