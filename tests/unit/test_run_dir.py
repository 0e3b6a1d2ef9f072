"""Finding a run, and holding it against other processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from danlu.errors import RunBusyError, RunNotFoundError, StorageError
from danlu.files import write_json
from danlu.run_dir import RunDir


def make(runs: Path, name: str, *, time: int) -> Path:
    write_json(runs / name / "run.json", {"state": "finished"})
    os.utime(runs / name / "run.json", (time, time))
    return runs / name


def test_a_run_is_found_by_id_by_folder_and_as_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    first, second = make(runs, "b-first", time=1000), make(runs, "a-second", time=2000)
    elsewhere = make(tmp_path / "elsewhere", "third", time=3000)
    monkeypatch.chdir(tmp_path)

    assert RunDir.open("b-first", runs).path == first
    assert RunDir.open(str(first), runs).path == first
    assert RunDir.open("elsewhere/third", runs).path == elsewhere
    assert RunDir.open("last", runs).path == second
    assert RunDir.open("last", runs).id == "a-second"


@pytest.mark.parametrize("name", ["nothing", "last", "", ".", "../..", "x" * 5000, "a\0b"])
def test_a_run_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(RunNotFoundError) as caught:
        RunDir.open(name, tmp_path / "runs")

    assert caught.value.why == f"{tmp_path / 'runs'} holds no runs"


def test_an_unknown_name_is_answered_with_the_names_there_are(tmp_path: Path) -> None:
    make(tmp_path, "one", time=1)

    with pytest.raises(RunNotFoundError, match="one"):
        RunDir.open("two", tmp_path)


def test_a_folder_cannot_be_made_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(StorageError, match="cannot write"):
            RunDir.create(path)


def test_changes_of_the_record_are_merged(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "a" / "b")
    assert run.read_record() == {}

    run.update_record(state="running", timing={"data_seconds": 1})
    run.update_record(state="finished")

    assert run.read_record() == {"state": "finished", "timing": {"data_seconds": 1}}


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(b'{"state": "fin')

    with pytest.raises(StorageError, match="run.json"):
        RunDir(tmp_path).read_record()


HOLD = """
import sys
from pathlib import Path
from danlu.run_dir import RunDir
with RunDir(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_is_held_by_one_process_until_it_dies(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run")
    with subprocess.Popen([sys.executable, "-c", HOLD, run.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"

        with pytest.raises(RunBusyError, match=f"in use by process {other.pid}"), run.lock():
            pass
        other.kill()
        other.wait()

    with run.lock(), pytest.raises(RunBusyError, match=f"in use by process {os.getpid()}"), run.lock():
        pass
    with run.lock():
        pass
