"""What the command line says in Chinese."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from danlu.cli import chinese, demo, live, summary
from danlu.cli.doctor import figures_in_chinese
from danlu.cli.main import _show as show_error
from danlu.cli.main import app
from danlu.cli.sections import SECTIONS
from danlu.cli.tables import fitting
from danlu.errors import DanluError, RunNotFoundError, StorageError

PACKAGE = Path(live.__file__).parents[1]


def test_every_sentence_of_a_stage_is_known_in_chinese() -> None:
    """Each event with a fixed sentence in the code matches a pattern once its fields are filled in."""
    sources = [path.read_text("utf-8") for folder in ("training", "services", "data", "evaluation") for path in (PACKAGE / folder).rglob("*.py")]
    sentences = [found[1] for source in sources for found in re.findall(r'\.event\(\s*"(\w+)",\s*f?"((?:[^"\\]|\\.)+)"', source)]

    assert len(sentences) >= 8
    recommended = "{reason.path} = {reason.value}: {reason.en}"  # carries its own Chinese
    sample = "{_short(first['prompt'])} -> {_short(first['text'])}"  # the user's and the model's words
    for sentence in sentences:
        filled = re.sub(r"\{[^}]*\}", "7", sentence)
        if sentence not in (recommended, sample, "{name} begins"):
            assert chinese.in_chinese(filled) != filled, sentence


def test_an_unknown_sentence_is_shown_as_it_is() -> None:
    assert chinese.in_chinese("a plugin says hello") == "a plugin says hello"


@pytest.mark.parametrize(("language", "expected"), [("en", "  no better validation loss for 3 validations"), ("zh", "  连续 3 次验证没有改善，提前停止")])
def test_an_event_is_told_in_the_language_of_the_person(language: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_LANG", language)

    assert live.event_line("early_stop", {"message": "no better validation loss for 3 validations"}) == expected


@pytest.mark.parametrize(
    ("language", "expected"), [("en", "10 in the file, 8 used, 2 dropped, 1 shortened to fit"), ("zh", "文件中 10 行，使用 8，丢弃 2，截短 1")]
)
def test_rows_are_counted_in_words(language: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_LANG", language)

    assert summary._rows({"rows_in": 10, "used": 8, "dropped": 2, "duplicate": 0, "truncated": 1}) == expected


def test_the_first_page_names_every_command_once_and_in_both_languages() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group
    shown = [name for section in SECTIONS.values() for name in section]

    assert sorted(shown) == sorted(commands)
    for english, chinese_ in [*SECTIONS, *(label for section in SECTIONS.values() for label in section.values())]:
        assert len(english) <= 62 and english.isascii() and re.search("[\u4e00-\u9fff]", chinese_), english


@pytest.mark.parametrize(("language", "expected"), [("en", "Begin here:"), ("zh", "从这里开始:")])
def test_the_first_page_is_in_the_language_of_the_person(language: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_LANG", language)

    assert expected in CliRunner().invoke(app, ["--help"]).output


@pytest.mark.parametrize(
    ("language", "error", "said"),
    [
        (
            "en",
            RunNotFoundError("no run 'x'", why="/r holds no runs", fix="danlu runs"),
            "error DL701: no run 'x'\n  why: /r holds no runs\n  fix: danlu runs\n",
        ),
        (
            "zh",
            RunNotFoundError("no run 'x'", why="/r holds no runs", fix="danlu runs"),
            "错误 DL701：没有训练 'x'\n  原因：/r 里没有训练\n  解决：执行：danlu runs\n",
        ),
        ("zh", StorageError("cannot write a", why="Input/output error", fix="check the disk"), "  原文：DL700: cannot write a\n    why: Input/output error\n"),
    ],
)
def test_an_error_is_told_in_the_language_of_the_person(language: str, error: DanluError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("DANLU_LANG", language)
    monkeypatch.delenv("DANLU_DEBUG", raising=False)

    assert show_error(error) == error.exit_code
    assert said in capsys.readouterr().err


def test_the_figures_of_the_doctor_have_no_english_between_them() -> None:
    assert figures_in_chinese("21.1 of 23.5 GiB free") == "可用 21.1 GiB，共 23.5 GiB"
    assert figures_in_chinese("2.13.0+cpu, 2 threads") == "2.13.0+cpu，2 个线程"


def test_a_table_leaves_out_columns_on_the_right_rather_than_fold_ids() -> None:
    widths = {"id": 30, "state": 9, "kind": 5, "priority": 8, "run_id": 30, "created_at": 19}

    assert fitting(widths, 200) == list(widths)
    assert fitting(widths, 80) == ["id", "state", "kind", "priority"]
    assert fitting(widths, 20) == ["id", "state"]


@pytest.mark.parametrize("is_on_path", [False, True])
def test_the_demo_ends_with_commands_that_this_terminal_knows(is_on_path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("activate", *(["danlu"] if is_on_path else [])):
        (tmp_path / "bin" / name).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))

    demo.show_next("run-1")

    said = capsys.readouterr().out
    assert (f"source {tmp_path}/bin/activate" in said, "danlu studio" in said, "danlu chat run-1" in said) == (not is_on_path, True, True)
