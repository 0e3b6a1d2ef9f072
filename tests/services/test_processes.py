"""`--processes N`: one run, several training processes, one story told."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from danlu.errors import DivergedError, TrainingError, error_from
from danlu.files import read_json, read_jsonl
from danlu.recipe.load import load_recipe
from danlu.recipe.placement import Placement
from danlu.services.runs import run
from models import recipe_values

TWO = Placement(processes=2)


def values(model: Path, rows: Path) -> dict[str, Any]:
    training = {"checkpoint_every_steps": 2}
    return recipe_values(model, rows, evaluation={"suites": [], "metrics": []}, training=training, data={"split": {"validation": 0.1, "test": 0.0}})


def rank_of(pid: str) -> str | None:
    """The RANK of a process; None for one that has none, or is a zombie that an earlier test left."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (ProcessLookupError, FileNotFoundError):
        return None
    return next((found[5:].decode() for found in variables if found.startswith(b"RANK=")), None)


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_jsonl(folder / "metrics.jsonl") if "loss" in line]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_two_processes_make_one_run_that_can_be_killed_in_part(tmp_path: Path, small_model: Path, rows_file: Path) -> None:
    recipe = load_recipe(values=values(small_model, rows_file))
    run(recipe, run_dir=tmp_path / "one")
    heard: list[tuple[str, Any]] = []

    def stop_this_process(kind: str, fields: dict[str, Any]) -> None:
        if (kind, fields.get("step")) == ("metrics", 3):
            os.kill(os.getpid(), signal.SIGTERM)

    def kill_the_second(kind: str, fields: dict[str, Any]) -> None:
        heard.append((kind, fields.get("step")))
        if (kind, fields.get("step")) == ("metrics", 6):
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            [second] = [pid for pid in children if rank_of(pid) == "1"]
            os.kill(int(second), signal.SIGKILL)

    assert run(recipe, run_dir=tmp_path / "two", listeners=[stop_this_process], placement=TWO).outcome == "paused"
    assert 3 <= len(losses(tmp_path / "two")) < 8
    with pytest.raises(TrainingError, match="training process 1 of 2 died") as caught:
        run(recipe, run_dir=tmp_path / "two", listeners=[kill_the_second], placement=TWO)
    assert "signal 9 (SIGKILL)" in caught.value.why and "start the same command again" in caught.value.fix
    assert ("metrics", 6) in heard and ("resumed", 3) in heard
    result = run(recipe, run_dir=tmp_path / "two", placement=TWO)

    assert result.outcome == "finished" and result.report is not None
    assert read_json(tmp_path / "two/run.json")["placement"] == {"processes": 2, "sharding": "auto"}
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-6)
    assert read_json(tmp_path / "two/recipe.json") == read_json(tmp_path / "one/recipe.json")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_torchrun_starts_the_same_run(tmp_path: Path, small_model: Path, rows_file: Path) -> None:
    folder = tmp_path / "run"
    settings = ["optim.max_steps=3", "optim.global_batch_size=4", "evaluation.suites=[]", "--method.rank", "4"]
    command = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2", "-m", "danlu", "run"]
    words = [*command, "--data", str(rows_file), "-m", str(small_model), *settings, "--run-dir", str(folder), "--json"]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}

    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment)

    assert done.returncode == 0, done.stderr
    assert len(losses(folder)) == 3 and read_json(folder / "run.json")["placement"]["processes"] == 2
    assert read_json(folder / "training.json")["num_processes"] == 2
    assert done.stdout.count('"schema_version"') >= 1


def test_an_error_of_a_process_is_raised_as_what_it_was() -> None:
    error = error_from({"code": "DL502", "what": "the loss became nan", "why": "rate", "fix": "lower it"})

    assert type(error) is DivergedError and error.fix == "lower it"
