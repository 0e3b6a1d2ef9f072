"""First pass over a data file: read, convert, clean, hash. Keeps examples on disk and three numbers a row in memory."""

import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import orjson

from danlu.data.clean import add_system, chosen_only, clean_example, placeholders
from danlu.data.detect import DETECT_ROWS, choose_format, unused_columns
from danlu.data.duplicates import NearDuplicates, exact_hash, normalise
from danlu.data.examples import Example, Format, Kind, LineFormat, Row, RowError
from danlu.data.json_rows import Entry, Unreadable
from danlu.data.read import RowStream, lines_of, open_rows
from danlu.errors import DataError
from danlu.files import storage_errors
from danlu.recipe.base import FormatConfig

BATCH_ROWS, BATCH_CHARS = 2048, 500_000
NEAR_CHARS = 200_000
"""Characters of a text that near duplicates are told by."""
DETECT_LINES = 400
PROGRESS_SECONDS = 0.5

Progress = Callable[[int], None]


@dataclass
class Staged:
    """The clean examples of one file, in the order of the file."""

    stream: RowStream
    format: Format
    makes: Kind
    """Kind of the examples (a preference file read for sft makes `messages`)."""
    examples_path: Path
    notes_path: Path
    """JSON lines [row, line, action, reasons]: what happened before or at each staged row."""
    near: NearDuplicates
    rows_in: int = 0
    lines: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    offsets: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    dropped: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        """Examples that were staged."""
        return len(self.lines)

    def read_near_texts(self, rows: Sequence[int]) -> Iterator[str]:
        """Normalised texts of staged rows."""
        with self.examples_path.open("rb") as file:
            for row in rows:
                file.seek(int(self.offsets[row]))
                yield near_text(orjson.loads(file.read(int(self.offsets[row + 1] - self.offsets[row]))))

    def read_lines(self) -> Iterator[bytes]:
        """Every staged example as its JSON line, in order."""
        with self.examples_path.open("rb") as file:
            yield from file

    def read_notes(self) -> Iterator[tuple[int, int, str, list[str]]]:
        """(row, line, `dropped` or `fixed`, reasons): dropped rows stand before the staged row they name."""
        with self.notes_path.open("rb") as file:
            for line in file:
                yield tuple(orjson.loads(line))


def stage(
    path: Path, folder: Path, *, format: FormatConfig | str = "auto", needs: Kind | None = None, system: str | None = None, limit: int | None = None,
    progress: Progress = lambda done: None,
) -> Staged:  # fmt: skip
    """Read the file at `path` (at most `limit` rows) into `folder`.

    Raises:
        DataError: the file cannot be read.
        FormatError: its format cannot be told, or the objective cannot use it.
    """
    stream = open_rows(path)
    entries = islice(stream.entries, limit) if limit is not None and stream.container != "txt" else stream.entries
    head, rows = _head(stream, entries)
    chosen = choose_format(format, rows, path, needs)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        makes = cast("Kind", needs) if chosen.makes == "preference" and needs == "messages" else chosen.makes
        staged = Staged(stream, chosen, makes, folder / "examples.jsonl", folder / "notes.jsonl", NearDuplicates(folder))
        if makes != chosen.makes:
            staged.warnings.append("the file holds preference pairs; only the chosen answers are trained on")
        if stream.container != "txt" and (unused := unused_columns(chosen, rows)):
            staged.warnings.append(f"columns not used: {', '.join(unused[:8])}")
        entries = chain(head, entries)
        if stream.container == "txt":
            entries = islice(_grouped(chosen, entries, path), limit)
        with staged.examples_path.open("wb", buffering=1 << 20) as examples, staged.notes_path.open("wb", buffering=1 << 18) as notes:
            _Stager(staged, examples, notes, system).run(entries, progress)
        staged.near.close()
    staged.warnings += stream.warnings
    return staged


def _head(stream: RowStream, entries: Iterator[Entry]) -> tuple[list[Entry], list[Row]]:
    """The first entries, and the rows among them that a format can be told by."""
    num = DETECT_LINES if stream.container == "txt" else 10 * DETECT_ROWS
    head: list[Entry] = []
    rows: list[Row] = []
    for entry in islice(entries, num):
        head.append(entry)
        if not isinstance(entry[1], Unreadable):
            rows.append(entry[1])
            if len(rows) == DETECT_ROWS and stream.container != "txt":
                break
    if not rows:
        raise _nothing_readable(stream, head)
    if stream.container == "txt":
        rows = [{"text": "\n".join(row["text"] for row in rows)}]
    return head, rows


def _nothing_readable(stream: RowStream, head: list[Entry]) -> DataError:
    path = stream.source.path
    if not head:
        return DataError(
            f"{path} holds no rows", why="there is nothing below its header, or nothing in its list", fix="give a file with at least a few examples"
        )
    line, bad, _ = head[0]
    reason = bad.reason if isinstance(bad, Unreadable) else ""
    return DataError(
        f"{path}:{line}: no row of the file can be read",
        why=f"{stream.unit} {line}: {reason}",
        fix=f"check that the file really is {stream.container.upper()}, and correct it there",
    )


