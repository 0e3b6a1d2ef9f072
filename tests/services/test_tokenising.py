"""Many rows are tokenised while training goes on, by a process that nothing depends on."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from danlu.data import tokenise as stage
from danlu.files import read_json, read_jsonl
from danlu.models import headroom
from danlu.recipe.load import load_recipe
from danlu.recipe.recipe import Recipe
from danlu.run_dir import RunDir
from danlu.services.runs import run
from models import recipe_values

FILES = ("train.tokens/ids.bin", "train.tokens/mask.bin", "train.tokens/offsets.npy", "validation.tokens/ids.bin", "test.tokens/ids.bin")


@pytest.fixture
def values(small_model: Path, rows_file: Path) -> dict[str, Any]:
    return recipe_values(small_model, rows_file, evaluation={"suites": [], "metrics": []}, training={"checkpoint_every_steps": 2})


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty rows are many."""
    monkeypatch.setattr(stage, "MAX_AT_ONCE", 20)
    monkeypatch.setattr(stage, "SAMPLE", 10)


def losses(folder: Path) -> list[float | None]:
    return [line.get("loss", line.get("validation_loss")) for line in read_jsonl(folder / "metrics.jsonl")]


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def same(one: Path, other: Path) -> None:
    assert losses(one) == losses(other)
    assert all((one / "data" / name).read_bytes() == (other / "data" / name).read_bytes() for name in FILES)
    assert (one / "data/tokenised.jsonl").read_bytes() == (other / "data/tokenised.jsonl").read_bytes()
    assert read_json(one / "data/encoded.json") == read_json(other / "data/encoded.json") == read_json(other / "report.json")["encoded"]
    assert not list((other / "data").glob("sample*"))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_a_run_that_tokenises_meanwhile_ends_as_one_that_did_so_before(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    recipe = load_recipe(values=values)
    run(recipe, run_dir=tmp_path / "before")
    request.getfixturevalue("few")
    others = children()
    meanwhile: list[tuple[bool, dict[str, Any]]] = []

    def stop_after_three(kind: str, fields: dict[str, Any]) -> None:
        if kind == "metrics" and fields["step"] == 1 and "loss" in fields:
            meanwhile.append((stage.has_sample(RunDir(tmp_path / "later")), stage.train_counts(RunDir(tmp_path / "later"))))
        if kind == "metrics" and fields["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    assert run(recipe, run_dir=tmp_path / "later", listeners=[stop_after_three]).outcome == "paused"
    assert children() <= others and stage.has_sample(RunDir(tmp_path / "later"))
    assert run(recipe, run_dir=tmp_path / "later").outcome == "finished"

    same(tmp_path / "before", tmp_path / "later")
    [(was_left_for_later, counts)] = meanwhile
    assert was_left_for_later and counts["num_examples"] == read_json(tmp_path / "later/data/encoded.json")["train"]["num_examples"]
    forecasts = [read_json(tmp_path / name / "run.json")["forecast"] for name in ("before", "later")]
    assert forecasts[0]["num_examples"] == forecasts[1]["num_examples"] and forecasts[0]["num_steps"] == forecasts[1]["num_steps"]

    # Without the second process the run does its work at the end.
    monkeypatch.setattr(sys, "executable", "/bin/false")
    run(recipe, run_dir=tmp_path / "alone")
    same(tmp_path / "before", tmp_path / "alone")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
@pytest.mark.usefixtures("few")
def test_a_run_outlives_the_process_that_tokenises_and_does_not_take_its_end_for_its_own(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out: the kernel takes the second process, and its count of such kills rises."""
    recipe, others, kills = load_recipe(values=values), children(), [3]
    mark, found = tmp_path / "killed" / headroom.MARK, list[int | None]()
    monkeypatch.setattr(headroom, "num_memory_kills", lambda: kills[0])

    def kill_it(kind: str, fields: dict[str, Any]) -> None:
        if kind == "metrics" and fields["step"] == 1 and "loss" in fields:
            [second] = [int(pid) for pid in children() if pid not in others]
            os.kill(second, signal.SIGKILL)
            kills[0] += 1
            found.append(headroom.killed_at(mark))
            os.waitid(os.P_PID, second, os.WEXITED | os.WNOWAIT)
        if kind == "metrics" and fields["step"] == 4 and "loss" in fields:
            found.append(headroom.killed_at(mark))

    assert run(recipe, run_dir=tmp_path / "killed", listeners=[kill_it]).outcome == "finished"

    told = [event for event in read_jsonl(tmp_path / "killed/events.jsonl") if event["kind"] == "tokenising_ended"]
    assert [event["code"] for event in told] == [-signal.SIGKILL] and "tokenised when training is over" in told[0]["message"]
    assert found[0] is not None and found[1] is None
    run(recipe, run_dir=tmp_path / "whole")
    same(tmp_path / "whole", tmp_path / "killed")


TORCHRUN = """
from danlu.data import tokenise
tokenise.MAX_AT_ONCE, tokenise.SAMPLE = 20, 10
from danlu.cli.main import main
main()
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_processes_of_torchrun_tokenise_for_themselves_and_learn_what_one_does(
    tmp_path: Path, values: dict[str, Any], small_model: Path, rows_file: Path
) -> None:
    program, folder = tmp_path / "program.py", tmp_path / "two"
    program.write_text(TORCHRUN)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(load_recipe(values=values).to_dict()))
    words = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", str(free_port()), str(program)]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}

    done = subprocess.run([sys.executable, *words, "run", str(recipe), "--run-dir", str(folder)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    run(load_recipe([recipe]), run_dir=tmp_path / "one")

    assert (folder / "tokenising.log").exists() and read_json(folder / "training.json")["num_processes"] == 2
    assert losses(folder) == pytest.approx(losses(tmp_path / "one"), rel=1e-6)
    assert all((folder / "data" / name).read_bytes() == (tmp_path / "one/data" / name).read_bytes() for name in FILES)


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize(
    ("objective", "later"), [("sft", True), ("orpo", True), ("simpo", True), ("reward", True), ("pretrain", False), ("dpo", False), ("kto", False)]
)
def test_only_what_is_asked_for_step_by_step_can_wait(objective: str, later: bool) -> None:
    assert stage.can_wait(Recipe.model_validate({"base_model": "b", "dataset": "d", "objective": objective})) is later


@pytest.mark.usefixtures("few")
def test_where_much_is_dropped_all_is_tokenised_before_training(tmp_path: Path, values: dict[str, Any], rows_file: Path) -> None:
    text = rows_file.read_text("utf-8")
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("".join(line.replace(" is ", " is " + "very " * 60) if n % 4 == 0 else line for n, line in enumerate(text.splitlines(keepends=True))))
    recipe = load_recipe(values=values | {"dataset": str(mixed), "data": {"max_seq_len": 48}})

    result = run(recipe, run_dir=tmp_path / "run")

    assert result.report is not None and result.report["encoded"]["train"]["dropped"] > 5
    assert not (tmp_path / "run/tokenising.log").exists()
    assert all(event["kind"] != "empty_step" for event in read_jsonl(tmp_path / "run/events.jsonl"))
