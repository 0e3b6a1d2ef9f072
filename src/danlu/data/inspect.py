"""The data doctor: what a file holds and what is wrong with it, before any model is chosen."""

import re
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from danlu.data.accounting import DataWarning
from danlu.data.convert import open_dataset
from danlu.data.duplicates import first_rows
from danlu.data.examples import Example, Kind, Message
from danlu.data.reasons import MAX_KINDS, POSITION, count_reasons, in_chinese
from danlu.data.staging import Staged, stage
from danlu.recipe.base import FORMATS, FormatConfig

FEW_ROWS = 50
SHOWN = 3
SHORT_ANSWER_CHARS = 10
HAN = re.compile("[㐀-䶿一-鿿]")
LATIN = re.compile("[A-Za-z]")
LETTER = re.compile(r"[^\W\d_]")

PERSONAL_NAMES = {"phone": "电话", "id_card": "身份证号", "email": "邮箱", "bank_card": "银行卡号"}
EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})*\.[A-Za-z]{2,24}")
PHONE = re.compile(r"(?<![\d.])(?:\+?86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?!\d)|(?<!\d)\+\d{1,3}[- ]?(?:\d[- ]?){7,11}\d(?!\d)")
ID_CARD = re.compile(r"(?<!\d)[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![\dA-Za-z])")
BANK_CARD = re.compile(r"(?<![\d.])[3-6]\d{3}[- ]?\d{4}[- ]?\d{4}[- ]?\d{3,7}(?!\d)")


@dataclass(frozen=True)
class Lengths:
    """Characters (or turns) of the usable rows."""

    p50: int
    p95: int
    max: int


