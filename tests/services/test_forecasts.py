"""Forecast and recommend as services: what they tell agrees with what a run then does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from danlu.data.chat import ChatRenderer
from danlu.data.convert import examples
from danlu.data.count import TokenCounter
from danlu.errors import ModelError, OutOfMemoryError
from danlu.files import read_json, read_jsonl
from danlu.models import memory
from danlu.models.load import load_tokenizer
from danlu.models.shape import ModelShape
from danlu.recipe.load import load_recipe
from danlu.recipe.recipe import Recipe
from danlu.services.base_models import usual_run
from danlu.services.datasets import find_dataset
from danlu.services.forecasts import device, forecast_run, recommend_run
from danlu.services.runs import run
from models import recipe_values, write_model


def test_token_counts_are_those_of_the_renderer() -> None:
    from danlu.bundled import FOLDER

    renderer, counter = ChatRenderer(load_tokenizer(FOLDER / "tiny")), TokenCounter(FOLDER / "tiny")
    for number, example in enumerate(examples(find_dataset("danlu/weekly-report"))):
        [encoded] = renderer.encode([renderer.render(example["messages"])])
        tokens, labels = counter(example)
        assert tokens == len(encoded.ids) and abs(labels - int(encoded.mask[1:].sum())) <= 2
        if number == 20:
            break


def test_the_forecast_tells_what_the_run_then_counts(small_model: Path, rows_file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(values=recipe_values(small_model, rows_file, evaluation={"suites": [], "metrics": []}, export=["adapter"]))
    told = forecast_run(recipe, price_per_hour=2.0).forecast

    result = run(recipe, run_dir=tmp_path / "run")
    recorded = read_json(tmp_path / "run/run.json")["forecast"]

    assert result.report is not None
    assert told.num_steps == recorded["num_steps"] == result.report["training"]["step"] == 8
    assert told.trained_parameters == recorded["trained_parameters"]
    assert told.num_tokens == pytest.approx(result.report["training"]["num_tokens"], rel=0.1)
    assert told.training_seconds is None and told.cost is None  # nothing was measured
    assert recorded["training_seconds"] > 0
    assert told.disk["result_bytes"] == pytest.approx((tmp_path / "run/adapter/adapter_model.safetensors").stat().st_size, rel=0.2)
    assert result.report["disk"]["checkpoints_bytes"] == pytest.approx(recorded["disk"]["checkpoints_bytes"], rel=0.6)


def test_splits_that_the_data_gives_are_counted_as_a_run_then_has_them(small_model: Path, rows_file: Path, tmp_path: Path) -> None:
    rows = [orjson.loads(line) for line in rows_file.read_bytes().splitlines()]
    held_out, marked = tmp_path / "test.jsonl", tmp_path / "marked.jsonl"
    held_out.write_bytes(b"".join(orjson.dumps({"prompt": f"{'abcde'[n] * 30}?", "completion": "zyxwv"[n] * 30}) + b"\n" for n in range(5)))
    marked.write_bytes(b"".join(orjson.dumps(row | {"split": ("train", "test")[n % 2]}) + b"\n" for n, row in enumerate(rows)))
    own = recipe_values(small_model, rows_file, data={"split": {"test_dataset": str(held_out)}}, evaluation={"suites": ["heldout"], "metrics": []})
    column = recipe_values(small_model, marked, data={"split": {"column": "split", "validation": 0.0}})

    assert forecast_run(load_recipe(values=column)).split == {"validation": 0, "test": len(rows) // 2, "mixed_in": 0}
    told = forecast_run(load_recipe(values=own)).split
    result = run(load_recipe(values=own), run_dir=tmp_path / "run")

    assert told == {"validation": round(0.1 * len(rows)), "test": 5, "mixed_in": 0}
    assert result.report is not None and result.report["encoded"]["test"]["num_examples"] == 5
    assert len(list(read_jsonl(tmp_path / "run/data/test.jsonl"))) == 5


@pytest.mark.parametrize("name", ["danlu/product-json", "danlu/zhangjiajie", "danlu/weekly-report"])
def test_a_resolved_recipe_can_be_asked_about_again(small_model: Path, name: str) -> None:
    told = recommend_run(load_recipe(values={"base_model": str(small_model), "dataset": name}))

    again = forecast_run(load_recipe(values=told.recipe.to_dict()))

    assert (again.recipe, again.forecast.num_steps) == (told.recipe, told.forecast.num_steps)


def test_what_is_mixed_in_counts(small_model: Path, rows_file: Path) -> None:
    def told(**data: Any) -> tuple[int, dict[str, int]]:
        found = forecast_run(load_recipe(values=recipe_values(small_model, rows_file, data=data)))
        return found.forecast.num_examples, found.split

    alone, split = told()
    mixed, with_others = told(mix={"general": 0.5, "danlu/zhangjiajie": 0.25}, replay={"run": "earlier", "share": 0.5})

    assert mixed == alone + with_others["mixed_in"] == alone + 2 * round(0.5 * alone) + round(0.25 * alone) and split["mixed_in"] == 0
    assert told(split={"validation": 0.5, "test": 0.25})[1]["validation"] > split["validation"]


def test_a_probe_measures_the_speed(small_model: Path, rows_file: Path) -> None:
    recipe = load_recipe(values=recipe_values(small_model, rows_file))
    told = forecast_run(recipe, price_per_hour=3600.0, with_probe=True).forecast

    assert told.training_seconds is not None and told.training_seconds > 0
    assert told.cost == pytest.approx(told.training_seconds, abs=0.01)


def absurd(folder: Path, small_model: Path, **changes: Any) -> Path:
    """A folder like the model's, whose config.json asks for other sizes."""
    import shutil

    shutil.copytree(small_model, folder)
    config = orjson.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_bytes(orjson.dumps(config | changes))
    return folder


