"""Recommendations: they answer to data, goal, model and memory, say why in both languages, and make a recipe that runs."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from danlu.errors import RecipeError
from danlu.recipe.load import validate
from danlu.recipe.recipe import Recipe
from danlu.recipe.recommend import GOALS, Facts, recommend_all, resolve
from danlu.recipe.recommend.facts import Goal

GIB = 2**30
FACTS = Facts(
    num_train=1000,
    length_p50=200,
    length_p995=600,
    length_max=900,
    model_max_seq_len=4096,
    hidden_size=1024,
    num_parameters=600_000_000,
    available_memory_bytes=16 * GIB,
    has_gpu=False,
    has_bfloat16=False,
    detected_format={"type": "messages"},
    num_validation=100,
    num_label_tokens=100_000,
    parameters_per_rank=600_000,
    smallest_matrix=1024,
)


def recipe(**values: Any) -> Recipe:
    return Recipe.model_validate({"base_model": "b", "dataset": "d", **values})


def chosen(**changes: Any) -> Recipe:
    return recommend_all(recipe(), replace(FACTS, **changes))[0]


def test_fifty_rows_and_fifty_thousand_get_different_answers() -> None:
    few = chosen(num_train=50, num_label_tokens=5000)
    many = chosen(num_train=50_000, num_label_tokens=20_000_000)

    assert float(few.optim.num_epochs) > float(many.optim.num_epochs)
    assert int(few.optim.global_batch_size) < int(many.optim.global_batch_size)
    assert few.method.rank < many.method.rank  # type: ignore[attr-defined]
    assert int(few.training.validate_every_steps) < int(many.training.validate_every_steps)
    assert float(few.optim.warmup_ratio) > float(many.optim.warmup_ratio)


def test_the_goal_sets_how_large_the_change_is() -> None:
    ranks = {goal: chosen(goal=goal).method.rank for goal in GOALS}  # type: ignore[attr-defined]
    shares = {goal: chosen(goal=goal).data.mix for goal in GOALS}

    assert ranks == {"style": 8, "task": 16, "reasoning": 32, "knowledge": 64}
    assert shares == {"style": {}, "task": {}, "reasoning": {"general": 0.05}, "knowledge": {"general": 0.1}}


def test_much_to_learn_and_a_narrow_model_both_want_a_higher_rank() -> None:
    assert chosen(num_label_tokens=50_000_000).method.rank == 64  # type: ignore[attr-defined]  # 50 M bits / 2 bits / 600,000
    assert chosen(parameters_per_rank=27_000, smallest_matrix=256).method.rank == 64  # type: ignore[attr-defined]  # a million weights / 27,000
    assert chosen(parameters_per_rank=100, smallest_matrix=48).method.rank == 32  # type: ignore[attr-defined]  # no more than the matrix has


def test_full_is_for_many_facts_where_memory_allows_it() -> None:
    facts: dict[str, Any] = {"goal": "knowledge", "num_train": 100_000}

    assert chosen(**facts, peak_bytes=lambda recipe: 12 * GIB).method.type == "full"
    assert chosen(**facts, peak_bytes=lambda recipe: 15 * GIB if recipe.method.type == "full" else GIB).method.type == "lora"
    assert chosen(**(facts | {"num_train": 100}), peak_bytes=lambda recipe: GIB).method.type == "lora"


def test_quantised_weights_are_for_models_that_do_not_fit_otherwise() -> None:
    def peak(recipe: Recipe) -> int:
        return (4 if recipe.method.type == "qlora" else 20) * GIB

    assert chosen(peak_bytes=peak, can_quantise=True).method.type == "qlora"
    assert chosen(peak_bytes=peak, can_quantise=False).method.type == "lora"
    assert chosen(peak_bytes=lambda recipe: GIB, can_quantise=True).method.type == "lora"


def test_the_micro_batch_is_as_large_as_memory_allows_and_never_below_one_example() -> None:
    def peak(recipe: Recipe) -> int:
        return int(recipe.optim.micro_batch_tokens) * 10 * 2**20

    assert chosen(peak_bytes=peak).optim.micro_batch_tokens == 1024  # 10 GiB of the 12.8 that may be filled
    assert chosen(peak_bytes=peak, available_memory_bytes=GIB).optim.micro_batch_tokens == 704  # one example of max_seq_len
    assert chosen().optim.micro_batch_tokens == 1024
    assert chosen(has_gpu=True, has_bfloat16=True).optim.micro_batch_tokens == 16384


@pytest.mark.parametrize(("num_train", "goal", "epochs"), [(50, "task", 6), (310, "task", 4), (310, "style", 3), (310, "knowledge", 5), (50_000, "task", 1)])
def test_small_data_gets_few_passes(num_train: int, goal: Goal, epochs: float) -> None:
    """As many as the learning rate needs to fall to its end; ten on 300 rows left the schedule unfinished when early stopping ended it."""
    assert chosen(num_train=num_train, goal=goal).optim.num_epochs == epochs


def test_early_stopping_needs_a_validation_split() -> None:
    without = recipe(data={"split": {"validation": 0.0, "test": 0.1}})

    assert resolve(without, FACTS)[0].training.early_stopping_patience is None
    assert resolve(recipe(), replace(FACTS, num_validation=0))[0].training.early_stopping_patience is None
    assert resolve(recipe(), FACTS)[0].training.early_stopping_patience == 3
    with pytest.raises(RecipeError, match="early_stopping_patience has no effect without a validation split"):
        written = {"training": {"early_stopping_patience": 3}, "data": {"split": {"validation": 0.0}}}
        validate({"base_model": "b", "dataset": "d", **written}, source="here")


def test_what_is_written_is_kept() -> None:
    found, reasons = resolve(recipe(optim={"learning_rate": 1e-5, "warmup_ratio": 0.2}, method={"type": "full"}), FACTS)

    assert (found.optim.learning_rate, found.optim.warmup_ratio, found.method.type) == (1e-5, 0.2, "full")
    assert not {"optim.learning_rate", "optim.warmup_ratio"} & {reason.path for reason in reasons}


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("objective", ["sft", "pretrain"])
def test_every_choice_has_a_reason_in_both_languages_and_a_source_in_the_docs(goal: Goal, objective: str, repository: Path) -> None:
    found, reasons = recommend_all(recipe(objective=objective), replace(FACTS, goal=goal))
    page = (repository / "docs/recommend.md").read_text("utf-8")

    assert "auto" not in str(found.to_dict()["optim"]) + str(found.to_dict()["training"])
    assert {"method.type", "method.rank", "optim.learning_rate", "optim.num_epochs", "optim.warmup_ratio", "training.path"} <= {r.path for r in reasons}
    for reason in reasons:
        assert reason.en.isascii() and re.search("[\u4e00-\u9fff]", reason.zh), reason
        assert not reason.source or f"| `{reason.source}` |" in page, reason.source


def test_the_answer_to_the_same_facts_is_the_same() -> None:
    peak: Callable[[Recipe], int] = lambda recipe: GIB  # noqa: E731
    assert recommend_all(recipe(), replace(FACTS, peak_bytes=peak)) == recommend_all(recipe(), replace(FACTS, peak_bytes=peak))
