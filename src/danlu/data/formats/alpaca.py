"""Alpaca rows: `instruction`, optional `input`, `output`, and optional `system` and `history`."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple

from danlu.data.examples import Example, Kind, Message, Row, RowError, find_column, note_conversions, share, to_text
from danlu.recipe.base import FORMATS, FormatConfig


@FORMATS.register
class Alpaca(FormatConfig):
    """One instruction and its answer a row; `history` holds earlier [question, answer] pairs."""

    type: Literal["alpaca"] = "alpaca"
    makes: ClassVar[Kind] = "messages"
    instruction: str | None = None
    """Column of the instruction; by itself it takes `instruction`, `instruct` or `指令`."""
    input: str | None = None
    """Column of further input, put on a new line below the instruction; by itself it takes `input` or `输入`."""
    output: str | None = None
    """Column of the answer; by itself it takes `output`, `response` or `输出`."""
    system: str | None = None
    """Column of the system message; by itself it takes `system`."""
    history: str | None = None
    """Column of earlier [question, answer] pairs; by itself it takes `history`."""

    def detect(self, rows: Sequence[Row]) -> float:
        """0.9 times the share of rows with an instruction and an answer."""
        return 0.9 * share(rows, self._has_columns)

    def columns(self, names: Sequence[str]) -> set[str]:
        """The columns that are read."""
        return {column for column in _layout(tuple(names), self._names) if column} | {"instances"}

    def to_example(self, row: Row) -> Example:
        """Conversation of the history, the instruction and the answer."""
        layout = _layout(tuple(row), self._names)
        if layout.instruction is None:
            raise RowError(f"no column {self.instruction or 'instruction'!r}")
        instruction, system = row[layout.instruction], row[layout.system] if layout.system else None
        if layout.output is None:
            further, answer = self._only_instance(row)
        else:
            further, answer = row[layout.input] if layout.input else None, row[layout.output]
        messages = _history(row[layout.history]) if layout.history else []
        if system and to_text(system).strip():
            messages.insert(0, {"role": "system", "content": to_text(system)})
        prompt, extra = to_text(instruction), to_text(further)
        messages.append({"role": "user", "content": f"{prompt}\n{extra}" if extra.strip() else prompt})
        messages.append({"role": "assistant", "content": to_text(answer)})
        example: Example = {"messages": messages}
        if isinstance(instruction, str) and isinstance(answer, str) and (further is None or isinstance(further, str)):
            return example
        return note_conversions(example, instruction, further, answer)

    @property
    def _names(self) -> "_Names":
        return (self.instruction, self.input, self.output, self.system, self.history)

    def _has_columns(self, row: Row) -> bool:
        layout = _layout(tuple(row), self._names)
        return layout.instruction is not None and (layout.output is not None or isinstance(row.get("instances"), list))

    def _only_instance(self, row: Row) -> tuple[Any, Any]:
        """Input and answer of a row that keeps them in a list of `instances` (self-instruct seed tasks)."""
        instances = row.get("instances")
        if instances is None:
            raise RowError(f"no column {(self.output or 'output')!r}")
        if not isinstance(instances, list) or len(instances) != 1 or not isinstance(instances[0], dict):
            raise RowError("`instances` is not a list with one entry")
        return instances[0].get("input"), instances[0].get("output")


class _Layout(NamedTuple):
    """Which columns of a row are which; None for those it does not have."""

    instruction: str | None
    input: str | None
    output: str | None
    system: str | None
    history: str | None


_Names = tuple[str | None, str | None, str | None, str | None, str | None]
USUAL = (("instruction", "instruct", "指令"), ("input", "输入"), ("output", "response", "输出"), ("system",), ("history",))


@lru_cache(maxsize=256)
def _layout(columns: tuple[str, ...], names: _Names) -> _Layout:
    return _Layout(*(find_column(columns, (name,) if name else usual) for name, usual in zip(names, USUAL, strict=True)))


def _history(pairs: Any) -> list[Message]:
    if not pairs:
        return []
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise RowError("`history` is not a list of [question, answer] pairs")
    turns: list[Message] = []
    for question, answer in pairs:
        turns += [{"role": "user", "content": to_text(question)}, {"role": "assistant", "content": to_text(answer)}]
    return turns