def test_a_width_of_a_million_is_answered_and_refused_before_anything_is_loaded(small_model: Path, rows_file: Path, tmp_path: Path) -> None:
    model = absurd(tmp_path / "model", small_model, hidden_size=10**6, intermediate_size=10**9)
    recipe = load_recipe(values=recipe_values(model, rows_file))

    assert forecast_run(recipe).forecast.fit == "too_big"
    with pytest.raises(ModelError, match=r"its config\.json does not fit its weights"):
        run(recipe, run_dir=tmp_path / "run")
    assert not [event for event in read_jsonl(tmp_path / "run/events.jsonl") if event.get("stage") == "training"]


def test_a_rank_of_a_billion_is_refused_with_one_that_fits(small_model: Path, rows_file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(values=recipe_values(small_model, rows_file, method={"type": "lora", "rank": 10**9}))

    with pytest.raises(OutOfMemoryError) as caught:
        run(recipe, run_dir=tmp_path / "run")
    assert "method.rank=" in caught.value.fix


def test_a_config_without_sizes_is_told(small_model: Path, rows_file: Path, tmp_path: Path) -> None:
    model = absurd(tmp_path / "model", small_model, vocab_size=0)

    with pytest.raises(ModelError, match="vocab_size is 0"):
        forecast_run(load_recipe(values=recipe_values(model, rows_file)))


def test_badge_recommendation_forecast_and_run_ask_one_formula(small_model: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = memory.Plan.parts

    def with_a_petabyte(plan: memory.Plan, **measured: Any) -> memory.MemoryParts:
        return replace(known(plan, **measured), activations_bytes=10**15)

    recipe = Recipe.model_validate(recipe_values(small_model, rows_file))
    asked = {"badge": usual_run, "recommendation": recommend_run, "forecast": forecast_run}
    shape, place = ModelShape.from_config(read_json(small_model / "config.json")), device()

    def fits() -> dict[str, Any]:
        usual_run.cache_clear()
        return {name: ask(shape, place)[0].fit if ask is usual_run else ask(recipe).forecast.fit for name, ask in asked.items()}  # type: ignore[operator]

    assert fits() == dict.fromkeys(asked, "fits")
    monkeypatch.setattr(memory.Plan, "parts", with_a_petabyte)
    assert fits() == dict.fromkeys(asked, "too_big")
    with pytest.raises(OutOfMemoryError, match="this run would need at least"):
        run(recipe, run_dir=tmp_path / "run")
    usual_run.cache_clear()


def test_what_is_recommended_runs_as_it_is(rows_file: Path, tmp_path: Path) -> None:
    import yaml

    from danlu.cli.forecast import runnable

    model = write_model(tmp_path / "model")
    found = recommend_run(Recipe(base_model=str(model), dataset=str(rows_file)), goal="style")
    file = tmp_path / "recommended.yaml"
    file.write_text(yaml.safe_dump(runnable(found.recipe), allow_unicode=True), "utf-8")
    recipe = load_recipe([file], ["optim.num_epochs=0.2", "evaluation.suites=[]", "evaluation.metrics=[]", "training.validate_every_steps=1"])

    assert recipe.method == found.recipe.method and recipe.optim.learning_rate == found.recipe.optim.learning_rate
    assert run(recipe, run_dir=tmp_path / "run").outcome == "finished"
