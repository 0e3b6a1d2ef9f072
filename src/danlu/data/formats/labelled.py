"""Answers marked good or bad one by one: a prompt, a completion and a label."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from danlu.data.examples import PROMPTS, Example, Kind, Row, RowError, find_column, require_column, share, to_text
from danlu.data.formats.messages import read_tools
from danlu.data.formats.preference import read_turns
from danlu.recipe.base import FORMATS, FormatConfig

COMPLETIONS = ("completion", "response", "answer", "output")
LABELS = ("label", "kto_tag", "is_desirable", "desirable", "thumbs_up")
WORDS = {"true": True, "false": False, "yes": True, "no": False, "good": True, "bad": False, "desirable": True, "undesirable": False, "1": True, "0": False}


@FORMATS.register
class Labelled(FormatConfig):
    """A prompt and one completion (text or turns; or a whole conversation that ends with it), marked `true` or `false`."""

    type: Literal["labelled"] = "labelled"
    makes: ClassVar[Kind] = "labelled"
    prompt: str | None = None
    """Column of the prompt, or of the conversation; by itself it takes e.g. `prompt`, `messages`, `conversations` or `question`."""
    completion: str | None = None
    """Column of the completion; by itself it takes `completion`, `response`, `answer` or `output`; none for whole conversations."""
    label: str | None = None
    """Column that says whether the completion is wanted; by itself it takes e.g. `label` or `kto_tag`. true/false, yes/no, good/bad, 1/0."""
    system: str = "system"
    """Column of the system message."""

    def detect(self, rows: Sequence[Row]) -> float:
        """0.97 times the share of rows with a prompt, an answer and a label of true or false."""
        return 0.97 * share(rows, self._is_one)

    def columns(self, names: Sequence[str]) -> set[str]:
        """The columns that are read."""
        wanted = (self._prompts, self._completions, self._labels, (self.system,), ("tools",))
        return {column for one in wanted if (column := find_column(tuple(names), one))}

    def to_example(self, row: Row) -> Example:
        """Prompt, completion and label."""
        columns = tuple(row)
        fixes: list[str] = []
        wanted = row[require_column(row, self._labels)]
        label = WORDS.get(to_text(wanted).strip().lower())
        if label is None:
            raise RowError(f"a label is {to_text(wanted)[:40]!r}, not true or false")
        prompt = read_turns(row[require_column(row, self._prompts)], "user", fixes)
        column = find_column(columns, self._completions)
        if column is not None:
            completion = read_turns(row[column], "assistant", fixes)
        else:
            begin = max((i for i, m in enumerate(prompt) if m["role"] == "user"), default=-1) + 1
            prompt, completion = prompt[:begin], prompt[begin:]
        if not completion:
            raise RowError("an answer is missing")
        system = find_column(columns, (self.system,))
        if system and to_text(row[system]).strip() and prompt and prompt[0]["role"] != "system":
            prompt = [{"role": "system", "content": to_text(row[system])}, *prompt]
        example: Example = {"messages": prompt, "completion": completion, "label": label}
        if tools := read_tools(row.get("tools")):
            example["tools"] = tools
        if fixes:
            example["fixes"] = fixes
        return example

    @property
    def _prompts(self) -> tuple[str, ...]:
        return (self.prompt,) if self.prompt else PROMPTS

    @property
    def _completions(self) -> tuple[str, ...]:
        return (self.completion,) if self.completion else COMPLETIONS

    @property
    def _labels(self) -> tuple[str, ...]:
        return (self.label,) if self.label else LABELS

    def _is_one(self, row: Row) -> bool:
        columns = tuple(row)
        label, prompt = find_column(columns, self._labels), find_column(columns, self._prompts)
        if label is None or prompt is None or prompt == label:
            return False
        value: Any = row[label]
        is_marked = isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))
        if self.label is not None:
            is_marked = to_text(value).strip().lower() in WORDS
        return is_marked and (find_column(columns, self._completions) not in (None, prompt) or isinstance(row[prompt], list))
