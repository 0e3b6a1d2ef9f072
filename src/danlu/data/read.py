"""A data file as a stream of rows, whatever its kind. Knows nothing of dataset formats."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from danlu.data.accounting import DataWarning
from danlu.data.examples import Row
from danlu.data.json_rows import MAX_ROW_BYTES, Entry, Unreadable, read_json, read_jsonl
from danlu.data.sources import SourceFile, open_source
from danlu.data.table_rows import read_csv, read_parquet, read_xlsx, tell_delimiter

UNITS = {"json": "record", "parquet": "record", "xlsx": "row"}


@dataclass
class RowStream:
    """The rows of one file. `entries` is read once; `warnings` is complete when it is used up."""

    source: SourceFile
    container: str
    """`json`, `jsonl`, `csv`, `xlsx`, `parquet` or `txt`."""
    entries: Iterator[Entry]
    """Of a `txt` file: one {"text": line} a line, for a format to group."""
    warnings: list[DataWarning] = field(default_factory=list)

    @property
    def unit(self) -> str:
        """What `line` counts in this file."""
        return UNITS.get(self.container, "line")


def open_rows(path: Path) -> RowStream:
    """Tell what kind of file `path` is and begin to read it.

    Raises:
        DataError: it cannot be read.
        FormatError: it is not a kind of file that is read.
    """
    source = open_source(path)
    container, delimiter = _container(source)
    stream = RowStream(source, container, iter(()))
    stream.entries = _entries(source, container, delimiter, stream.warnings)
    return stream


def _container(source: SourceFile) -> tuple[str, str]:
    if source.container != "text":
        return source.container, ""
    head = source.head.lstrip("\x00\ufeff \t\r\n")
    if source.suffix in (".csv", ".tsv"):
        return "csv", tell_delimiter(source.head, source.suffix) or ","
    if source.suffix in (".jsonl", ".ndjson"):
        return ("json" if head.startswith("[") else "jsonl"), ""
    if source.suffix == ".json" or head.startswith(("{", "[{", '["')) or (head.startswith("[") and head[1:].lstrip().startswith(("{", "["))):
        return "json", ""
    if source.suffix in (".txt", ".text", ".md"):
        return "txt", ""
    delimiter = tell_delimiter(source.head, source.suffix)
    return ("csv", delimiter) if delimiter else ("txt", "")


def _entries(source: SourceFile, container: str, delimiter: str, warnings: list[DataWarning]) -> Iterator[Entry]:
    def warn(kind: str, english: str, chinese: str) -> None:
        warnings.append(DataWarning(kind, english, chinese))

    if container == "parquet":
        yield from read_parquet(source.path)
    elif container == "xlsx":
        yield from read_xlsx(source.path, warn)
    else:
        with source.open_utf8() as file:
            if container == "csv":
                yield from read_csv(file, delimiter, warn)
            elif container == "json":
                yield from read_json(file)
            elif container == "jsonl":
                yield from read_jsonl(file)
            else:
                yield from _read_lines(file)


def _read_lines(file: BinaryIO) -> Iterator[Entry]:
    number = 0
    while raw := file.readline(MAX_ROW_BYTES):
        number += 1
        if len(raw) >= MAX_ROW_BYTES and not raw.endswith(b"\n"):
            while (rest := file.readline(1 << 20)) and not rest.endswith(b"\n"):
                pass
            yield number, Unreadable(f"line longer than {MAX_ROW_BYTES >> 20} MB"), ()
            continue
        # Bytes that are not UTF-8 become lone surrogates here, which cleaning removes and accounts for.
        yield number, {"text": raw.decode("utf-8", "surrogateescape").rstrip("\r\n")}, ()


def lines_of(entries: Iterator[Entry], bad: list[Entry]) -> Iterator[tuple[int, str]]:
    """The lines of a `txt` stream; what could not be read goes to `bad`."""
    for entry in entries:
        if isinstance(entry[1], Unreadable):
            bad.append(entry)
        else:
            row: Row = entry[1]
            yield entry[0], row["text"]
