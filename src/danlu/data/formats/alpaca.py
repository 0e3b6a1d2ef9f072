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
    instruction: str = "instruction"
    """Column of the instruction."""
    input: str = "input"
    """Column of further input, put on a new line below the instruction."""
    output: str | None = None
    """Column of the answer; by itself it takes `output` or `response`."""
    system: str = "system"
    """Column of the system message."""
    history: str = "history"
    """Column of earlier turns."""

    def detect(self, rows: Sequence[Row]) -> float:
        """0.9 times the share of rows with an instruction and an answer."""
        return 0.9 * share(rows, self._has_columns)

    def columns(self, names: Sequence[str]) -> set[str]:
        """The columns that are read."""
        wanted = ((self.instruction,), (self.input,), self._output_names, (self.system,), (self.history,), ("instances",))
        return {column for one in wanted if (column := find_column(tuple(names), one))}

    def to_example(self, row: Row) -> Example:
        """Conversation of the history, the instruction and the answer."""
        layout = _layout(tuple(row), (self.instruction, self.input, self.output, self.system, self.history))
        if layout.instruction is None:
            raise RowError(f"no column {self.instruction!r}")
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
    def _output_names(self) -> tuple[str, ...]:
        return (self.output,) if self.output else ("output", "response")

    def _has_columns(self, row: Row) -> bool:
        columns = tuple(row)
        if find_column(columns, (self.instruction,)) is None:
            return False
        return find_column(columns, self._output_names) is not None or isinstance(row.get("instances"), list)

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


@lru_cache(maxsize=256)
def _layout(columns: tuple[str, ...], names: tuple[str, str, str | None, str, str]) -> _Layout:
    instruction, further, output, system, history = names
    outputs = (output,) if output else ("output", "response")
    return _Layout(*(find_column(columns, one) for one in ((instruction,), (further,), outputs, (system,), (history,))))


def _history(pairs: Any) -> list[Message]:
    if not pairs:
        return []
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise RowError("`history` is not a list of [question, answer] pairs")
    turns: list[Message] = []
    for question, answer in pairs:
        turns += [{"role": "user", "content": to_text(question)}, {"role": "assistant", "content": to_text(answer)}]
    return turns
