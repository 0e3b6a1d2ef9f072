"""The automatic learning rate knows the method and the optimizer."""

from dataclasses import replace
from typing import Any

import pytest

from danlu.recipe.base import METHODS
from danlu.recipe.recipe import Recipe
from danlu.recipe.recommend import Facts, resolve

FACTS = Facts(
    num_train=500,
    length_p50=40,
    length_p995=120,
    length_max=130,
    model_max_seq_len=2048,
    hidden_size=1024,
    num_parameters=6 * 10**8,
    available_memory_bytes=8 * 2**30,
    has_gpu=False,
    has_bfloat16=False,
    detected_format={"type": "alpaca"},
)


def rate(facts: Facts = FACTS, **values: Any) -> float:
    recipe, reasons = resolve(Recipe.model_validate({"base_model": "b", "dataset": "d", **values}), facts)
    assert all(reason.en and reason.zh for reason in reasons if reason.path == "optim.learning_rate")
    return float(recipe.optim.learning_rate)


@pytest.mark.parametrize("method", list(METHODS))
def test_a_method_with_a_usual_rate_gets_it_whatever_the_width(method: str) -> None:
    usual = METHODS[method].usual_learning_rate
    narrow = replace(FACTS, hidden_size=256)

    if usual is None:
        assert rate(narrow, method=method) > rate(method=method)
    else:
        assert rate(narrow, method=method) == rate(method=method) == usual


def test_lion_wants_less_than_adamw() -> None:
    assert rate(optim={"optimizer": "lion"}) == pytest.approx(0.2 * rate(), rel=0.05)
    assert rate(optim={"optimizer": "adafactor"}) == rate()
