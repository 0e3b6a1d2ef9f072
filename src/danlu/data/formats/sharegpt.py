"""ShareGPT conversations: a list of {"from", "value"}, with function calls and observations."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import orjson

from danlu.data.examples import Example, Kind, Message, Row, RowError, find_column, require_column, role_of, share, to_text
from danlu.data.formats.messages import json_list, read_tools
from danlu.recipe.base import FORMATS, FormatConfig

NAMES = ("conversations", "conversation", "messages")
TAGS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
    "observation": "tool",
    "tool": "tool",
    "function_response": "tool",
}


@FORMATS.register
class ShareGPT(FormatConfig):
    """One conversation a row, each turn tagged `human`, `gpt`, `system`, `function_call`, `observation` or `tool`."""

    type: Literal["sharegpt"] = "sharegpt"
    makes: ClassVar[Kind] = "messages"
    conversations: str | None = None
    """Column of the list of turns; by itself it takes `conversations` or `conversation`."""
    system: str = "system"
    """Column of the system message."""
    tools: str = "tools"
    """Column of the tools the assistant may call (a list, or its JSON text)."""

    def detect(self, rows: Sequence[Row]) -> float:
        """0.95 times the share of rows with a list of from and value."""
        return 0.95 * share(rows, self._has_turns)

    def columns(self, names: Sequence[str]) -> set[str]:
        """The columns that are read."""
        wanted = (self._names, (self.system,), (self.tools,))
        return {column for one in wanted if (column := find_column(tuple(names), one))}

    def to_example(self, row: Row) -> Example:
        """The conversation in messages."""
        column = self.conversations if self.conversations in row else require_column(row, self._names)
        fixes: list[str] = []
        messages = [read_turn(turn, fixes) for turn in json_list(row[column], column)]
        system = row.get(self.system)
        if system and to_text(system).strip() and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": to_text(system)})
        example: Example = {"messages": messages}
        if tools := read_tools(row.get(self.tools)):
            example["tools"] = tools
        if fixes:
            example["fixes"] = fixes
        return example

    @property
    def _names(self) -> tuple[str, ...]:
        return (self.conversations,) if self.conversations else NAMES

    def _has_turns(self, row: Row) -> bool:
        column = find_column(tuple(row), self._names)
        if column is None:
            return False
        turns = row[column]
        if isinstance(turns, str) and turns.lstrip().startswith("["):
            return '"from"' in turns and '"value"' in turns
        return bool(isinstance(turns, list) and turns and isinstance(turns[0], dict) and "from" in turns[0] and "value" in turns[0])


def read_turn(turn: Any, fixes: list[str]) -> Message:
    """Return one {"from", "value"} turn as a message; a function call becomes an assistant's `tool_calls`.

    Raises:
        RowError: it is not a mapping, or its tag is unknown.
    """
    if not isinstance(turn, dict):
        raise RowError("a turn is not a mapping of from and value")
    tag, value = turn.get("from"), turn.get("value")
    if tag == "function_call":
        return _function_call(value)
    role = TAGS.get(tag) if isinstance(tag, str) else None
    message: Message = {"role": role or role_of(tag, fixes), "content": value if isinstance(value, str) else to_text(value)}
    if value is not None and not isinstance(value, str):
        fixes.append("a value that is not text kept as text")
    return message


def _function_call(value: Any) -> Message:
    text = to_text(value)
    try:
        calls = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RowError("a function_call is not JSON") from error
    calls = calls if isinstance(calls, list) else [calls]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise RowError("a function_call has no name")
    functions = [{"name": call["name"], "arguments": call.get("arguments") or {}} for call in calls]
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": f} for f in functions]}
