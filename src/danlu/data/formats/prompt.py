"""Prompts without an answer to imitate: what a model answers by itself is rewarded, against a reference where there is one."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from danlu.data.examples import ANSWERS, PROMPTS, Example, Kind, Row, RowError, find_column, require_column, share, to_text
from danlu.data.formats.messages import read_tools
from danlu.data.formats.preference import read_turns
from danlu.recipe.base import FORMATS, FormatConfig


@FORMATS.register
class Prompt(FormatConfig):
    """A prompt (text or turns) and, where there is one, a reference answer. All other columns are kept for reward functions."""

    type: Literal["prompt"] = "prompt"
    makes: ClassVar[Kind] = "prompt"
    prompt: str | None = None
    """Column of the prompt; by itself it takes e.g. `prompt`, `messages`, `question` or `instruction`."""
    answer: str | None = None
    """Column of the reference answer; by itself it takes e.g. `answer`, `solution` or `ground_truth`."""
    system: str = "system"
    """Column of the system message."""

    def detect(self, rows: Sequence[Row]) -> float:
        """0.45 times the share of rows with a prompt: less than any format that finds an answer to imitate."""
        return 0.45 * share(rows, lambda row: find_column(tuple(row), self._prompts) is not None)

    def columns(self, names: Sequence[str]) -> set[str]:
        """All columns: reward functions may read any."""
        return set(names)

    def to_example(self, row: Row) -> Example:
        """Prompt, reference answer and the other columns; an answer that ends a conversation is its reference."""
        columns = tuple(row)
        fixes: list[str] = []
        column = require_column(row, self._prompts)
        if row[column] is None:
            raise RowError("empty prompt")
        messages = read_turns(row[column], "user", fixes)
        answer_column = find_column(columns, (self.answer,) if self.answer else ANSWERS)
        answer = to_text(row[answer_column]) if answer_column and answer_column != column and row[answer_column] is not None else None
        if messages and messages[-1]["role"] == "assistant":
            last = messages.pop()["content"]
            answer = last if answer is None else answer
        system = find_column(columns, (self.system,))
        if system and to_text(row[system]).strip() and messages and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": to_text(row[system])}, *messages]
        read = {column, answer_column, system, "tools"}
        example: Example = {"messages": messages, "answer": answer, "columns": {name: value for name, value in row.items() if name not in read}}
        if tools := read_tools(row.get("tools")):
            example["tools"] = tools
        if fixes:
            example["fixes"] = fixes
        return example

    @property
    def _prompts(self) -> tuple[str, ...]:
        return (self.prompt,) if self.prompt else (*PROMPTS, "问题", "问", "提问", "输入")
