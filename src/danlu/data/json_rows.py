"""Rows of JSON and JSONL files, streamed: one broken record never hides the ones after it."""

import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import orjson

from danlu.data.examples import Row

MAX_ROW_BYTES = 64 * 1024 * 1024
"""Longest line or record that is read; a longer one is dropped."""
WHOLE_BYTES = 64 * 1024 * 1024
"""A JSON file that is one object is read whole up to this size."""
CHUNK_BYTES = 1 << 20

Fixes = tuple[str, ...]


class Unreadable:
    """Stands for a row that could not be read, and says why."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


Entry = tuple[int, Row | Unreadable, Fixes]
"""(line or record number, row, what was repaired while reading)."""


def parse_row(raw: bytes) -> tuple[Row | Unreadable, Fixes]:
    """Return the mapping in `raw`; repairs trailing commas, lone surrogates and stray bytes, and says so."""
    fixes: list[str] = []
    try:
        value = orjson.loads(raw)
        # Keys given twice lose their quotes when the mapping is written again; escapes may differ too, so look closer.
        if type(value) is dict and raw.count(b'"') != orjson.dumps(value).count(b'"'):
            repeated = _repeated_keys(raw)
            if repeated:
                fixes.append(f"key {repeated[0]!r} given twice; the last value counts")
    except orjson.JSONEncodeError:
        return Unreadable("nested too deeply"), ()
    except orjson.JSONDecodeError as error:
        value = _repair(raw, str(error), fixes)
    if type(value) is dict:
        return value, tuple(fixes)
    if isinstance(value, Unreadable):
        return value, ()
    if isinstance(value, str):
        return {"text": value}, tuple(fixes)
    return Unreadable(f"not a JSON object but {_kind(value)}"), ()


def _repair(raw: bytes, message: str, fixes: list[str]) -> Any:
    """Parse what orjson refuses; return an Unreadable when nothing helps."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text, how = decode_line(raw)
        fixes.append(how)
    stripped = text.strip().strip("\x00\ufeff").strip()
    if stripped.endswith(","):
        stripped = stripped[:-1].rstrip()
        fixes.append("trailing comma removed")
    if not stripped:
        return Unreadable("not JSON: nothing but NUL bytes")
    repeated: list[str] = []
    try:
        value = json.loads(stripped, strict=False, object_pairs_hook=_collector(repeated), parse_int=_to_int)
    except (ValueError, RecursionError):
        return Unreadable(f"not JSON: {message}")
    if repeated:
        fixes.append(f"key {repeated[0]!r} given twice; the last value counts")
    if not fixes:
        fixes.append("JSON repaired: raw control characters, lone surrogates or NaN")
    return value


def decode_line(raw: bytes) -> tuple[str, str]:
    """Decode bytes that are not UTF-8; return the text and how it was done."""
    try:
        text = raw.decode("gb18030")
        if sum("\u4e00" <= character <= "\u9fff" for character in text) * 2 >= sum(character > "\x7f" for character in text):
            return text, "line read as GB18030 in a UTF-8 file"
    except UnicodeDecodeError:
        pass
    return raw.decode("utf-8", "ignore"), "bytes that are not UTF-8 removed"


def _to_int(digits: str) -> int | str:
    return int(digits) if len(digits) <= 4000 else digits


def _collector(repeated: list[str]) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) != len(pairs):
            names = [name for name, _ in pairs]
            repeated.append(next(name for name in names if names.count(name) > 1))
        return mapping

    return collect


def _repeated_keys(raw: bytes) -> list[str]:
    repeated: list[str] = []
    try:
        json.loads(raw, object_pairs_hook=_collector(repeated), parse_int=_to_int)
    except (ValueError, RecursionError):
        return []
    return repeated


