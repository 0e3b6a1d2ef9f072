"""Alpaca rows: `instruction`, optional `input`, `output`, and optional `system` and `history`."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from danlu.data.examples import Example, Kind, Message, Row, RowError, find_column, note_conversions, require_column, share, to_text
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
        instruction = row[require_column(row, (self.instruction,))]
        further, answer = self._input_and_output(row)
        messages: list[Message] = []
        system = find_column(tuple(row), (self.system,))
        if system and to_text(row[system]).strip():
            messages.append({"role": "system", "content": to_text(row[system])})
        messages += self._history(row)
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

    def _input_and_output(self, row: Row) -> tuple[Any, Any]:
        instances = row.get("instances")
        if isinstance(instances, list) and self.output is None and "output" not in row:
            if len(instances) != 1 or not isinstance(instances[0], dict):
                raise RowError(f"`instances` holds {len(instances)} entries; only one can be read")
            row = instances[0]
        further = find_column(tuple(row), (self.input,))
        return row[further] if further else None, row[require_column(row, self._output_names)]

    def _history(self, row: Row) -> list[Message]:
        column = find_column(tuple(row), (self.history,))
        if not column or not row[column]:
            return []
        turns: list[Message] = []
        pairs = row[column]
        if not isinstance(pairs, list):
            raise RowError("`history` is not a list of [question, answer] pairs")
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise RowError("`history` is not a list of [question, answer] pairs")
            turns += [{"role": "user", "content": to_text(pair[0])}, {"role": "assistant", "content": to_text(pair[1])}]
        return turns
