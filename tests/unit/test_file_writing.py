"""Files appear whole or not at all, and what the operating system refuses is told."""

import errno
import os
from pathlib import Path

import orjson
import pytest

from danlu import files
from danlu.errors import StorageError
from danlu.files import atomic_open, read_json, read_jsonl, write_json, write_text
from danlu.reporter import Reporter, truncate_metrics
from danlu.run_dir import RunDir
from danlu.text import printable


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    with pytest.raises(KeyError), atomic_open(path) as file:
        file.write(b"half of it")
        raise KeyError("x")

    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_step_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(files.os, step, fail)
        with pytest.raises(StorageError) as caught:
            write_text(path, "new")

    assert caught.value.why == "No space left on device" and "free some disk space" in caught.value.fix
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, small_file_limit: None) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    with pytest.raises(StorageError, match="cannot write"):
        write_text(path, "x" * 100_000)

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageError, match="cannot write"):
        write_json(tmp_path / "file" / "a.json", 1)


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b" / "c.json", {"x": float("nan")})

    assert read_json(tmp_path / "a" / "b" / "c.json") == {"x": None}


def test_a_last_line_that_a_crash_cut_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"ste')

    assert list(read_jsonl(path)) == [{"step": 1}, {"step": 2}]
    assert list(read_jsonl(tmp_path / "none.jsonl")) == []


def test_metrics_go_on_after_the_step_that_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"step": 2, "validation_loss": 1}\n{"step": 3}\n{"ste')

    truncate_metrics(path, after_step=2)

    assert list(read_jsonl(path)) == [{"step": 1}, {"step": 2}, {"step": 2, "validation_loss": 1}]
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_costs_whole_lines_and_is_heard(tmp_path: Path, small_file_limit: None) -> None:
    heard: list[str] = []
    reporter = Reporter(RunDir(tmp_path), lambda kind, fields: heard.append(kind))
    for step in range(100):
        reporter.metrics(step=step, padding="x" * 100)

    lines = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    assert 10 < len(lines) < 40
    assert [orjson.loads(line)["step"] for line in lines] == list(range(len(lines)))
    assert lines[-1].endswith(b"\n")
    assert heard.count("alarm") == 100 - len(lines) and heard.count("metrics") == 100


def test_what_is_printed_cannot_steer_a_terminal() -> None:
    assert printable("\x1b[31mred\x07\u202e\r") == "\\x1b[31mred\\x07\\x202e\\x0d"
    assert printable("\u3000段落\u3000开头\u00a0好\n\tx") == "\u3000段落\u3000开头\u00a0好\n\tx"


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    for name in (f".a.json.{pid}.tmp", f".b.json.{os.getpid()}.tmp", ".step-000004.tmp", "c.json"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).touch()

    files.sweep(tmp_path)

    assert {path.name for path in (tmp_path / "data").iterdir()} == {f".b.json.{os.getpid()}.tmp", ".step-000004.tmp", "c.json"}
