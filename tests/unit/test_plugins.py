"""The registry: what is found, what is refused, and how an unknown name is answered."""

from typing import Literal

import pytest
from pydantic import ValidationError

from danlu.errors import UnknownNameError
from danlu.plugins import Registry
from danlu.recipe.base import METHODS, MetricConfig


class Sharp(MetricConfig):
    """One."""

    type: Literal["sharp"] = "sharp"
    edge: int = 1


class AlsoSharp(MetricConfig):
    """Another of the same name."""

    type: Literal["sharp"] = "sharp"


@pytest.fixture
def registry() -> Registry[MetricConfig]:
    found = Registry[MetricConfig]("metric", package="danlu.evaluation.metrics")
    found.register(Sharp)
    return found


def test_names_are_listed_in_order_and_given_once(registry: Registry[MetricConfig]) -> None:
    assert list(registry) == sorted(registry)
    assert registry["sharp"] is Sharp
    assert registry.register(Sharp) is Sharp


def test_two_classes_of_one_name_are_a_mistake_of_the_programmer(registry: Registry[MetricConfig]) -> None:
    with pytest.raises(ValueError, match="'sharp' is registered twice"):
        registry.register(AlsoSharp)


@pytest.mark.parametrize("value", ["sharp", {"type": "sharp"}, Sharp()])
def test_a_name_a_mapping_and_an_object_mean_the_same(registry: Registry[MetricConfig], value: object) -> None:
    assert registry.parse(value) == Sharp()


@pytest.mark.parametrize("value", [None, 3, [], {}, {"type": None}, {"type": ["sharp"]}, {"edge": 2}])
def test_what_names_no_type_is_refused_with_the_names_there_are(registry: Registry[MetricConfig], value: object) -> None:
    with pytest.raises(ValueError, match="expected a mapping with a `type`, one of: .*sharp"):
        registry.parse(value)


def test_a_mistake_inside_keeps_its_place(registry: Registry[MetricConfig]) -> None:
    with pytest.raises(ValidationError) as caught:
        registry.parse({"type": "sharp", "edge": "x"})

    assert caught.value.errors()[0]["loc"] == ("edge",)


def test_an_unknown_name_is_answered_with_the_nearest(registry: Registry[MetricConfig]) -> None:
    with pytest.raises(UnknownNameError) as near:
        registry["shrap"]
    with pytest.raises(UnknownNameError) as far:
        METHODS["zzz"]

    assert near.value.fix == "use 'sharp'"
    assert far.value.what == "unknown tuning method 'zzz'" and far.value.why == f"installed: {', '.join(METHODS)}"
    assert "install a plugin that provides 'zzz'" in far.value.fix