def _grouped(chosen: Format, entries: Iterator[Entry], path: Path) -> Iterator[Entry]:
    if not hasattr(chosen, "group_lines"):
        from danlu.errors import FormatError

        raise FormatError(
            f"{path} is plain text", why=f"format {chosen.type} needs rows with columns", fix="use format qa_text or text, or give a JSONL or CSV file"
        )
    bad: list[Entry] = []
    for line, row in cast("LineFormat", chosen).group_lines(lines_of(entries, bad)):
        yield from bad
        bad.clear()
        yield line, row, ()
    yield from bad


class _Stager:
    """The inner loop, with what it collects."""

    def __init__(self, staged: Staged, examples: BinaryIO, notes: BinaryIO, system: str | None) -> None:
        self.staged, self.examples, self.notes, self.system = staged, examples, notes, system
        self.lines, self.offsets, self.hashes = array("q"), array("q", [0]), array("Q")
        self.batch: list[str] = []
        self.batch_chars = 0
        self.places: Counter[str] = Counter()
        self.num_with_places = self.first_with_place = self.num_unreadable_characters = 0

    def run(self, entries: Iterable[Entry], progress: Progress) -> None:
        """Take in every entry, then hand the numbers to the staged file."""
        due = time.monotonic() + PROGRESS_SECONDS
        for line, row, repairs in entries:
            self.staged.rows_in += 1
            if isinstance(row, Unreadable):
                self._drop(line, row.reason)
            else:
                self._take(line, row, repairs)
            if not self.staged.rows_in & 127 and time.monotonic() >= due:
                progress(self.staged.rows_in)
                due = time.monotonic() + PROGRESS_SECONDS
        self._flush()
        progress(self.staged.rows_in)
        staged = self.staged
        staged.lines, staged.offsets = np.frombuffer(self.lines, np.int64), np.frombuffer(self.offsets, np.int64)
        staged.hashes = np.frombuffer(self.hashes, np.uint64)
        self._warn()

    def _take(self, line: int, row: Row, repairs: tuple[str, ...]) -> None:
        fixes = list(repairs)
        try:
            example = self.staged.format.to_example(row)
            if self.staged.makes == "messages" and "chosen" in example:
                example = chosen_only(example)
            example = clean_example(example, fixes)
            if self.system is not None:
                add_system(example, self.system)
            written = orjson.dumps({"line": line, **example}, option=orjson.OPT_APPEND_NEWLINE)
        except RowError as error:
            self._drop(line, error.reason)
            return
        except orjson.JSONEncodeError:
            self._drop(line, "holds values that JSON cannot hold")
            return
        if fixes:
            self.notes.write(orjson.dumps([len(self.lines), line, "fixed", fixes], option=orjson.OPT_APPEND_NEWLINE))
        if b"{{" in written or b"\xef\xbf\xbd" in written:
            self._look_closer(line, written)
        self.examples.write(written)
        self.lines.append(line)
        self.offsets.append(self.offsets[-1] + len(written))
        self.hashes.append(exact_hash(exact_text(example)))
        text = near_text(example)
        self.batch.append(text)
        self.batch_chars += len(text)
        if len(self.batch) >= BATCH_ROWS or self.batch_chars >= BATCH_CHARS:
            self._flush()

    def _drop(self, line: int, reason: str) -> None:
        self.staged.dropped[reason] += 1
        self.notes.write(orjson.dumps([len(self.lines), line, "dropped", [reason]], option=orjson.OPT_APPEND_NEWLINE))

    def _flush(self) -> None:
        if self.batch:
            self.staged.near.add(self.batch)
            self.batch, self.batch_chars = [], 0

    def _look_closer(self, line: int, written: bytes) -> None:
        self.num_unreadable_characters += b"\xef\xbf\xbd" in written
        if names := placeholders(written.decode()):
            self.places.update(set(names))
            self.num_with_places += 1
            self.first_with_place = self.first_with_place or line

    def _warn(self) -> None:
        staged = self.staged
        if self.num_with_places:
            names = ", ".join(f"{{{{{name}}}}}" for name, _ in self.places.most_common(3))
            staged.warnings.append(
                f"{self.num_with_places} rows hold unfilled places such as {names} (first: {staged.stream.unit} {self.first_with_place}); "
                "the model will learn to write them"
            )
        if self.num_unreadable_characters:
            staged.warnings.append(f"{self.num_unreadable_characters} rows hold characters that could not be decoded (U+FFFD)")


def exact_text(example: Example) -> str:
    """What makes two examples the same: roles, contents and calls."""
    if "text" in example:
        return str(example["text"])
    parts = []
    for key in ("messages", "chosen", "rejected"):
        for message in example.get(key, ()):
            parts.append(message["role"])
            parts.append(message["content"])
            if "tool_calls" in message:
                parts.append(orjson.dumps(message["tool_calls"]).decode())
    return "\x1f".join(parts)


def near_text(example: Example) -> str:
    """Normalised text that near duplicates are told by: prompt and answer, without system messages."""
    if "text" in example:
        return normalise(example["text"][: 2 * NEAR_CHARS])[:NEAR_CHARS]
    contents = [m["content"] for m in example["messages"] if m["role"] not in ("system", "developer")]
    contents += [m["content"] for m in example.get("chosen", ())]
    return normalise(" ".join(contents)[: 2 * NEAR_CHARS])[:NEAR_CHARS]
