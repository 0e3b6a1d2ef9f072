"""The data doctor's findings on small files."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from danlu.data.inspect import Lengths, inspect, language, personal_data
from danlu.errors import UnknownNameError


def write(path: Path, *rows: Any) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def test_findings_of_a_small_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        {"prompt": "你叫什么名字？", "completion": "我叫丹炉。"},
        {"prompt": "你叫什么名字？", "completion": "我叫丹炉。"},
        {"prompt": "Where is my order?", "completion": "Please write to help@example.com</s>"},
        {"prompt": "empty", "completion": ""},
        {"prompt": "电话？", "completion": "13812345678"},
    )

    found = inspect(path).to_dict()

    assert {key: found[key] for key in ("format", "makes", "container", "rows_in", "usable", "dropped", "duplicate", "near_duplicate", "fixed")} == {
        "format": "prompt_completion",
        "makes": "messages",
        "container": "jsonl",
        "rows_in": 5,
        "usable": 3,
        "dropped": 1,
        "duplicate": 1,
        "near_duplicate": 0,
        "fixed": 1,
    }
    assert found["reasons"] == {"dropped": {"empty answer": 1}, "fixed": {"special tokens removed": 1}}
    assert found["first_lines"] == {"special tokens removed": 3, "empty answer": 4}
    assert found["prompt_chars"] == {"p50": 7, "p95": 18, "max": 18}
    assert found["turns"] == {"p50": 2, "p95": 2, "max": 2}
    assert found["languages"] == {"zh": 0.667, "en": 0.333, "other": 0.0}
    assert found["personal_data"] == {"phone": 1, "id_card": 0, "email": 1, "bank_card": 0}
    assert [warning["kind"] for warning in found["warnings"]] == ["few_rows", "many_dropped", "personal_data"]
    assert [example["line"] for example in found["examples"]] == [1, 3, 5]
    assert orjson.loads(orjson.dumps(found)) == found


def test_a_limit_and_a_format_can_be_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *({"text": f"问：第{n}题\n答：第{n}个"} for n in range(20)))

    found = inspect(path, format="text", limit=7)

    assert (found.format, found.rows_in, found.completion_chars) == ("text", 7, Lengths(11, 11, 11))
    assert inspect(path).format == "qa_text"
    with pytest.raises(UnknownNameError):
        inspect(path, format="alpacca")


def test_repetition_and_short_answers_are_warned_of(tmp_path: Path) -> None:
    rows = [{"prompt": f"question number {n} about the weather in the mountains", "completion": "yes"} for n in range(100)]

    found = inspect(write(tmp_path / "a.jsonl", *rows, *rows))

    assert {"duplicates", "short_answers"} <= {warning.kind for warning in found.warnings}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("你好，世界", "zh"),
        ("Hello world", "en"),
        ("用 Python 写一个 Hello World 程序，并且解释每一行代码", "zh"),
        ("こんにちは、げんきですか", "other"),
        ("Привет", "other"),
        ("123", "other"),
        ("", "other"),
    ],
)
def test_language_is_told_by_script(text: str, expected: str) -> None:
    assert language(text) == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("call 138-1234-5678 now", {"phone"}),
        ("+86 13812345678", {"phone"}),
        ("+44 20 7946 0958", {"phone"}),
        ("身份证 11010519491231002X。", {"id_card"}),
        ("身份证 110105194912310021", set()),
        ("卡号 4111 1111 1111 1111", {"bank_card"}),
        ("卡号 4111 1111 1111 1112", set()),
        ("mail me: someone.else@mail.example.org", {"email"}),
        ("order 20231231, price 12345.678901234, @home", set()),
    ],
)
def test_personal_data_is_told_by_pattern_and_check_digit(text: str, found: set[str]) -> None:
    assert personal_data(text) == found
