"""One more round on new data: from the weights of the run before, with its rows, and never on what any round held out."""

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from safetensors.torch import load_file

from danlu.errors import ModelError, NoEffectError, RecipeError, RunNotFoundError
from danlu.files import read_json, read_jsonl
from danlu.recipe.load import load_recipe
from danlu.services.rounds import next_recipe
from danlu.services.runs import run
from models import recipe_values, write_model


@pytest.fixture(scope="module")
def first(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("rounds") / "first"))


@pytest.fixture
def new_rows(tmp_path: Path, first: Path) -> Path:
    """30 new rows, and three that the first round held out (one of them nearly)."""
    rows: list[dict[str, str]] = [{"instruction": f"How high is tower {n}?", "output": f"Tower {n} is {n * 7} metres high."} for n in range(30)]
    held_out = [row["messages"] for row in read_jsonl(first / "data/test.jsonl")][:2] + [
        row["messages"] for row in read_jsonl(first / "data/validation.jsonl")
    ][:1]
    rows += [{"instruction": messages[0]["content"], "output": messages[1]["content"]} for messages in held_out]
    path = tmp_path / "towers.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    return path


def contents(path: Path) -> set[str]:
    return {orjson.dumps(row["messages"]).decode() for row in read_jsonl(path)}


def test_a_round_goes_on_replays_and_is_compared_with_the_round_before(tmp_path: Path, first: Path, new_rows: Path) -> None:
    recipe = next_recipe(str(first), dataset=str(new_rows), replay=0.5, overrides=["optim.max_steps=6", "evaluation.metrics=[]"])

    result = run(recipe, run_dir=tmp_path / "second")

    assert result.outcome == "finished" and result.report is not None
    second = tmp_path / "second"
    trained = contents(second / "data/train.jsonl")
    held_out = contents(first / "data/test.jsonl") | contents(first / "data/validation.jsonl")
    assert held_out and not trained & held_out
    assert not contents(second / "data/test.jsonl") & held_out
    accounting = read_json(second / "data/accounting.json")
    assert accounting["reasons"]["dropped"]["held out by an earlier round"] == 3
    replayed = [row for row in read_jsonl(second / "data/train.jsonl") if row.get("source") == "replay"]
    assert len(replayed) == accounting["mix"]["replay"]["added"] == round(0.5 * accounting["splits"]["train"])
    assert {orjson.dumps(row["messages"]).decode() for row in replayed} <= contents(first / "data/train.jsonl")
    rounds = result.report["rounds"]
    assert set(rounds) == {"this round", "first"}
    assert rounds["first"]["label"] in ("kept", "slightly_worse", "forgotten") and rounds["this round"]["label"] in ("improved", "no_difference", "regressed")
    previous = read_json(first / "evaluation/heldout.json")
    own = read_json(second / "evaluation/rounds.json")["rounds"]["first"]
    assert own["nats"]["previous"] == pytest.approx(previous["nats"]["tuned"], rel=1e-5)
    assert "rows of first" in (second / "report.html").read_text() or "first" in (second / "report.html").read_text()

    # A third round bars and measures the rows of both.
    third = run(
        next_recipe(str(second), dataset=str(new_rows), replay=0.0, overrides=["optim.max_steps=2", "evaluation.metrics=[]", "seed=3"]),
        run_dir=tmp_path / "third",
    )
    assert third.report is not None and set(third.report["rounds"]) == {"this round", "first", "second"}
    assert not contents(tmp_path / "third/data/train.jsonl") & (held_out | contents(second / "data/test.jsonl") | contents(second / "data/validation.jsonl"))


def test_training_starts_from_the_weights_of_the_round_before(tmp_path: Path, first: Path, new_rows: Path) -> None:
    overrides = ["optim.max_steps=1", "optim.learning_rate=1e-12", "evaluation.suites=[]"]
    run(next_recipe(str(first), dataset=str(new_rows), replay=0.2, overrides=overrides), run_dir=tmp_path / "second")

    before, after = (load_file(folder / "adapter/adapter_model.safetensors") for folder in (first, tmp_path / "second"))
    assert before.keys() == after.keys()
    assert all((before[name] - after[name]).abs().max() < 1e-9 for name in before)


