"""Reward functions: values by hand, and that none fails on anything a model may write."""

from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from danlu.data.judge import judge
from danlu.errors import TrainingError
from danlu.recipe.base import REWARDS


def parse(name: str, **fields: Any) -> Any:
    return cast("Any", REWARDS.parse({"type": name, **fields}))


@pytest.mark.parametrize(
    ("name", "fields", "completion", "answer", "expected"),
    [
        ("exact_match", {}, " The Answer. ", "the answer", 1.0),
        ("exact_match", {}, "another", "the answer", 0.0),
        ("number", {}, "6 + 6 is 12, so #### 1,234.50", "1234.5", 1.0),
        ("number", {}, "结果是７２。", "#### 72", 1.0),
        ("number", {}, "about 71", "72", 0.0),
        ("number", {"tolerance": 0.02}, "about 71", "72", 1.0),
        ("number", {}, "none", "72", 0.0),
        ("number", {}, "-3", "3", 0.0),
        ("rouge_l", {}, "天门山很高", "天门山很高", 1.0),
        ("rouge_l", {}, "a b", "a c", 0.5),
        ("pattern", {"pattern": r"<a>.*</a>"}, "<a>1\n2</a>", None, 1.0),
        ("pattern", {"pattern": r"\d+"}, "12 apples", None, 0.0),
        ("tags", {}, "<think>x</think><answer>y</answer>", None, 1.0),
        ("tags", {}, "<answer>y</answer><think>x</think>", None, 0.5),
        ("tags", {}, "<think>x</think><think>x</think>", None, 0.0),
        ("tags", {"tags": ["a"]}, "</a><a>", None, 0.0),
        ("json_object", {}, '```json\n{"a": 1}\n```', None, 1.0),
        ("json_object", {"keys": ["a", "b"]}, '{"a": 1}', None, 0.75),
        ("json_object", {}, "[1]", None, 0.0),
        ("json_object", {}, "{", None, 0.0),
        ("length", {"minimum": 4, "maximum": 8}, "12", None, 0.5),
        ("length", {"minimum": 4, "maximum": 8}, "123456", None, 1.0),
        ("length", {"minimum": 4, "maximum": 8}, "1" * 12, None, 0.5),
        ("length", {"minimum": 4, "maximum": 8}, "1" * 99, None, 0.0),
    ],
)
def test_an_answer_is_worth_what_it_should_be(name: str, fields: dict[str, Any], completion: str, answer: str | None, expected: float) -> None:
    assert parse(name, **fields).score(completion, answer, {}) == pytest.approx(expected)


@pytest.mark.parametrize("name", list(REWARDS))
@settings(max_examples=60)
@given(completion=st.text(max_size=60), answer=st.none() | st.text(max_size=20))
def test_whatever_a_model_writes_has_a_reward_between_0_and_1(name: str, completion: str, answer: str | None) -> None:
    assert 0 <= parse(name).score(completion, answer, {}) <= 1


def test_rewards_are_added_by_their_weights() -> None:
    rewards = [parse("number", weight=2.0), parse("length", minimum=10, weight=-0.5)]

    assert judge(rewards, "12345", {"answer": "12345", "columns": {}}) == (2 * 1.0 - 0.5 * 0.5, {"number": 1.0, "length": 0.5})


def test_a_reward_that_is_not_a_number_is_named() -> None:
    class Broken:
        type, weight = "broken", 1.0

        def score(self, *_: Any) -> float:
            return float("nan")

    with pytest.raises(TrainingError, match="the reward broken gives nan for an answer to line 7"):
        judge(cast("Any", [Broken()]), "x", {"line": 7})
