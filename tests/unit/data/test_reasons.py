"""Reasons: every one in the source has its Chinese, and their number is bounded."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import danlu.data
from danlu.data.reasons import CHINESE, MAX_KINDS, OTHER, count_reasons, in_chinese

SOURCES = Path(danlu.data.__file__).parent


def reasons_in(source: str) -> Iterator[str]:
    """Texts given to RowError, Unreadable, _add, _entry, or named as a fix, with 7 in place of what is filled in."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func).split(".")[-1]) in ("RowError", "Unreadable", "_add", "append", "_entry", "_drop"):
            texts = (
                node.args
                if name in ("RowError", "Unreadable")
                else node.args[1:]
                if name != "append"
                else node.args
                if "fixes" in ast.unparse(node.func)
                else []
            )
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("fix", "reason"):
            texts = [node.value]
        else:
            continue
        for text in texts:
            if isinstance(text, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "'7'" if part.conversion == 114 else "7" for part in text.values]
                yield "".join(str(part) for part in parts)
            elif isinstance(text, ast.Constant) and isinstance(text.value, str) and " " in text.value:
                yield text.value


def test_every_reason_in_the_source_has_its_chinese() -> None:
    found = [reason for path in SOURCES.rglob("*.py") if path.name != "encode.py" for reason in reasons_in(path.read_text(encoding="utf-8"))]

    assert len(found) > 50
    assert [reason for reason in found if in_chinese(reason) == reason and reason != "7 kept as text"] == []


def test_what_is_filled_in_is_kept() -> None:
    assert in_chinese("unknown role 'narrator'") == "未知的角色 narrator"
    assert in_chinese("line ends made \\n") == "换行统一为 \\n"
    assert in_chinese("not JSON: unexpected end") == "不是 JSON: unexpected end"
    assert in_chinese("not JSON") == "不是 JSON"
    assert in_chinese("the answer alone is longer than 64 tokens") == "仅回答就超过 64 个词元"
    assert in_chinese("longer than 64 tokens") == "超过 64 个词元"
    assert in_chinese("no token to train on") == "没有参与训练的词元"
    assert in_chinese("the chat template refuses it: no system role") == "对话模板拒绝：no system role"
    assert in_chinese("shortened to 64 tokens: 2 oldest messages and 0 characters of the prompt removed").startswith("截短到 64 个词元")
    assert in_chinese("a plug-in's own reason") == "a plug-in's own reason"


def test_every_pattern_is_of_use() -> None:
    assert len({pattern for pattern, _ in CHINESE}) == len(CHINESE)


def test_a_million_different_reasons_are_counted_in_bounded_space() -> None:
    counter: Counter[str] = Counter()
    count_reasons(counter, (f"not JSON: unexpected end: line 1 column {n}" for n in range(1000)))
    count_reasons(counter, (f"unknown role '{n}'" for n in range(1000)))

    assert counter["not JSON"] == 1000
    assert len(counter) == MAX_KINDS + 1 and counter.total() == 2000
    assert counter[OTHER] == 1000 - (MAX_KINDS - 1)
