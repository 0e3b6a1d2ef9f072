"""Rows of CSV, XLSX and Parquet files, streamed. Cells of text files stay text: "007" is never 7."""

import csv
import io
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from danlu.data.examples import Row
from danlu.data.json_rows import MAX_ROW_BYTES, Entry, Fixes, Unreadable
from danlu.data.sources import Expansion
from danlu.errors import DataError, FormatError

DELIMITERS = ",\t;|"
Warn = Callable[[str, str, str], None]
"""Takes (kind, English, Chinese)."""
MAX_ROW_LINES = 5000
"""A quoted cell with more lines than this is taken for a quote that was never closed."""
MAX_COLUMNS = 1024
"""Of a sheet. A single cell in the last of its 16,384 columns would widen a million empty rows."""
MAX_XLSX_BYTES = 2 * 1024**3
MERGED = re.compile(rb"<mergeCell ")
UNCOMPUTED = re.compile(rb"</f>(?:<v\s*/>|<v></v>)?</c>")
BATCH_BYTES = 32 * 1024 * 1024


def tell_delimiter(head: str, suffix: str) -> str:
    """Return the delimiter that cuts the first rows into the most columns, all rows alike; "" when none does."""
    if suffix == ".tsv":
        return "\t"
    lines = head.splitlines(keepends=True)
    text = "".join(lines[:200] if len(lines) > 1 else lines)
    best, best_score = "", 0.0
    for delimiter in DELIMITERS:
        try:
            rows = [row for row in islice(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), 50) if row]
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 0
        if width < 2:
            continue
        alike = sum(len(row) == width for row in rows[: max(1, len(rows) - 1)]) / max(1, len(rows) - 1)
        score = min(alike, 1.0) * (1 + 0.01 * width)
        if score > best_score:
            best, best_score = delimiter, score
    return best if best_score >= 0.5 else ""


def read_csv(file: BinaryIO, delimiter: str, warn: Warn) -> Iterator[Entry]:
    """Yield the rows of a CSV file by its header line. The number of a row is the line it begins on."""
    csv.field_size_limit(MAX_ROW_BYTES)
    text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
    header: list[str] | None = None
    try:
        for number, cells in _CsvLines(text).rows(delimiter):
            if isinstance(cells, Unreadable):
                yield number, cells, ()
            elif not any(cell.strip() for cell in cells):
                continue
            elif header is None:
                header = _header(cells, warn)
            else:
                row, fixes = _zip_row(header, cells)
                yield number, row, fixes
    finally:
        text.detach()


def _header(cells: list[str], warn: Warn) -> list[str]:
    names = [cell.strip().lstrip("\ufeff") for cell in cells]
    while names and not names[-1]:
        names.pop()
    unique: list[str] = []
    for position, name in enumerate(names, 1):
        if not name:
            name = f"column {position}"
        if name in unique:
            second = f"{name} {position}"
            warn("repeated_column", f"column {name!r} is there twice; the second is called {second!r}", f"列 {name!r} 出现了两次；第二个改称 {second!r}")
            name = f"{name} {position}"
        unique.append(name)
    return unique


def _zip_row(header: list[str], cells: list[str]) -> tuple[Row | Unreadable, Fixes]:
    if len(cells) > len(header):
        if any(cell.strip() for cell in cells[len(header) :]):
            return Unreadable(f"{len(cells)} cells for {len(header)} columns (is a delimiter inside an unquoted cell?)"), ()
        cells = cells[: len(header)]
    if len(cells) < len(header):
        cells = cells + [""] * (len(header) - len(cells))
    return dict(zip(header, cells, strict=True)), ()


