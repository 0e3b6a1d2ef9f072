"""The best step told by something else than the loss: a metric of generated text, or a number of the objective."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from danlu.errors import NoEffectError
from danlu.files import read_json, read_jsonl
from danlu.recipe.base import METRICS
from danlu.recipe.load import load_recipe
from danlu.recipe.placement import Placement
from danlu.recipe.sweep import SweepConfig
from danlu.reporter import Reporter
from danlu.run_dir import RunDir
from danlu.services import pipeline
from danlu.services.runs import run
from danlu.services.selection import scorer
from danlu.services.sweeps import sweep
from models import recipe_values
from rows import write_rows

QUICK: dict[str, Any] = {"suites": [], "max_new_tokens": 4}


def trained(folder: Path, model: Path, rows: Path, best_by: str, **values: Any) -> RunDir:
    training = {"best_by": best_by, "validate_every_steps": 2, "early_stopping_patience": None}
    return run(load_recipe(values=recipe_values(model, rows, training=training, evaluation=QUICK, **values)), run_dir=folder).run_dir


def best_of(run_dir: RunDir, name: str) -> int:
    values = [(-row[f"validation_{name}"], row["step"]) for row in read_jsonl(run_dir.metrics) if "validation_loss" in row]
    assert len(values) == 4
    return min(values)[1]


def test_the_kept_weights_are_those_whose_answers_score_best(tmp_path: Path, small_model: Path, rows_file: Path) -> None:
    run_dir = trained(tmp_path / "run", small_model, rows_file, "chrf")

    kept = read_json(run_dir.path / "training.json")["kept_step"]
    assert kept == best_of(run_dir, "chrf")
    recipe = pipeline.resolved(run_dir)
    stored = next(row["validation_chrf"] for row in read_jsonl(run_dir.metrics) if row["step"] == kept and "validation_chrf" in row)
    with pipeline.open_pair(run_dir, recipe, small_model).tuned() as model:
        assert scorer(recipe, run_dir, small_model)(model) == pytest.approx(stored)
    with pytest.raises(NoEffectError, match="cannot be measured while several processes train"):
        (run_dir.path / "training.json").unlink()
        pipeline.carry_out(recipe, run_dir, Reporter(run_dir), Placement(processes=2))


def test_pairs_may_be_judged_by_how_many_are_told_right(tmp_path: Path, small_model: Path) -> None:
    run_dir = trained(tmp_path / "run", small_model, write_rows(tmp_path / "rows.jsonl", "preference", 60), "reward_margin", objective={"type": "dpo"})

    kept = read_json(run_dir.path / "training.json")["kept_step"]
    assert kept == best_of(run_dir, "reward_margin")
    if kept != 8:
        assert any("its validation reward_margin was the best" in event["message"] for event in read_jsonl(run_dir.events))


def test_what_cannot_be_scored_or_ranked_so_is_refused(tmp_path: Path, small_model: Path, rows_file: Path) -> None:
    recipe = load_recipe(values=recipe_values(small_model, rows_file, training={"best_by": "rouge_l"}, data={"max_seq_len": 64}))
    run_dir = RunDir.create(tmp_path / "empty")
    run_dir.data.mkdir()
    call = {"role": "assistant", "content": "", "tool_calls": []}
    (run_dir.data / "validation.jsonl").write_bytes(orjson.dumps({"messages": [{"role": "user", "content": "a"}, call]}) + b"\n")

    with pytest.raises(NoEffectError, match="has nothing to score"):
        scorer(recipe, run_dir, small_model)
    with pytest.raises(NoEffectError, match=r"cannot go by training\.best_by rouge_l"):
        sweep(recipe, SweepConfig(set={"seed": [0, 1]}), folder=tmp_path / "sweep")


def test_every_metric_can_tell_the_best_step() -> None:
    for name in METRICS:
        assert load_recipe(values={"base_model": "b", "dataset": "d", "training": {"best_by": name}}).scores_answers