def _kind(value: Any) -> str:
    names = {list: "a list", type(None): "null", bool: "true/false", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


def read_jsonl(file: BinaryIO) -> Iterator[Entry]:
    """Yield the rows of a file with one JSON value a line; blank lines are no rows."""
    readline = file.readline
    number = 0
    while line := readline(MAX_ROW_BYTES):
        number += 1
        if len(line) >= MAX_ROW_BYTES and not line.endswith(b"\n"):
            while (rest := readline(CHUNK_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, Unreadable(f"line longer than {MAX_ROW_BYTES >> 20} MB"), ()
            continue
        if line.isspace():
            continue
        row, fixes = parse_row(line)
        yield number, row, fixes


TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\],]', re.DOTALL)
"""A whole string, or one structural character; a lone quote is a string whose end has not been read yet."""
QUOTE, COMMA, OPENING = 0x22, 0x2C, frozenset(b"{[")


def split_values(file: BinaryIO, *, in_array: bool) -> Iterator[bytes | Unreadable]:
    """Yield the bytes of each element of an array, or of each value of a file with one after the other.

    In an array, `file` stands at its opening bracket; what follows its end is left unread.
    """
    base = 1 if in_array else 0
    buffer, depth, position, start = b"", 0, 0, 0
    while chunk := file.read(max(CHUNK_BYTES, len(buffer) - start)):
        buffer, position, start = buffer[start:] + chunk, position - start, 0
        for match in TOKEN.finditer(buffer, position):
            character, end = buffer[match.start()], match.end()
            if character == QUOTE:
                if end - match.start() == 1:
                    position = match.start()
                    break
            elif character in OPENING:
                depth += 1
                if depth == base:
                    start = end
            elif character == COMMA:
                if depth == base == 1:
                    yield buffer[start : match.start()]
                    start = end
            else:
                depth -= 1
                if depth < base or depth == base == 0:
                    yield buffer[start : match.start() if base else end].lstrip(b", \t\r\n")
                    start, depth = end, max(depth, 0)
                    if base:
                        return
            position = end
        if len(buffer) - start > MAX_ROW_BYTES:
            yield Unreadable(f"record longer than {MAX_ROW_BYTES >> 20} MB; what follows it is not read")
            return
    if rest := buffer[start:].strip():
        yield Unreadable(f"the file ends in the middle of a record (its last {len(rest)} bytes; was it cut off?)")


ROW_KEYS = frozenset({"messages", "conversations", "conversation", "chat", "dialog", "dialogue", "chosen", "rejected", "history", "tools", "instances"})
"""Keys whose list belongs to one row; any other list of mappings is taken for the rows."""
CONTAINER = re.compile(rb'"(?:data|rows|examples|train|items|records|dataset|samples)"\s*:\s*\[\s*(?=[{"\[])')


def read_json(file: BinaryIO) -> Iterator[Entry]:
    """Yield the rows of a JSON file: an array, an object that holds one, columns, or objects one after the other.

    Lines of JSON under the name .json are read as JSONL.
    """
    head = file.peek(CHUNK_BYTES)  # type: ignore[attr-defined]
    if head.lstrip()[:1] == b"[":
        yield from _numbered(split_values(file, in_array=True))
        return
    if _is_lines(head):
        yield from read_jsonl(file)
        return
    container = next((m for m in CONTAINER.finditer(head) if _depth(head[: m.start()]) == 1), None)
    if container:
        file.read(head.index(b"[", container.start()))
        yield from _numbered(split_values(file, in_array=True))
        return
    yield from _read_object(file)


def _is_lines(head: bytes) -> bool:
    """Whether each line is an object of its own; the file may have some broken ones, even the first."""
    lines = [line for line in head.split(b"\n")[:20] if line.strip()]
    if len(lines) < 2:
        return False
    are_objects = [_is_object(line) for line in lines]
    return are_objects[0] or sum(are_objects) * 2 > len(lines)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _depth(prefix: bytes) -> int:
    depth = 0
    for match in TOKEN.finditer(prefix):
        character = prefix[match.start()]
        depth += (character in OPENING) - (character in b"}]")
    return depth


def _read_object(file: BinaryIO) -> Iterator[Entry]:
    whole = file.read(WHOLE_BYTES + 1)
    try:
        value = orjson.loads(whole) if len(whole) <= WHOLE_BYTES else None
    except orjson.JSONDecodeError:
        value = None
    if isinstance(value, dict):
        for number, row in enumerate(_rows_of_object(value), 1):
            yield number, row if isinstance(row, dict) else {"text": row} if isinstance(row, str) else Unreadable(f"not a JSON object but {_kind(row)}"), ()
        return
    yield from _numbered(split_values(_Rewound(whole, file), in_array=False))  # type: ignore[arg-type]


class _Rewound:
    """A file whose first bytes have been read already."""

    def __init__(self, first: bytes, file: BinaryIO) -> None:
        self._first, self._file = io.BytesIO(first), file

    def read(self, size: int) -> bytes:
        return self._first.read(size) or self._file.read(size)


def _rows_of_object(value: dict[str, Any]) -> list[Any]:
    lists = {key: rows for key, rows in value.items() if key not in ROW_KEYS and isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)}
    if len(lists) == 1:
        return next(iter(lists.values()))
    columns = list(value.values())
    if columns and all(isinstance(column, list) for column in columns) and len({len(column) for column in columns}) == 1 and not ROW_KEYS & set(value):
        return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
    if columns and all(isinstance(column, dict) and column for column in columns):
        if all(key.isdigit() for key in value):
            return columns
        if all(key.isdigit() for column in columns for key in column):
            return [{name: column.get(index) for name, column in value.items()} for index in columns[0]]
    return [value]


def _numbered(values: Iterator[bytes | Unreadable]) -> Iterator[Entry]:
    number = 0
    for raw in values:
        if isinstance(raw, Unreadable):
            number += 1
            yield number, raw, ()
        elif raw.strip():
            number += 1
            row, fixes = parse_row(raw)
            yield number, row, fixes