def test_an_adapter_folder_is_a_start_too_and_a_whole_model_for_full(tmp_path: Path, first: Path, small_model: Path, rows_file: Path) -> None:
    values = recipe_values(small_model, rows_file, optim={"max_steps": 1, "global_batch_size": 4, "learning_rate": 1e-12}, evaluation={"suites": []})
    result = run(load_recipe(values=values | {"start_from": str(first / "adapter")}), run_dir=tmp_path / "from-adapter")
    assert result.outcome == "finished" and read_json(tmp_path / "from-adapter/run.json")["start"]["run"] is None

    run(load_recipe(values=values | {"method": "full"}), run_dir=tmp_path / "whole")
    run(next_recipe(str(tmp_path / "whole"), dataset=str(rows_file), replay=0.2, overrides=["seed=1"]), run_dir=tmp_path / "whole-second")
    assert (tmp_path / "whole-second/model/model.safetensors").exists()


def changed(recipe: Any, **values: Any) -> Any:
    return load_recipe(values=recipe.to_dict() | values)


def test_what_does_not_fit_is_refused_before_training(tmp_path: Path, first: Path, new_rows: Path, small_model: Path) -> None:
    recipe = next_recipe(str(first), dataset=str(new_rows), replay=0.2)
    other_base = write_model(tmp_path / "other-base", seed=9)

    with pytest.raises(ModelError, match="was trained on another base model"):
        run(changed(recipe, base_model=str(other_base)), run_dir=tmp_path / "a")
    with pytest.raises(ModelError, match="belongs to another base model"):
        run(changed(recipe, base_model=str(other_base), start_from=str(first / "adapter"), data={}), run_dir=tmp_path / "b")
    with pytest.raises(NoEffectError, match="has rank 4, and the recipe 8") as caught:
        run(changed(recipe, method={"type": "lora", "rank": 8}), run_dir=tmp_path / "c")
    assert caught.value.fix == "set method.rank to 4"
    with pytest.raises(NoEffectError, match="method full cannot start from"):
        run(changed(recipe, method={"type": "full"}), run_dir=tmp_path / "d")
    with pytest.raises(RunNotFoundError, match="no run 'nothing'"):
        next_recipe("nothing", dataset=str(new_rows), replay=0.2)
    with pytest.raises(RecipeError, match="rounds compares with the run in start_from"):
        load_recipe(values=recipe_values(small_model, new_rows, evaluation={"suites": ["heldout", "rounds"]}))


def test_an_adapter_with_another_vocabulary_is_refused(tmp_path: Path, first: Path, new_rows: Path) -> None:
    adapter = Path(shutil.copytree(first / "adapter", tmp_path / "adapter"))
    (adapter / "base_model.json").unlink()
    tokenizer = read_json(adapter / "tokenizer.json")
    vocabulary = tokenizer["model"]["vocab"]
    one, other = sorted(vocabulary)[300:302]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    (adapter / "tokenizer.json").write_bytes(orjson.dumps(tokenizer))
    recipe = changed(next_recipe(str(first), dataset=str(new_rows), replay=0.0), start_from=str(adapter), data={})

    with pytest.raises(ModelError, match="has another vocabulary"):
        run(recipe, run_dir=tmp_path / "run")


def test_a_start_that_was_changed_since_is_told(tmp_path: Path, first: Path, new_rows: Path) -> None:
    copy = Path(shutil.copytree(first, tmp_path / "copy"))
    recipe = next_recipe(str(copy), dataset=str(new_rows), replay=0.0, overrides=["optim.max_steps=1", "evaluation.suites=[]"])
    run(recipe, run_dir=tmp_path / "run")
    shutil.rmtree(copy / "adapter")

    with pytest.raises(ModelError, match="not in .*adapter any more"):
        run(recipe, run_dir=tmp_path / "run")
