"""Preference pairs: a prompt with a chosen and a rejected answer."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from danlu.data.examples import PROMPTS, Example, Kind, Message, Row, RowError, find_column, require_column, share, to_text
from danlu.data.formats.messages import json_list, read_message, read_tools
from danlu.data.formats.sharegpt import read_turn
from danlu.recipe.base import FORMATS, FormatConfig

TURN = re.compile(r"\n\n(Human|Assistant): ?")


@FORMATS.register
class Preference(FormatConfig):
    """A prompt (text or turns) with `chosen` and `rejected` (text, a turn or turns); or two whole dialogues that part ways.

    Dialogues are lists of turns, or text of `Human:` and `Assistant:` paragraphs; what both share is the prompt.
    """

    type: Literal["preference"] = "preference"
    makes: ClassVar[Kind] = "preference"
    prompt: str | None = None
    """Column of the prompt; by itself it takes e.g. `prompt`, `messages`, `conversations` or `question`; none for whole dialogues."""
    chosen: str = "chosen"
    """Column of the better answer."""
    rejected: str = "rejected"
    """Column of the worse answer."""
    system: str = "system"
    """Column of the system message."""

    def detect(self, rows: Sequence[Row]) -> float:
        """The share of rows with a chosen and a rejected answer."""
        return share(rows, lambda row: find_column(tuple(row), (self.chosen,)) is not None and find_column(tuple(row), (self.rejected,)) is not None)

    def columns(self, names: Sequence[str]) -> set[str]:
        """The columns that are read."""
        wanted = (self._prompts, (self.chosen,), (self.rejected,), (self.system,), ("tools",))
        return {column for one in wanted if (column := find_column(tuple(names), one))}

    def to_example(self, row: Row) -> Example:
        """Prompt, chosen and rejected messages."""
        fixes: list[str] = []
        chosen = read_turns(row[require_column(row, (self.chosen,))], "assistant", fixes)
        rejected = read_turns(row[require_column(row, (self.rejected,))], "assistant", fixes)
        column = find_column(tuple(row), self._prompts)
        prompt = read_turns(row[column], "user", fixes) if column and row[column] else []
        shared = _num_shared(chosen, rejected)
        if prompt and chosen[: len(prompt)] == prompt and rejected[: len(prompt)] == prompt:
            prompt = []
        if not prompt:
            prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
        if not prompt:
            raise RowError("no prompt, and the two dialogues share no beginning")
        if not chosen or not rejected:
            raise RowError("chosen and rejected are the same")
        system = find_column(tuple(row), (self.system,))
        if system and to_text(row[system]).strip() and prompt[0]["role"] != "system":
            prompt = [{"role": "system", "content": to_text(row[system])}, *prompt]
        example: Example = {"messages": prompt, "chosen": chosen, "rejected": rejected}
        if tools := read_tools(row.get("tools")):
            example["tools"] = tools
        if fixes:
            example["fixes"] = fixes
        return example

    @property
    def _prompts(self) -> tuple[str, ...]:
        return (self.prompt,) if self.prompt else PROMPTS


def read_turns(value: Any, role: str, fixes: list[str]) -> list[Message]:
    """Text, one turn, or a list of turns as messages; plain text is said by `role`."""
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, str):
        if value.lstrip().startswith("[{"):
            value = json_list(value, role)
        elif value.startswith("\n\nHuman:"):
            return _dialogue(value)
        else:
            return [{"role": role, "content": value}]
    if not isinstance(value, list) or not value:
        if value is None or value == []:
            raise RowError("an answer is missing")
        return [{"role": role, "content": to_text(value)}]
    return [read_turn(turn, fixes) if isinstance(turn, dict) and "from" in turn else read_message(turn, fixes) for turn in value]


def _dialogue(text: str) -> list[Message]:
    parts = TURN.split(text)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return [{"role": "user" if tag == "Human" else "assistant", "content": content.strip()} for tag, content in pairs]


def _num_shared(chosen: list[Message], rejected: list[Message]) -> int:
    """Number of leading turns both have, always less than either's length unless they are equal."""
    count = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        count += 1
    return count
