"""A sweep: several members, losers left at rungs, a table, and the best one as a proved run."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from danlu.errors import NoEffectError, RecipeError
from danlu.files import read_json
from danlu.recipe.load import load_recipe
from danlu.recipe.sweep import SweepConfig
from danlu.services.sweeps import sweep
from models import recipe_values


def recipe(model: Path, rows: Path, **values: Any) -> Any:
    evaluation = {"suites": ["heldout"], "metrics": []}
    optim = {"max_steps": 8, "global_batch_size": 4, "learning_rate": 0.003}
    few = recipe_values(model, rows, evaluation=evaluation, optim=optim, training={"validate_every_steps": 2, "checkpoint_every_steps": 2})
    return load_recipe(values=few | values)


def test_the_members_of_a_sweep_are_ranked_and_the_best_is_proved(tmp_path: Path, small_model: Path, rows_file: Path) -> None:
    told: list[tuple[str, str]] = []
    config = SweepConfig(set={"method.rank": [2, 4], "optim.learning_rate": ["1e-5", 0.01]}, rungs=2)
    stopped: list[int] = []
    seen: list[tuple[str, list[str]]] = []

    def stop_once(member: str, kind: str, fields: dict[str, Any]) -> None:
        told.append((member, kind))
        if kind == "rung":
            kept = read_json(tmp_path / "sweep/results.json")
            seen.append((kept["state"], sorted(row["state"] for row in kept["members"])))
        if kind == "metrics" and fields["step"] == 5 and not stopped:
            stopped.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)  # the main thread takes the signal meanwhile

    first = sweep(recipe(small_model, rows_file), config, folder=tmp_path / "sweep", tell=stop_once)
    assert first.outcome == "paused" and len(first.table) == 4
    result = sweep(recipe(small_model, rows_file), config, folder=tmp_path / "sweep", tell=stop_once)

    assert result.outcome == "finished" and result.best is not None
    states = [(row["rank"], row["state"], row["note"]) for row in result.table]
    assert states[0][1] == "trained" and [state for _, state, _ in states].count("left") == 3
    assert sorted(note for _, state, note in states if state == "left") == ["rung 1", "rung 1", "rung 2"]
    assert result.table[0]["settings"]["optim.learning_rate"] == 0.01
    assert read_json(tmp_path / "sweep/results.json")["best"] == result.best.name
    record = read_json(result.best / "run.json")
    assert record["state"] == "finished" and (result.best / "report.html").exists() and (result.best / "adapter/adapter_model.safetensors").exists()
    assert read_json(result.best / "report.json")["verdict"]["label"] in ("improved", "no_difference", "regressed")
    assert ("", "rung") in told
    assert seen[-1] == ("running", ["left", "left", "left", "training"])
    again = sweep(recipe(small_model, rows_file), config, folder=tmp_path / "sweep")
    assert again.table == result.table
    with pytest.raises(NoEffectError, match="belongs to another sweep"):
        sweep(recipe(small_model, rows_file), config.model_copy(update={"keep": 0.3}), folder=tmp_path / "sweep")


def test_optuna_chooses_members_and_goes_on_where_it_was(tmp_path: Path, small_model: Path, rows_file: Path) -> None:
    config = SweepConfig(trials=5, space={"optim.learning_rate": "1e-4..1e-2:log", "method.rank": "2|4"}, rungs=0)
    stopped: list[int] = []

    def stop_once(member: str, kind: str, fields: dict[str, Any]) -> None:
        if kind == "metrics" and fields["step"] == 3 and not stopped:
            stopped.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)  # the main thread takes the signal meanwhile

    written = recipe(small_model, rows_file, evaluation={"suites": [], "metrics": []})
    assert sweep(written, config, folder=tmp_path / "sweep", tell=stop_once).outcome == "paused"
    result = sweep(written, config, folder=tmp_path / "sweep")

    assert result.outcome == "finished" and [row["state"] for row in result.table] == ["trained"] * 5
    losses = [row["validation_loss"] for row in result.table]
    assert losses == sorted(losses)
    assert all(1e-4 <= row["settings"]["optim.learning_rate"] <= 1e-2 and row["settings"]["method.rank"] in (2, 4) for row in result.table)


def test_members_that_cannot_share_a_pass_are_trained_one_after_another(tmp_path: Path, small_model: Path, rows_file: Path) -> None:
    written = recipe(small_model, rows_file, evaluation={"suites": [], "metrics": []})
    config = SweepConfig(set={"method.dropout": [0.0, 0.2], "seed": [0, 1]}, rungs=1)

    result = sweep(written, config, folder=tmp_path / "sweep")

    assert result.outcome == "finished"
    assert sorted(row["state"] for row in result.table) == ["left", "left", "trained", "trained"]
    assert all(row["steps"] in (4, 8) for row in result.table)


def test_a_sweep_without_validation_rows_or_with_a_bad_value_is_refused(tmp_path: Path, small_model: Path, rows_file: Path) -> None:
    without = recipe(small_model, rows_file, data={"split": {"validation": 0.0}})
    with pytest.raises(NoEffectError, match="needs validation rows"):
        sweep(without, SweepConfig(set={"seed": [0, 1]}), folder=tmp_path / "sweep")
    with pytest.raises(RecipeError, match=r"method\.rank"):
        sweep(recipe(small_model, rows_file), SweepConfig(set={"method.rank": [4, 0]}), folder=tmp_path / "other")
    assert not (tmp_path / "other").exists()
