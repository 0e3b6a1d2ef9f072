"""OpenAI messages: a list of {"role", "content"}, with tools, tool calls, content parts and loss weights."""

from collections.abc import Sequence
from math import isfinite
from typing import Any, ClassVar, Literal

import orjson

from danlu.data.examples import Example, Kind, Message, Row, RowError, find_column, require_column, role_of, share, to_text
from danlu.recipe.base import FORMATS, FormatConfig

NAMES = ("messages", "conversations", "conversation", "chat", "dialog", "dialogue")
MAX_WEIGHT = 100.0
KEPT = ("tool_calls", "tool_call_id", "name", "reasoning_content")
"""Fields of a message that chat templates read besides role and content."""


@FORMATS.register
class Messages(FormatConfig):
    """One conversation a row, as the OpenAI chat format has it."""

    type: Literal["messages"] = "messages"
    makes: ClassVar[Kind] = "messages"
    messages: str | None = None
    """Column of the list of messages; by itself it takes `messages`, `conversations`, `conversation`, `chat` or `dialog`."""
    tools: str = "tools"
    """Column of the tools the assistant may call (a list, or its JSON text)."""

    def detect(self, rows: Sequence[Row]) -> float:
        """0.95 times the share of rows with a list of role and content."""
        return 0.95 * share(rows, self._has_messages)

    def columns(self, names: Sequence[str]) -> set[str]:
        """The columns that are read."""
        wanted = (self._names, (self.tools,), ("label",))
        return {column for one in wanted if (column := find_column(tuple(names), one))}

    def to_example(self, row: Row) -> Example:
        """The conversation; `train_on` says which turns count, and how much, where the file weighs them."""
        if row.get("label") is False:
            raise RowError("marked as an undesirable answer (label: false)")
        column = self.messages if self.messages in row else require_column(row, self._names)
        turns = json_list(row[column], column)
        fixes: list[str] = []
        messages = [read_message(turn, fixes) for turn in turns]
        example: Example = {"messages": messages}
        if any("loss_weight" in turn or "weight" in turn for turn in turns):
            weights = [_weight(t) if m["role"] == "assistant" else 0.0 for m, t in zip(messages, turns, strict=True)]
            example["train_on"] = [weight > 0 for weight in weights] if set(weights) <= {0.0, 1.0} else weights
        if tools := read_tools(row.get(self.tools)):
            example["tools"] = tools
        if fixes:
            example["fixes"] = fixes
        return example

    @property
    def _names(self) -> tuple[str, ...]:
        return (self.messages,) if self.messages else NAMES

    def _has_messages(self, row: Row) -> bool:
        column = find_column(tuple(row), self._names)
        if column is None:
            return False
        turns = row[column]
        if isinstance(turns, str) and turns.lstrip().startswith("["):
            return '"role"' in turns and '"content"' in turns
        return bool(isinstance(turns, list) and turns and isinstance(turns[0], dict) and "role" in turns[0])


def read_message(turn: Any, fixes: list[str]) -> Message:
    """Return one turn with text content.

    Raises:
        RowError: it is not a mapping, has an unknown role, or content that is not text.
    """
    if not isinstance(turn, dict):
        raise RowError("a message is not a mapping of role and content")
    content = turn.get("content")
    message: Message = {"role": role_of(turn.get("role"), fixes), "content": content if isinstance(content, str) else _content(content, fixes)}
    if len(turn) > 2:
        for key in KEPT:
            if turn.get(key):
                message[key] = turn[key]
    return message


def json_list(value: Any, column: str) -> list[Any]:
    """Return `value` as a list, parsing it when a table cell holds its JSON text.

    Raises:
        RowError: it is not a list with at least one entry.
    """
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise RowError(f"{column!r} is not a list, nor JSON text of one") from error
    if not isinstance(value, list) or not value:
        raise RowError(f"{column!r} is not a list with at least one message")
    return value


def read_tools(value: Any) -> list[Any]:
    """Return tools as chat templates take them: a list of {"type": "function", "function": {...}}.

    Raises:
        RowError: they are not a list of mappings.
    """
    if isinstance(value, str) and value.strip():
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise RowError("`tools` is not JSON") from error
    if not value:
        return []
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise RowError("`tools` is not a list of mappings")
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in value]


def _content(content: Any, fixes: list[str]) -> str:
    if content is None:
        return ""
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        fix = "a number kept as text"
        if fix not in fixes:
            fixes.append(fix)
        return to_text(content)
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, dict) or part.get("type", "text") not in ("text", "input_text", "output_text"):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise RowError(f"a message holds a part of type {str(kind)[:40]!r}; only text can be trained on")
        texts.append(to_text(part.get("text", part.get("value"))))
    return "".join(texts)


def _weight(turn: Any) -> float:
    weight = turn.get("loss_weight", turn.get("weight", 1)) if isinstance(turn, dict) else 1
    if not isinstance(weight, int | float) or not isfinite(weight):
        raise RowError(f"a loss weight is {str(weight)[:40]!r}, not a number")
    if weight > MAX_WEIGHT:
        raise RowError(f"a loss weight is {weight:g}, more than {MAX_WEIGHT:g}")
    return max(0.0, float(weight))
