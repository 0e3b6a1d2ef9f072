"""First pass over a data file: read, convert, clean, hash. Keeps examples on disk and three numbers a row in memory."""

import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson

from danlu.data.accounting import DataWarning
from danlu.data.clean import placeholders
from danlu.data.convert import Dataset
from danlu.data.duplicates import NearDuplicates, exact_hash
from danlu.data.examples import Example, Row, RowError
from danlu.data.json_rows import Unreadable
from danlu.data.reasons import count_reasons
from danlu.files import storage_errors

BATCH_ROWS, BATCH_CHARS = 2048, 500_000
NEAR_CHARS = 200_000
"""Characters of a text that near duplicates are told by."""
SEPARATOR = "\u241f"
"""Between the parts of an example; printable, so that hashing can tell text without line ends at a glance."""
PROGRESS_SECONDS = 0.5

Progress = Callable[[int], None]


@dataclass
class Staged:
    """The clean examples of one file, in the order of the file."""

    dataset: Dataset
    examples_path: Path
    notes_path: Path
    """JSON lines [row, line, action, reasons]: what happened before or at each staged row."""
    near: NearDuplicates
    rows_in: int = 0
    lines: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    offsets: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    dropped: Counter[str] = field(default_factory=Counter)
    told: np.ndarray | None = None
    """The split that each row says it belongs to, where a column does."""

    @property
    def num_rows(self) -> int:
        """Examples that were staged."""
        return len(self.lines)

    def read_near_texts(self, rows: Sequence[int]) -> Iterator[str]:
        """Texts of staged rows that near duplicates are told by."""
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


def stage(dataset: Dataset, folder: Path, progress: Progress = lambda done: None) -> Staged:
    """Read the dataset into `folder`, which is made.

    Raises:
        DataError: the file cannot be read to its end, or a row does not say which split it belongs to where a column shall.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with closing(NearDuplicates(folder)) as near:
            staged = Staged(dataset, folder / "examples.jsonl", folder / "notes.jsonl", near)
            with staged.examples_path.open("wb", buffering=1 << 20) as examples, staged.notes_path.open("wb", buffering=1 << 18) as notes:
                _Stager(staged, examples, notes).run(progress)
    return staged


class _Stager:
    """The inner loop, with what it collects."""

    def __init__(self, staged: Staged, examples: BinaryIO, notes: BinaryIO) -> None:
        self.staged, self.examples, self.notes = staged, examples, notes
        self.lines, self.offsets, self.hashes, self.told = array("q"), array("q", [0]), array("Q"), array("b")
        self.batch: list[str] = []
        self.batch_chars = 0
        self.places: Counter[str] = Counter()
        self.num_with_places = self.first_with_place = self.num_unreadable_characters = 0

    def run(self, progress: Progress) -> None:
        """Take in every entry, then hand the numbers to the staged file."""
        due = time.monotonic() + PROGRESS_SECONDS
        for line, row, repairs in self.staged.dataset.entries:
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
        if staged.dataset.split_column is not None:
            staged.told = np.frombuffer(self.told, np.int8)
        self._warn()

    def _take(self, line: int, row: Row, repairs: tuple[str, ...]) -> None:
        fixes = list(repairs)
        try:
            example = self.staged.dataset.convert(line, row, fixes)
            written = orjson.dumps(example, option=orjson.OPT_APPEND_NEWLINE)
        except RowError as error:
            self._drop(line, error.reason)
            return
        except orjson.JSONEncodeError:
            self._drop(line, "holds values that JSON cannot hold")
            return
        if self.staged.dataset.split_column is not None:
            self.told.append(self.staged.dataset.place(line, row))
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
        count_reasons(self.staged.dropped, (reason,))
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
        warnings, unit = self.staged.dataset.warnings, self.staged.dataset.stream.unit
        if self.num_with_places:
            names = ", ".join(f"{{{{{name}}}}}" for name, _ in self.places.most_common(3))
            warnings.append(
                DataWarning(
                    "placeholders",
                    f"{self.num_with_places} rows hold unfilled places such as {names} (first: {unit} {self.first_with_place}); "
                    "the model will learn to write them",
                    f"{self.num_with_places} 行含有没有填写的占位符，如 {names}（首次在第 {self.first_with_place} 行）；模型会照样学着写",
                )
            )
        if count := self.num_unreadable_characters:
            warnings.append(
                DataWarning("undecoded", f"{count} rows hold characters that could not be decoded (U+FFFD)", f"{count} 行含有无法解码的字符（U+FFFD）")
            )


def exact_text(example: Example) -> str:
    """What makes two examples the same: roles, contents and calls."""
    if "text" in example:
        return str(example["text"]).strip()
    parts = []
    for key in ("messages", "chosen", "rejected", "completion"):
        for message in example.get(key, ()):
            parts.append(message["role"])
            parts.append(message["content"].strip())
            if "tool_calls" in message:
                parts.append(orjson.dumps(message["tool_calls"]).decode())
    if "label" in example or example.get("answer") is not None:
        parts.append(str(example.get("label", example.get("answer"))))
    return SEPARATOR.join(parts)


def near_text(example: Example) -> str:
    """What near duplicates are told by: the beginning of prompt and answer, without system messages."""
    if "text" in example:
        return str(example["text"][:NEAR_CHARS])
    contents = [m["content"] for m in example["messages"] if m["role"] not in ("system", "developer")]
    contents += [m["content"] for key in ("chosen", "completion") for m in example.get(key, ())]
    if example.get("answer"):
        contents.append(example["answer"])
    return "\n".join(contents)[:NEAR_CHARS]
