"""What a sweep tries, and when members are compared."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from danlu.cli.sweep import build_sweep
from danlu.errors import RecipeError
from danlu.recipe.sweep import Range, SweepConfig, parse_range, range_around, ranges_to_search, values_to_try


def test_every_combination_is_a_member() -> None:
    config = SweepConfig(set={"method.rank": [4, 8], "seed": [0, 1]})

    assert config.members() == [{"method.rank": rank, "seed": seed} for rank in (4, 8) for seed in (0, 1)]


@pytest.mark.parametrize(
    ("rungs", "keep", "num_steps", "every", "steps"),
    [(2, 0.5, 80, 8, [24, 40]), (2, 0.5, 100, 10, [30, 50]), (3, 0.5, 8, 2, [2, 4]), (0, 0.5, 80, 8, []), (1, 0.25, 10, 10, []), (2, 0.5, 3, 1, [1, 2])],
)
def test_rungs_lie_at_validations(rungs: int, keep: float, num_steps: int, every: int, steps: list[int]) -> None:
    assert SweepConfig(set={"seed": [0, 1]}, rungs=rungs, keep=keep).rung_steps(num_steps, every) == steps


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1e-5..1e-3:log", Range(low=1e-5, high=1e-3, is_log=True)),
        ("4..64", Range(low=4, high=64, is_integer=True)),
        ("a|2|null", Range(values=["a", 2, None])),
    ],
)
def test_a_range_is_read(text: str, found: Range) -> None:
    assert parse_range("x", text) == found


@pytest.mark.parametrize("text", ["5", "3..1", "0..1:log", "1..2:linear", "a..b"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no range"):
        parse_range("x", text)


@pytest.mark.parametrize(
    "values", [{}, {"set": {"seed": [1, 1]}}, {"set": {"seed": []}}, {"trials": 3}, {"set": {"seed": [0]}, "trials": 2, "space": {"seed": "1..2"}}]
)
def test_a_search_that_says_nothing_or_two_things_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SweepConfig.model_validate(values)


def test_files_and_options_make_one_sweep(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("base_model: danlu/tiny\ndataset: d.jsonl\nsweep:\n  set: {method.rank: [4, 8]}\n  keep: 0.25\n")

    recipe, config = build_sweep([str(file), "optim.max_steps=9"], ["optim.learning_rate=1e-4,3e-4"], [], {"rungs": 1}, data=None, model=None)

    assert recipe.optim.max_steps == 9 and recipe.base_model == "danlu/tiny"
    assert config == SweepConfig(set={"optim.learning_rate": ["1e-4", "3e-4"]}, rungs=1, keep=0.25)
    with pytest.raises(RecipeError, match="either set"):
        build_sweep([str(file)], [], ["seed=1"], {"trials": 2}, data=None, model=None)


def test_values_worth_trying_lie_around_those_of_the_recipe() -> None:
    method = {"type": "lora", "rank": 8, "alpha": 32.0, "dropout": 0.0}
    recipe = {"method": method, "optim": {"learning_rate": 2e-4, "num_epochs": "auto", "global_batch_size": 1}, "seed": 7}

    assert values_to_try(recipe) == {
        "optim.learning_rate": [6e-5, 2e-4, 6e-4],
        "method.rank": [4, 8, 16],
        "method.alpha": [16.0, 32.0, 64.0],
        "optim.global_batch_size": [1, 2],
        "seed": [7, 8, 9],
        "method.dropout": [0.0, 0.05, 0.1],
    }
    assert values_to_try({"method": "full", "optim": {"learning_rate": "auto"}, "seed": True}) == {}
    assert values_to_try({"method": {"rank": 10**400, "alpha": float("nan")}, "seed": 1e300}) == {}


def test_a_sweep_knows_how_many_members_it_will_have() -> None:
    assert SweepConfig(set={"method.rank": [4, 8, 16], "seed": [0, 1]}).num_members == 6
    assert SweepConfig(trials=20, space={"method.rank": "4..64"}).num_members == 20
    assert [SweepConfig(set={"seed": [0, 1]}, keep=0.3).num_kept(number) for number in (1, 3, 10)] == [1, 1, 3]


def test_ranges_to_search_lie_around_what_the_recipe_says() -> None:
    recipe = {"optim": {"learning_rate": 2e-3, "num_epochs": 3, "global_batch_size": "auto"}, "method": {"rank": 16, "dropout": 0.0}}

    found = ranges_to_search(recipe)

    assert found == {"optim.learning_rate": "0.0002..0.02:log", "method.rank": "4..64:log", "optim.num_epochs": "2..6", "method.dropout": "0..0.2"}
    assert SweepConfig(space=found, trials=4).ends()[2:4] == [{"method.rank": 4}, {"method.rank": 64}]


@pytest.mark.parametrize("value", [0, 0.0, 1, 0.5, -2.0, 1e-7, 10**6])
def test_a_range_around_any_number_can_be_read(value: float) -> None:
    for low, high, scale in ((0.5, 2, ""), (0.25, 4, ":log")):
        where = parse_range("x", range_around(value, low, high, scale))
        assert where.low is not None and where.high is not None and where.low <= value <= where.high


def test_the_ends_of_ranges_are_looked_at_one_by_one() -> None:
    config = SweepConfig(space={"a": "1..4", "b": "0.5..2:log", "c": "x|true"}, trials=2)

    assert config.ends() == [{"a": 1}, {"a": 4}, {"b": 0.5}, {"b": 2.0}, {"c": "x"}, {"c": True}]
