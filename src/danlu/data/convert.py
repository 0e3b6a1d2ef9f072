"""From a data file to clean examples, one at a time. Knows nothing of duplicates, splits and run folders."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import cast

from danlu.data.accounting import DataWarning
from danlu.data.clean import add_system, as_kind, clean_example
from danlu.data.detect import DETECT_ROWS, choose_format, unused_columns
from danlu.data.examples import Example, Format, Kind, LineFormat, Row, RowError
from danlu.data.json_rows import Entry, Unreadable
from danlu.data.read import RowStream, lines_of, open_rows
from danlu.data.split import WORDS
from danlu.errors import DataError, FormatError
from danlu.recipe.base import FormatConfig

READ_DIFFERENTLY: dict[tuple[Kind, Kind], DataWarning] = {
    ("preference", "messages"): DataWarning(
        "chosen_only", "the file holds preference pairs; only the chosen answers are trained on", "文件是偏好对；只用其中被选中的回答来训练"
    ),
    ("labelled", "messages"): DataWarning(
        "wanted_only", "the file marks answers as good or bad; only the good ones are trained on", "文件标注了回答的好坏；只用其中好的回答来训练"
    ),
    ("messages", "prompt"): DataWarning(
        "prompts_only", "the answers in the file are not imitated; they are references for reward functions", "文件中的回答不会被模仿，只作为奖励函数的参考"
    ),
}
DETECT_LINES = 400
"""Lines of a text file that its format is told by."""
MARKS = ("source", "round", "split")
"""Where an example of a run's data folder comes from."""
DETECT_CHARS = 8_000_000
"""Rows of megabytes each are told by fewer of them."""


@dataclass
class Dataset:
    """A data file whose format is known. `entries` is read once; `warnings` grows until it is used up."""

    stream: RowStream
    format: Format
    makes: Kind
    """Kind of the examples (a preference file read for sft makes `messages`)."""
    entries: Iterator[Entry]
    system: str | None
    warnings: list[DataWarning] = field(default_factory=list)
    split_column: str | None = None
    """Column that says which split a row belongs to."""

    def place(self, line: int, row: Row) -> int:
        """The split that the row says it belongs to.

        Raises:
            DataError: it names none.
        """
        value = row.get(str(self.split_column))
        place = WORDS.get(value.strip().casefold()) if isinstance(value, str) else None
        if place is None:
            says = f"column {self.split_column!r} says {str(value)[:40]!r}" if value is not None else f"the row has no column {self.split_column!r}"
            raise DataError(
                f"{self.stream.source.path}:{line}: {says}",
                why="data.split.column has to say of every row whether it is for train, validation or test",
                fix="write train, validation or test there, or remove data.split.column",
            )
        return place

    def convert(self, line: int, row: Row, fixes: list[str]) -> Example:
        """Return the clean example in `row`, noting in `fixes` what was changed.

        Raises:
            RowError: there is none, or it cannot be trained on.
        """
        example = clean_example(as_kind(self.format.to_example(row), self.makes), fixes)
        if self.system is not None and "messages" in example:
            add_system(example, self.system)
        return {"line": line, **example}


@dataclass
class PreparedDataset(Dataset):
    """Examples that an earlier run has cleaned: taken as they are."""

    def convert(self, line: int, row: Row, fixes: list[str]) -> Example:
        """The example without the marks of the file it stands in."""
        return {"line": line, **{key: value for key, value in row.items() if key not in ("line", *MARKS)}}


def open_prepared(path: Path, kind: Kind) -> Dataset:
    """Open train.jsonl (or another split) of a run, whose examples are of that kind."""
    stream = open_rows(path)
    return PreparedDataset(stream, cast(Format, Prepared()), kind, stream.entries, None, stream.warnings)


class Prepared(FormatConfig):
    """What the data folder of a run holds."""

    type: str = "danlu"


def open_dataset(
    path: Path,
    *,
    format: FormatConfig | str = "auto",
    needs: Kind | None = None,
    system: str | None = None,
    limit: int | None = None,
    split_column: str | None = None,
) -> Dataset:
    """Open the file at `path`, of which at most `limit` rows will be read.

    Raises:
        DataError: the file cannot be read, or is to say what is held out and has no columns.
        FormatError: its format cannot be told, or the objective cannot use it.
    """
    stream = open_rows(path)
    head, rows = _head(stream)
    chosen = choose_format(format, rows, path, needs)
    makes: Kind = needs if needs in ("messages", "prompt") else chosen.makes
    entries: Iterator[Entry] = chain(head, stream.entries)
    if stream.container == "txt":
        if split_column is not None:
            raise DataError(
                f"{path} is plain text",
                why=f"data.split.column {split_column!r} needs rows with columns",
                fix="remove data.split.column; give data.split.test_dataset instead",
            )
        entries = _grouped(chosen, entries, path)
    dataset = Dataset(stream, chosen, makes, islice(entries, limit), system, stream.warnings, split_column)
    if (chosen.makes, makes) in READ_DIFFERENTLY:
        dataset.warnings.append(READ_DIFFERENTLY[chosen.makes, makes])
    unused = [] if stream.container == "txt" else [name for name in unused_columns(chosen, rows) if name != split_column]
    if unused:
        names = ", ".join(unused[:8])
        dataset.warnings.append(DataWarning("unused_columns", f"columns not used: {names}", f"没有用到的列：{names}"))
    return dataset


def examples(path: Path, *, needs: Kind | None = None, only: int | None = None) -> Iterator[Example]:
    """Yield the clean examples of a file in its order (that of the row numbered `only`); rows that would be dropped are left out, duplicates are not.

    Raises:
        DataError: the file cannot be read.
        FormatError: its format cannot be told, or the objective cannot use it.
    """
    dataset = open_dataset(path, needs=needs)
    for line, row, _ in dataset.entries:
        if only is not None and line > only:
            return
        if isinstance(row, Unreadable) or only not in (None, line):
            continue
        try:
            example = dataset.convert(line, row, [])
        except RowError:
            continue
        yield example


def _head(stream: RowStream) -> tuple[list[Entry], list[Row]]:
    """The first entries, and the rows among them that a format can be told by."""
    num = DETECT_LINES if stream.container == "txt" else 10 * DETECT_ROWS
    head: list[Entry] = []
    rows: list[Row] = []
    num_chars = 0
    for entry in islice(stream.entries, num):
        head.append(entry)
        if not isinstance(entry[1], Unreadable):
            rows.append(entry[1])
            num_chars += len(repr(entry[1]))
            if num_chars > DETECT_CHARS or (len(rows) == DETECT_ROWS and stream.container != "txt"):
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
        raise FormatError(
            f"{path} is plain text", why=f"format {chosen.type} needs rows with columns", fix="use format qa_text or text, or give a JSONL or CSV file"
        )
    bad: list[Entry] = []
    for line, row in cast("LineFormat", chosen).group_lines(lines_of(entries, bad)):
        yield from bad
        bad.clear()
        yield line, row, ()
    yield from bad
