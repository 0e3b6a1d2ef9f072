"""Questions and answers written as text: `问：… 答：…`, `Q: … A: …`, `User: … Assistant: …`."""

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from danlu.data.examples import Example, Kind, Message, Row, RowError, find_column, require_column, to_text
from danlu.recipe.base import FORMATS, FormatConfig

ASKS = "问题|提问|问|用户|客户|question|query|q|user|human"
ANSWERS = "回答|答案|回复|答|助手|客服|answer|a|assistant|ai|bot"
DIALOGUE = frozenset({"用户", "客户", "助手", "客服", "user", "human", "assistant", "ai", "bot"})
"""Markers of a conversation: without a blank line in between, the next question belongs to the same example."""
SYSTEMS = "系统|system"
MARKER = re.compile(
    r"^[ \t　]*(?:\d{1,6}[.、．)）][ \t　]*)?[【\[]?"
    rf"(?:(?P<ask>{ASKS})|(?P<answer>{ANSWERS})|(?P<system>{SYSTEMS}))"
    r"[ ]?\d{0,6}[】\]]?[ \t　]*[:：][ \t　]*",
    re.IGNORECASE | re.MULTILINE,
)
INLINE_ANSWER = re.compile(rf"(?:(?<=[\s　。？！?!.])|^)(?:{ANSWERS})[ ]?[:：][ \t　]*", re.IGNORECASE)
"""An answer on the line of its question: `问：1+1等于几？ 答：2`."""


@FORMATS.register
class QAText(FormatConfig):
    """Marked questions and answers in a text file or a text column; both may have several lines.

    `Q`/`A` and `问`/`答` pairs are one example each. `User:`/`Assistant:` turns go on as one conversation until a blank
    line stands before the next question.
    """

    type: Literal["qa_text"] = "qa_text"
    makes: ClassVar[Kind] = "messages"
    text: str = "text"
    """Column of the text."""

    def detect(self, rows: Sequence[Row]) -> float:
        """0.9 with questions and answers in about equal number and at most 20 lines to a question; 0.1 with any of either."""
        asks = answers = lines = 0
        starts_with_ask = False
        for row in rows:
            column = find_column(tuple(row), (self.text,))
            text = row[column] if column else None
            if not isinstance(text, str) or not text.strip():
                continue
            lines += text.count("\n") + 1
            for match in MARKER.finditer(text):
                starts_with_ask |= not asks and not answers and match["ask"] is not None
                asks += match["ask"] is not None
                answers += match["answer"] is not None
            answers += len(_inline(text)) if asks > answers else 0
        balance = min(asks, answers) / max(asks, answers, 1)
        if starts_with_ask and balance >= 0.5 and asks * 20 >= lines:
            return 0.9
        return 0.1 if asks or answers else 0.0

    def columns(self, names: Sequence[str]) -> set[str]:
        """The column that is read."""
        column = find_column(tuple(names), (self.text,))
        return {column} if column else set()

    def to_example(self, row: Row) -> Example:
        """The turns in one block of text."""
        text = to_text(row[require_column(row, (self.text,))])
        turns: list[tuple[str, str]] = []
        end, role = 0, ""
        for match in MARKER.finditer(text):
            turns.append((role, text[end : match.start()]))
            end, role = match.end(), _role(match)
        turns.append((role, text[end:]))
        before = turns.pop(0)[1].strip()
        if not turns:
            raise RowError("no question or answer marker")
        if before:
            raise RowError("text before the first question")
        messages: list[Message] = []
        for role, content in turns:
            messages += _split_inline(role, content.strip())
        return {"messages": messages}

    def group_lines(self, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
        """Blocks of a text file, each from a question to before the next one (or a whole conversation)."""
        block: list[str] = []
        first, has_answer, after_blank = 0, False, False
        for number, line in lines:
            if not line.strip():
                after_blank = True
                if block:
                    block.append("")
                continue
            match = MARKER.match(line)
            kind = _role(match) if match else ""
            continues = bool(match) and match is not None and _word(match) in DIALOGUE and not after_blank and has_answer
            if block and kind in ("user", "system") and not continues and (has_answer or kind == "system" or not _only_system(block)):
                yield first, {self.text: "\n".join(block)}
                block, has_answer = [], False
            if not block:
                first = number
            block.append(line)
            has_answer |= kind == "assistant" or (kind == "user" and bool(_inline(line)))
            after_blank = False
        if block:
            yield first, {self.text: "\n".join(block)}


def _word(match: re.Match[str]) -> str:
    return (match["ask"] or match["answer"] or match["system"] or "").lower()


def _role(match: re.Match[str]) -> str:
    return "user" if match["ask"] else "assistant" if match["answer"] else "system"


def _only_system(block: list[str]) -> bool:
    match = MARKER.match(block[0])
    return match is not None and match["system"] is not None and not any(MARKER.match(line) for line in block[1:])


def _inline(text: str) -> list[re.Match[str]]:
    found = []
    for line in text.split("\n"):
        match = MARKER.match(line)
        if match and match["ask"] and (inner := INLINE_ANSWER.search(line, match.end())):
            found.append(inner)
    return found


def _split_inline(role: str, content: str) -> list[Message]:
    """A question whose line also holds its answer becomes two messages."""
    line = content.split("\n", 1)[0]
    inner = INLINE_ANSWER.search(line) if role == "user" else None
    if inner is None:
        return [{"role": role, "content": content}]
    return [{"role": "user", "content": content[: inner.start()].strip()}, {"role": "assistant", "content": content[inner.end() :].strip()}]
