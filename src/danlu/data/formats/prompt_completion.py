"""Two columns: what is asked and what is answered, under any of the names in use; as text or as messages."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal

from danlu.data.examples import Example, Kind, Message, Row, RowError, find_column, note_conversions, share, to_text
from danlu.data.formats.messages import read_message
from danlu.recipe.base import FORMATS, FormatConfig

PAIRS = (
    ("prompt", "completion"),
    ("question", "answer"),
    ("input", "output"),
    ("query", "response"),
    ("prompt", "response"),
    ("问题", "答案"),
    ("问题", "回答"),
    ("问", "答"),
    ("提问", "回答"),
    ("输入", "输出"),
    ("text", "label"),
    ("text", "category"),
    ("text", "intent"),
    ("文本", "标签"),
    ("文本", "类别"),
)
PROMPTS = frozenset(prompt for prompt, _ in PAIRS)
COMPLETIONS = frozenset(completion for _, completion in PAIRS)


@FORMATS.register
class PromptCompletion(FormatConfig):
    """One prompt and one completion a row. A pair of columns is taken by itself only when no other pair is possible."""

    type: Literal["prompt_completion"] = "prompt_completion"
    makes: ClassVar[Kind] = "messages"
    prompt: str | None = None
    """Column of the prompt; by itself it takes e.g. `prompt`, `question`, `input`, `query`, `text` or `问题`."""
    completion: str | None = None
    """Column of the completion; by itself it takes e.g. `completion`, `answer`, `output`, `response`, `label` or `答案`."""
    system: str = "system"
    """Column of the system message."""

    def detect(self, rows: Sequence[Row]) -> float:
        """0.8 times the share of rows with exactly one pair of columns (0.7 for text and label)."""
        weight = 0.8
        if rows and (pair := find_pair(tuple(rows[0]), self.prompt, self.completion)) and pair[0].strip().lower() in ("text", "文本"):
            weight = 0.7
        return weight * share(rows, lambda row: find_pair(tuple(row), self.prompt, self.completion) is not None)

    def columns(self, names: Sequence[str]) -> set[str]:
        """The columns that are read."""
        system = find_column(tuple(names), (self.system,))
        return {*(find_pair(tuple(names), self.prompt, self.completion) or ()), *((system,) if system else ())}

    def to_example(self, row: Row) -> Example:
        """One question and one answer."""
        columns = tuple(row)
        pair = find_pair(columns, self.prompt, self.completion)
        if pair is None:
            raise RowError("no prompt or no completion column")
        prompt, completion = row[pair[0]], row[pair[1]]
        fixes: list[str] = []
        messages = [*_turns(prompt, "user", fixes), *_turns(completion, "assistant", fixes)]
        system = find_column(columns, (self.system,))
        if system and to_text(row[system]).strip():
            messages.insert(0, {"role": "system", "content": to_text(row[system])})
        example: Example = {"messages": messages}
        if fixes:
            example["fixes"] = fixes
        if isinstance(prompt, str) and isinstance(completion, str):
            return example
        return note_conversions(example, *(value for value in (prompt, completion) if not _is_turns(value)))


def _is_turns(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" in value[0]


def _turns(value: Any, role: str, fixes: list[str]) -> list[Message]:
    """Text said by `role`, or a list of messages as it is."""
    if _is_turns(value):
        return [read_message(turn, fixes) for turn in value]
    return [{"role": role, "content": to_text(value)}]


@lru_cache(maxsize=1024)
def find_pair(columns: tuple[str, ...], prompt: str | None, completion: str | None) -> tuple[str, str] | None:
    """Return the two columns, or None when there is no pair or more than one is possible."""
    plain = {column.strip().lower(): column for column in columns}
    if prompt or completion:
        found = (_named(plain, prompt, PROMPTS), _named(plain, completion, COMPLETIONS))
        return (found[0], found[1]) if found[0] and found[1] else None
    pairs = [(plain[p], plain[c]) for p, c in PAIRS if p in plain and c in plain]
    return pairs[0] if len(pairs) == 1 else None


def _named(plain: dict[str, str], name: str | None, usual: frozenset[str]) -> str | None:
    if name:
        return plain.get(name.strip().lower())
    candidates = [column for key, column in plain.items() if key in usual]
    return candidates[0] if len(candidates) == 1 else None