class _CsvLines:
    """Feeds lines to csv.reader and takes them back when a quote swallows what follows it."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._number = 0
        self._row: list[str] = []
        self._back: list[str] = []
        self._is_at_end = False

    def rows(self, delimiter: str) -> Iterator[tuple[int, list[str] | Unreadable]]:
        """Yield (first line of the row, cells)."""
        reader = csv.reader(self, delimiter=delimiter)
        while True:
            self._row.clear()
            first = self._number + 1
            reason = ""
            try:
                cells = next(reader)
                if self._is_at_end and len(self._row) > 1 and sum(line.count('"') for line in self._row) % 2:
                    reason = "a quote is never closed"
            except StopIteration:
                return
            except _TooManyLinesError:
                reason = f"a quote is not closed within {MAX_ROW_LINES} lines"
            except csv.Error as error:
                reason = f"not CSV: {error}"
            if not reason:
                yield first, cells
                continue
            self._back = self._row[1:] + self._back
            self._number = first
            self._is_at_end = False
            yield first, Unreadable(reason)
            reader = csv.reader(self, delimiter=delimiter)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self._row) >= MAX_ROW_LINES:
            raise _TooManyLinesError
        line = self._back.pop(0) if self._back else self._text.readline(MAX_ROW_BYTES)
        if not line:
            self._is_at_end = True
            raise StopIteration
        self._number += 1
        self._row.append(line)
        return line


class _TooManyLinesError(Exception):
    """Leaves csv.reader in the middle of a row."""


def read_xlsx(path: Path, warn: Warn) -> Iterator[Entry]:
    """Yield the rows of the first sheet that has any, by its header row; numbers and dates as text.

    Raises:
        DataError: the workbook is damaged, or would unpack to more than 2 GB.
    """
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        _check_workbook(path, warn)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            book = load_workbook(path, read_only=True, data_only=True)
        sheets = [sheet for sheet in book.worksheets if sheet.max_row is None or sheet.max_row > 0]
        used = next(
            (
                sheet
                for sheet in sheets
                if any(any(c is not None for c in cells) for cells in sheet.iter_rows(max_row=50, max_col=MAX_COLUMNS, values_only=True))
            ),
            None,
        )
        if used is None:
            raise DataError(f"{path} holds no cells", why="every sheet is empty", fix="give a workbook with a header row and rows below it")
        others = [sheet.title for sheet in book.worksheets if sheet is not used]
        if others:
            names = ", ".join(map(repr, others[:5]))
            warn("other_sheets", f"only sheet {used.title!r} is read; not read: {names}", f"只读工作表 {used.title!r}；没有读：{names}")
        header: list[str] | None = None
        if (used.max_column or 0) > MAX_COLUMNS:
            warn("many_columns", f"columns after the first {MAX_COLUMNS} are not read", f"前 {MAX_COLUMNS} 列之后的列没有读")
        for number, cells in enumerate(used.iter_rows(max_col=MAX_COLUMNS, values_only=True), 1):
            if cells.count(None) == len(cells):
                continue
            texts = [_cell_text(cell) for cell in cells]
            if not any(text.strip() for text in texts):
                continue
            if header is None:
                header = _header(texts, warn)
            else:
                row, fixes = _zip_row(header, texts)
                yield number, row, fixes
    except (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, EOFError, SyntaxError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} is a damaged workbook",
            why=f"{type(error).__name__}: {error}",
            fix="open it in a spreadsheet program and save it again, or export it as CSV",
        ) from error


def _check_workbook(path: Path, warn: Warn) -> None:
    with zipfile.ZipFile(path) as archive:
        total = sum(info.file_size for info in archive.infolist())
        if total > MAX_XLSX_BYTES:
            raise DataError(f"{path} would unpack to {total / 1e9:.1f} GB", why="a workbook may unpack to at most 2 GB", fix="export the sheet as CSV")
        if "xl/workbook.xml" not in archive.namelist():
            raise FormatError(f"{path} is not an XLSX workbook", why="the archive has no xl/workbook.xml", fix="save it as .xlsx or .csv")
        num_merged = num_formulas = 0
        for info in archive.infolist():
            if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", info.filename):
                with archive.open(info) as sheet:
                    tail = b""
                    while chunk := sheet.read(1 << 20):
                        num_merged += len(MERGED.findall(tail + chunk)) - len(MERGED.findall(tail))
                        num_formulas += len(UNCOMPUTED.findall(tail + chunk)) - len(UNCOMPUTED.findall(tail))
                        tail = chunk[-16:]
    if num_merged:
        warn(
            "merged_cells",
            f"{num_merged} merged ranges: only the first cell of each holds a value, the others are empty",
            f"有 {num_merged} 处合并单元格：每处只有第一格有值，其余为空",
        )
    if num_formulas:
        warn(
            "formulas",
            f"{num_formulas} formulas without a stored result read as empty; open and save the workbook once to store them",
            f"有 {num_formulas} 个公式没有存下结果，读作空；用表格软件打开并保存一次即可",
        )


def _cell_text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))
    return cell.isoformat() if hasattr(cell, "isoformat") else str(cell)


def read_parquet(path: Path) -> Iterator[Entry]:
    """Yield the rows of a Parquet file; the batches are as small as its largest column chunk demands.

    Raises:
        DataError: the file is damaged.
    """
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            number, expansion = 0, Expansion(path)
            for batch in file.iter_batches(batch_size=_batch_rows(file.metadata), use_threads=False):
                for start in range(0, batch.num_rows, 64):
                    for row in batch.slice(start, 64).to_pylist():
                        number += 1
                        plain, size = _plain_row(row)
                        expansion.add(size)
                        yield number, plain, ()
    except (arrow.ArrowException, OSError) as error:
        message = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"{path} is a damaged Parquet file", why=message, fix="write or download it again") from error


def _batch_rows(metadata: Any) -> int:
    """A cell is at most as large as its column chunk, so this many rows decode to at most BATCH_BYTES (or are one row).

    A dictionary page of a few bytes can stand for gigabytes of repeated cells: sizes of decoded rows are not stored.
    """
    largest = 1
    for group in range(metadata.num_row_groups):
        chunks = metadata.row_group(group)
        largest = max(largest, *(chunks.column(c).total_uncompressed_size for c in range(chunks.num_columns)), 1)
    return max(1, min(1024, BATCH_BYTES // largest * 8 if largest < BATCH_BYTES else 1))


def _plain_row(row: dict[str, Any]) -> tuple[Row | Unreadable, int]:
    """The row as text and numbers, and about how many bytes it takes."""
    size = 0
    for name, value in row.items():
        size += len(value) if isinstance(value, str | bytes) else 8 if not isinstance(value, list | dict) else len(repr(value))
        if isinstance(value, bytes):
            try:
                row[name] = value.decode()
            except UnicodeDecodeError:
                return Unreadable(f"column {name!r} holds bytes, not text"), size
        elif value is not None and not isinstance(value, str | int | float | bool | list | dict):
            row[name] = str(value)
    return (row if size <= MAX_ROW_BYTES else Unreadable(f"row longer than {MAX_ROW_BYTES >> 20} MB")), size
