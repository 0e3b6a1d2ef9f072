"""Many rows are tokenised while training goes on, by a process that nothing depends on."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from danlu.data import tokenise as stage
from danlu.files import read_json, read_jsonl
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
