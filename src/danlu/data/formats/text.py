"""Plain text documents for pretraining: a `text` column, or a text file."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from danlu.data.examples import Example, Kind, Row, find_column, note_conversions, require_column, share, to_text
from danlu.recipe.base import FORMATS, FormatConfig

NAMES = ("text", "content", "document", "body", "正文", "内容")
DOCUMENT_CHARS = 2000
"""Paragraphs of a text file are gathered into a document until it has this many characters."""
LOOKAHEAD_LINES = 1000


@FORMATS.register
class Text(FormatConfig):
    """One document a row.

    In a text file two or more blank lines end a document. Single blank lines end paragraphs, which are gathered
    into documents of about 2,000 characters. Without any blank line (in its first 1,000 lines) every line is a document.
    """

    type: Literal["text"] = "text"
    makes: ClassVar[Kind] = "text"
    text: str | None = None
    """Column of the text; by itself it takes `text`, `content`, `document` or `body`."""

    def detect(self, rows: Sequence[Row]) -> float:
        """Half the share of rows that have a text: any other format that fits is the better guess."""
        return 0.5 * share(rows, lambda row: (c := find_column(tuple(row), self._names)) is not None and isinstance(row[c], str))

    def columns(self, names: Sequence[str]) -> set[str]:
        """The column that is read."""
        column = find_column(tuple(names), self._names)
        return {column} if column else set()

    def to_example(self, row: Row) -> Example:
        """One document."""
        value = row[require_column(row, self._names)]
        return note_conversions({"text": to_text(value)}, value)

    def group_lines(self, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
        """Documents of a text file, by the rule above."""
        head = [entry for _, entry in zip(range(LOOKAHEAD_LINES), lines, strict=False)]
        texts = [line for _, line in head]
        while texts and not texts[-1].strip():
            texts.pop()
        has_paragraphs = any(not line.strip() for line in texts)
        both = _chain(head, lines)
        if not has_paragraphs:
            yield from ((number, {"text": line}) for number, line in both if line.strip())
            return
        yield from _paragraphs(both)

    @property
    def _names(self) -> tuple[str, ...]:
        return (self.text,) if self.text else NAMES


def _paragraphs(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
    parts: list[str] = []
    first, length, num_blank = 0, 0, 0
    for number, line in lines:
        if not line.strip():
            num_blank += 1
            continue
        if parts and (num_blank >= 2 or (num_blank == 1 and length >= DOCUMENT_CHARS)):
            yield first, {"text": "\n".join(parts)}
            parts, length = [], 0
        elif parts and num_blank:
            parts.append("")
        if not parts:
            first = number
        num_blank = 0
        parts.append(line)
        length += len(line)
    if parts:
        yield first, {"text": "\n".join(parts)}


def _chain(head: list[tuple[int, str]], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield from head
    yield from rest
