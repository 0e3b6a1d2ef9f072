"""What an example is, and what every dataset format provides. Knows nothing of files.

An example is a plain dict, one of

    {"line", "messages": [{"role", "content", ...}], "tools"?, "train_on"?: [bool or weight per message]}   kind `messages`
    {"line", "text"}                                                                             kind `text`
    {"line", "messages": prompt, "chosen": [messages], "rejected": [messages], "tools"?}         kind `preference`
    {"line", "messages": prompt, "completion": [messages], "label": bool, "tools"?}              kind `labelled`
    {"line", "messages": prompt, "answer": text or None, "columns": {...}, "tools"?}             kind `prompt`

`line` is where it stands in its file, from 1: the physical line (JSONL, CSV, TXT), the sheet row (XLSX) or the
record number (JSON, Parquet). A format may add `fixes` (reasons, one per change it made); cleaning moves them
into the account.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, ClassVar, Literal, Protocol

import orjson

Row = dict[str, Any]
Example = dict[str, Any]
Message = dict[str, Any]
Kind = Literal["messages", "text", "preference", "labelled", "prompt"]
READ_AS: dict[Kind, frozenset[Kind]] = {
    "messages": frozenset({"messages", "preference", "labelled"}),
    "text": frozenset({"text"}),
    "preference": frozenset({"preference"}),
    "labelled": frozenset({"labelled", "preference"}),
    "prompt": frozenset({"prompt", "messages", "preference"}),
}
"""Which kinds of example a file may hold for an objective that needs the one named first."""

PROMPTS = ("prompt", "messages", "conversations", "conversation", "question", "instruction", "query", "input")
ANSWERS = ("answer", "solution", "ground_truth", "reference", "target", "expected", "completion", "response", "output", "答案", "回答")
"""Usual names of the column of the prompt, and of a reference answer."""

ROLE_NAMES = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "用户": "user",
    "助手": "assistant",
    "系统": "system",
}
"""Other names of the roles, lower case."""

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})


class RowError(ValueError):
    """Why one row cannot become an example. Becomes an entry of dropped.jsonl, never reaches the user as an exception."""

    @property
    def reason(self) -> str:
        """One plain sentence."""
        return str(self.args[0])


class Format(Protocol):
    """What a class in data/formats/ defines besides its fields (whose values name columns that differ from the usual)."""

    type: str
    makes: ClassVar[Kind]

    def detect(self, rows: Sequence[Row]) -> float:
        """Return how surely `rows` (the first ones of a file) are of this format, in [0, 1]."""

    def to_example(self, row: Row) -> Example:
        """Return the example in `row`, without its line.

        Raises:
            RowError: there is none.
        """

    def columns(self, names: Sequence[str]) -> set[str]:
        """Return which of a file's columns are read."""


class LineFormat(Format, Protocol):
    """A format that can also read plain text files."""

    def group_lines(self, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
        """Turn (line number, line without its end) into (first line number, row)."""


def to_text(value: Any) -> str:
    """Return a cell as text: numbers as written, nothing as "", structures as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool | dict | list):
        return orjson.dumps(value).decode()
    return str(value)


def note_conversions(example: Example, *values: Any) -> Example:
    """Add to `example` a fix for each kind of value that is not text and is kept as text."""
    for value in values:
        if isinstance(value, str) or value is None:
            continue
        kind = "a JSON value" if isinstance(value, dict | list) else "true/false" if isinstance(value, bool) else "a number"
        fix = f"{kind} kept as text"
        if fix not in example.setdefault("fixes", []):
            example["fixes"].append(fix)
    return example


def role_of(name: Any, fixes: list[str]) -> str:
    """Return the role called `name`, noting in `fixes` when it had another name.

    Raises:
        RowError: no role is called so.
    """
    if isinstance(name, str):
        if name in ROLES:
            return name
        plain = name.strip().lower()
        role = ROLE_NAMES.get(plain, plain)
        if role in ROLES:
            fix = f"role {name!r} read as {role!r}"
            if fix not in fixes:
                fixes.append(fix)
            return role
    raise RowError(f"unknown role {str(name)[:40]!r}")


@lru_cache(maxsize=4096)
def find_column(columns: tuple[str, ...], names: tuple[str, ...]) -> str | None:
    """Return the column that has one of `names` (first name wins; case and outer blanks do not matter)."""
    plain = {column.strip().lower(): column for column in reversed(columns)}
    return next((plain[name.strip().lower()] for name in names if name.strip().lower() in plain), None)


def require_column(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Return the column of `row` that has one of `names`.

    Raises:
        RowError: there is none.
    """
    column = find_column(tuple(row), names)
    if column is None:
        raise RowError(f"no column {names[0]!r}")
    return column


def nearest_name(name: str, names: Sequence[str]) -> str | None:
    """Return the most similar of `names`, or None when none is similar."""
    plain = {n.strip().lower(): n for n in names}
    near = get_close_matches(name.strip().lower(), plain, n=1, cutoff=0.5)
    return plain[near[0]] if near else None


def share(rows: Sequence[Row], is_one: Any) -> float:
    """Return the share of `rows` for which `is_one(row)` holds; 0 without rows."""
    return sum(1 for row in rows if is_one(row)) / len(rows) if rows else 0.0
