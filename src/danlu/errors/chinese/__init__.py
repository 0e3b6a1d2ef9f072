"""Errors in Chinese: what each code means, and each sentence with the values that stand in it.

An error is raised with English sentences and carries nothing else, so that what is stored, logged and sent is one thing. Whoever shows
it in Chinese asks here. A sentence is looked up by its fixed words; what stands between them (`{}`) is a file, a number, a setting and
goes into the Chinese in the same order, or where `{0}`, `{1}` say. What has no entry here (what a library or the operating system
says) is told by the words of the code, and the English stays beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from danlu.errors.base import DanluError
from danlu.errors.chinese import accounts, models, platform, recipes, server, training
from danlu.errors.chinese.codes import CODES

TABLES = (platform.SENTENCES, accounts.SENTENCES, recipes.SENTENCES, training.SENTENCES, models.SENTENCES, server.SENTENCES)
VALUES = {
    "waiting": "等待前置任务", "queued": "排队中", "running": "进行中", "pausing": "正在暂停", "paused": "已暂停", "cancelling": "正在停止",
    "cancelled": "已停止", "succeeded": "已完成", "failed": "失败", "viewer": "查看者", "reviewer": "审阅者", "editor": "编辑者",
    "admin": "管理员", "None": "无", "none": "无", "run": "训练", "job": "任务", "project": "项目", "dataset": "数据集",
    "dataset version": "数据集版本", "model": "模型", "upload": "上传", "user": "用户", "export": "导出", "vote": "投票",
    "rating": "评分", "subscription": "订阅", "objective": "目标", "tuning method": "微调方法", "metric": "指标", "suite": "评测集",
    "reward function": "奖励函数", "dataset format": "数据格式", "exporter": "导出格式", "worker": "工作进程", "studio": "工作室",
    "loss": "损失", "gradient": "梯度",
}  # fmt: skip
"""Words that stand in sentences as values."""
_MISTAKE = re.compile(r"(?P<path>[\w.-]+): (?P<what>.+?)(?: \(given: (?P<given>.*)\))?", re.DOTALL)
"""A line of `danlu.recipe.load`: where, what, and what was given."""
LONGEST_SENTENCE, MOST_LINES = 2_000, 200
"""What is longer stays as it is: values come from files and users, and looking must not take long."""
GIVEN = " (given: "
FEW_LETTERS = 9
"""A sentence with fewer letters of its own (`{} has {}`) is not looked for around other sentences."""
SHORTEST_SENTENCE = 15
"""What is shorter and stands in another sentence is a name, whatever it says."""
_HAN = re.compile("[\u4e00-\u9fff]")
_ENGLISH = re.compile(r"[a-z]+ [a-z]+ [a-z]+")
_PLACE = re.compile(r"\{(\d*)\}")


@dataclass(frozen=True)
class Told:
    """An error in Chinese."""

    title: str
    what: str
    why: str
    fix: str


def told(error: DanluError, also: Callable[[str], str] | None = None) -> Told:
    """Return an error in Chinese; sentences that are not known are replaced by what its code says."""
    code = CODES.get(error.code, CODES["DL000"])

    def say(sentence: str, instead: str) -> str:
        found = in_chinese(sentence, also)
        return found if found != sentence or is_chinese(sentence) else instead

    return Told(code.title, say(error.what, code.title), say(error.why, code.why), say(error.fix, code.fix))


def in_chinese(sentence: str, also: Callable[[str], str] | None = None) -> str:
    """Return a sentence of an error in Chinese, line by line; itself where it is not known.

    `also` translates values that another part of Danlu has the words for.
    """
    if "\n" in sentence:
        lines = sentence.split("\n")
        return "\n".join([*(in_chinese(line, also) for line in lines[:MOST_LINES]), *lines[MOST_LINES:]])
    indent, sentence = sentence[: len(sentence) - len(sentence.lstrip())], sentence.strip()
    if not sentence or len(sentence) > LONGEST_SENTENCE:
        return indent + sentence
    looks = (_mistake, _by_table) if GIVEN in sentence else (_by_table, _mistake)
    return indent + next(filter(None, (look(sentence, also) for look in looks)), sentence)


def is_chinese(text: str) -> bool:
    """Whether a text is Chinese, and not an English sentence about a Chinese name."""
    return _HAN.search(text) is not None and _ENGLISH.search(text) is None


def _by_table(sentence: str, also: Callable[[str], str] | None) -> str | None:
    exact, patterns = _sentences()
    if sentence in exact:
        return exact[sentence]
    for first, last, english, chinese in patterns:
        match = _compiled(english).fullmatch(sentence) if sentence.startswith(first) and sentence.endswith(last) else None
        if match and (len(re.sub("[^a-z]", "", english)) >= FEW_LETTERS or not any(map(_ENGLISH.search, match.groups()))):
            return _filled(chinese, [_value(value, also) for value in match.groups()])
    return None


def _mistake(line: str, also: Callable[[str], str] | None) -> str | None:
    """A mistake in a recipe: `optim.learning_rate: Input should be greater than 0 (given: -1)`."""
    match = _MISTAKE.fullmatch(line)
    what = _by_table(match["what"], also) if match else None
    if match is None or what is None:
        return None
    return f"{match['path']}：{what}" + (f"（现在是 {match['given']}）" if match["given"] is not None else "")


def _value(value: str, also: Callable[[str], str] | None) -> str:
    """What stands in a sentence: a word, a sentence of its own (the mistake that another one tells), or something that stays as it is."""
    found = VALUES.get(value) or (_by_table(value, also) if len(value) >= SHORTEST_SENTENCE else None)
    return found or (also(value) if also is not None else value)


def _filled(chinese: str, values: list[str]) -> str:
    rest = iter(values)
    return _PLACE.sub(lambda place: values[int(place[1])] if place[1] else next(rest), chinese)


@cache
def _sentences() -> tuple[dict[str, str], list[tuple[str, str, str, str]]]:
    """Sentences without values, and (beginning, end, English, Chinese) of those with; the ones with most words of their own first."""
    exact = {english: chinese for english, chinese in _all() if "{}" not in english}
    patterns = [(english.partition("{}")[0], english.rpartition("{}")[2], english, chinese) for english, chinese in _all() if "{}" in english]
    return exact, sorted(patterns, key=lambda pattern: -len(pattern[2]))


def _all() -> Iterator[tuple[str, str]]:
    for table in TABLES:
        yield from table


@cache
def _compiled(english: str) -> re.Pattern[str]:
    return re.compile("(.*?)".join(map(re.escape, english.split("{}"))), re.DOTALL)