@dataclass(frozen=True)
class Inspection:
    """What is in a data file. Counts are of rows."""

    path: str
    container: str
    encoding: str
    format: str
    makes: Kind
    """Kind of the examples: `messages`, `text`, `preference`, `labelled` or `prompt`."""
    unit: str
    """What `line` counts: `line`, `row` or `record`."""
    rows_in: int
    usable: int
    """Rows left after dropping what cannot be trained on and exact duplicates."""
    dropped: int
    duplicate: int
    near_duplicate: int
    """Usable rows that nearly equal an earlier one."""
    fixed: int
    """Usable rows that were repaired."""
    reasons: dict[str, dict[str, int]]
    """For `dropped` and `fixed`: reason -> rows."""
    first_lines: dict[str, int]
    """Reason -> the first line it was met on."""
    prompt_chars: Lengths
    """All turns before the last answer; 0 for plain text."""
    completion_chars: Lengths
    """The last answer (the chosen one of a pair, the reference of a prompt), or the whole text."""
    turns: Lengths
    """Messages without system messages; 0 for plain text."""
    languages: dict[str, float]
    """Share of usable rows that are mostly Chinese (`zh`), mostly Latin letters (`en`) or neither (`other`)."""
    personal_data: dict[str, int]
    """Usable rows with something that looks like a `phone`, `id_card`, `email` or `bank_card` number."""
    warnings: list[DataWarning]
    examples: list[Example]
    """The first usable ones."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def inspect(
    path: Path,
    format: str | FormatConfig = "auto",
    limit: int | None = None,
    *,
    look_closer: Callable[[Staged, np.ndarray, np.ndarray], None] = lambda staged, original, groups: None,
) -> Inspection:
    """Read the file at `path` (at most `limit` rows of it) and say what it holds.

    `look_closer` is given what is known of each row: the staged rows, the first row with the same content, and the first of its near duplicates.

    Raises:
        DataError: the file cannot be read.
        FormatError: its format cannot be told, or its rows do not fit the one asked for.
        UnknownNameError: there is no format of that name.
    """
    config = format if format == "auto" else FORMATS.parse(format)
    with tempfile.TemporaryDirectory(prefix="danlu-inspect-") as folder:
        staged = stage(open_dataset(Path(path), format=config, limit=limit), Path(folder))
        original = first_rows(staged.hashes) if staged.num_rows else np.zeros(0, np.int64)
        is_first = original == np.arange(staged.num_rows)
        groups = staged.near.groups(is_first, staged.read_near_texts)
        num_near = int(np.count_nonzero(is_first & (groups != np.arange(staged.num_rows))))
        look_closer(staged, original, groups)
        return _Doctor(staged, is_first).inspection(path, num_near=num_near, is_partial=limit is not None)


class _Doctor:
    """Collects the statistics of the usable rows in one pass."""

    def __init__(self, staged: Staged, is_first: np.ndarray) -> None:
        self.staged = staged
        self.num_usable = int(np.count_nonzero(is_first))
        self.prompts, self.completions, self.turns = array("q"), array("q"), array("q")
        self.languages: Counter[str] = Counter()
        self.personal: Counter[str] = Counter()
        self.examples: list[Example] = []
        self.fixed: Counter[str] = Counter()
        self.first_lines: dict[str, int] = {}
        self.num_fixed = 0
        for _, line, _, reasons in staged.read_notes():
            for reason in reasons:
                if len(self.first_lines) < MAX_KINDS:
                    self.first_lines.setdefault(POSITION.sub("", reason), line)
        for row, _, action, reasons in staged.read_notes():
            if action == "fixed" and is_first[row]:
                self.num_fixed += 1
                count_reasons(self.fixed, reasons)
        for written, is_used in zip(staged.read_lines(), is_first, strict=True):
            if is_used:
                self._look_at(orjson.loads(written))

    def _look_at(self, example: Example) -> None:
        prompt, completion, turns = _parts(example)
        self.prompts.append(len(prompt))
        self.completions.append(len(completion))
        self.turns.append(turns)
        text = f"{prompt}\n{completion}"
        self.languages[language(text)] += 1
        self.personal.update(personal_data(text))
        if len(self.examples) < SHOWN:
            self.examples.append(example)

    def inspection(self, path: Path, *, num_near: int, is_partial: bool) -> Inspection:
        staged = self.staged
        return Inspection(
            path=str(path),
            container=staged.dataset.stream.container,
            encoding=staged.dataset.stream.source.encoding,
            format=staged.dataset.format.type,
            makes=staged.dataset.makes,
            unit=staged.dataset.stream.unit,
            rows_in=staged.rows_in,
            usable=self.num_usable,
            dropped=staged.dropped.total(),
            duplicate=staged.num_rows - self.num_usable,
            near_duplicate=num_near,
            fixed=self.num_fixed,
            reasons={"dropped": dict(staged.dropped.most_common()), "fixed": dict(self.fixed.most_common())},
            first_lines=self.first_lines,
            prompt_chars=_lengths(self.prompts),
            completion_chars=_lengths(self.completions),
            turns=_lengths(self.turns),
            languages={name: round(self.languages[name] / max(1, self.num_usable), 3) for name in ("zh", "en", "other")},
            personal_data={name: self.personal[name] for name in ("phone", "id_card", "email", "bank_card")},
            warnings=self._warnings(num_near, is_partial=is_partial),
            examples=self.examples,
        )

    def _warnings(self, num_near: int, *, is_partial: bool) -> list[DataWarning]:
        staged, warnings, usable = self.staged, list(self.staged.dataset.warnings), self.num_usable

        def warn(kind: str, english: str, chinese: str) -> None:
            warnings.append(DataWarning(kind, english, chinese))

        if is_partial:
            warn("partial", f"only the first {staged.rows_in} rows were looked at", f"只看了前 {staged.rows_in} 行")
        elif usable < FEW_ROWS:
            warn(
                "few_rows",
                f"only {usable} usable rows: with fewer than {FEW_ROWS} no honest proof of a gain is possible",
                f"只有 {usable} 行可用：少于 {FEW_ROWS} 行时，无法如实证明有没有提升",
            )
        if staged.dropped.total() * 10 > staged.rows_in:
            reason, count = staged.dropped.most_common(1)[0]
            dropped, first = staged.dropped.total(), self.first_lines.get(reason, 0)
            warn(
                "many_dropped",
                f"{dropped} of {staged.rows_in} rows cannot be used, most often because: {reason} ({count}, first {staged.dataset.stream.unit} {first})",
                f"{staged.rows_in} 行中有 {dropped} 行不能用，最常见的原因：{in_chinese(reason)}（{count} 行，首次在第 {first} 行）",
            )
        num_repeated = staged.num_rows - usable + num_near
        if num_repeated * 3 > max(1, staged.num_rows):
            warn(
                "duplicates",
                f"{num_repeated} of {staged.num_rows} rows repeat an earlier one exactly or nearly",
                f"{staged.num_rows} 行中有 {num_repeated} 行与前面的相同或几乎相同",
            )
        if staged.dataset.makes == "messages" and usable and _lengths(self.completions).p50 < SHORT_ANSWER_CHARS:
            warn(
                "short_answers",
                f"half of the answers have fewer than {SHORT_ANSWER_CHARS} characters; the model will learn to answer that briefly",
                f"一半的回答不到 {SHORT_ANSWER_CHARS} 个字；模型会学着答得这么短",
            )
        if found := {name: count for name, count in self.personal.items() if count}:
            english = ", ".join(f"{name} {count}" for name, count in found.items())
            chinese = "，".join(f"{PERSONAL_NAMES[name]} {count}" for name, count in found.items())
            warn("personal_data", f"rows with what looks like personal data: {english}", f"疑似含个人信息的行：{chinese}")
        return warnings


def language(text: str) -> str:
    """Return `zh`, `en` or `other` by the script of most letters in the first 1,000 characters."""
    head = text[:1000]
    num_letters, num_han, num_latin = len(LETTER.findall(head)), len(HAN.findall(head)), len(LATIN.findall(head))
    # A Chinese character says about as much as three Latin letters.
    if num_han and 3 * num_han >= num_latin and 2 * num_han >= num_letters - num_latin:
        return "zh"
    return "en" if num_latin * 2 > num_letters else "other"


def personal_data(text: str) -> set[str]:
    """Return which kinds of personal data `text` seems to hold; check digits are checked where there are any."""
    found = set()
    if "@" in text and EMAIL.search(text):
        found.add("email")
    if any(_is_id_card(match[0]) for match in ID_CARD.finditer(text)):
        found.add("id_card")
    if any(_is_bank_card(match[0]) for match in BANK_CARD.finditer(text)):
        found.add("bank_card")
    if PHONE.search(text):
        found.add("phone")
    return found


def _is_id_card(number: str) -> bool:
    """Check character of a resident identity card, GB 11643-1999 (ISO 7064 MOD 11-2)."""
    weighed = sum(int(digit) * (1 << (17 - place)) for place, digit in enumerate(number[:17]))
    return "10X98765432"[weighed % 11] == number[17].upper()


def _is_bank_card(number: str) -> bool:
    """Luhn check, ISO/IEC 7812-1."""
    digits = [int(character) for character in reversed(number) if character.isdigit()]
    doubled = (2 * digit - 9 * (digit > 4) if place % 2 else digit for place, digit in enumerate(digits))
    return 15 <= len(digits) <= 19 and sum(doubled) % 10 == 0 and not (len(digits) == 18 and _looks_like_id_card(number))


def _looks_like_id_card(number: str) -> bool:
    return ID_CARD.fullmatch(number) is not None


def _parts(example: Example) -> tuple[str, str, int]:
    """(prompt, completion, number of turns) of an example."""
    if "text" in example:
        return "", example["text"], 0
    turns = [message for message in example["messages"] if message["role"] not in ("system", "developer")]
    if "answer" in example:
        return _joined(turns), example["answer"] or "", len(turns)
    if answer := example.get("chosen", example.get("completion")):
        return _joined(turns), _joined(answer), len(turns) + len(answer)
    return _joined(turns[:-1]), turns[-1]["content"], len(turns)


def _joined(messages: list[Message]) -> str:
    return "\n".join(message["content"] for message in messages)


def _lengths(values: "array[int]") -> Lengths:
    if not values:
        return Lengths(0, 0, 0)
    p50, p95 = np.percentile(np.frombuffer(values, np.int64), [50, 95], method="nearest")
    return Lengths(int(p50), int(p95), max(values))
