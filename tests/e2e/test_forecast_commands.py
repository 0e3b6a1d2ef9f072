"""danlu forecast and danlu recommend as a person and as a script use them."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from danlu.cli.main import main


def danlu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object, language: str = "en") -> tuple[int, str, str]:
    monkeypatch.setenv("DANLU_LANG", language)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["danlu", *map(str, words)])
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    capsys.readouterr()
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    return code, captured.out, captured.err


def test_a_forecast_needs_no_torch(rows_file: Path) -> None:
    code = "import sys; sys.argv = ['danlu', 'forecast', sys.argv[1], '--json']; from danlu.cli.main import main\nmain()\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code, str(rows_file)], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["forecast"]
    assert found["fit"] == "fits" and found["num_steps"] > 0 and found["memory"]["weights_bytes"] > 20_000_000


@pytest.mark.parametrize(
    ("language", "shown"),
    [("en", ("base model weights", "shortened examples", "too big", "What would fit")), ("zh", ("基座模型权重", "被截短的样例", "放不下", "放得下的做法"))],
)
def test_a_forecast_says_what_is_too_big_and_what_would_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], language: str, shown: tuple[str, ...]
) -> None:
    words: list[Any] = ["forecast", "danlu/zhangjiajie", "--optim.micro_batch_tokens", "16384", "--optim.global_batch_size", "128", "--memory-gib", "1.15"]
    code, out, _ = danlu(monkeypatch, capsys, *words, language=language)

    assert code == 0
    assert [text for text in shown if text not in out] == []
    assert "optim.micro_batch_tokens=" in out


def test_a_recommendation_is_a_recipe_that_validates(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rows_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "doors.yaml"
    code, out, _ = danlu(monkeypatch, capsys, "recommend", rows_file, "--goal", "style", "--write", file)
    checked, _, error = danlu(monkeypatch, capsys, "recipe", "check", file)

    assert code == 0 and f"danlu run {file}" in out and "schulman2025" in out
    assert checked == 0, error


def test_an_unknown_goal_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rows_file: Path) -> None:
    code, _, error = danlu(monkeypatch, capsys, "recommend", rows_file, "--goal", "wisdom")

    assert code == 2 and "unknown goal 'wisdom'" in error and "style, knowledge, task, reasoning" in error
