"""The registry: what is found, what is refused, and how an unknown name is answered."""

import importlib
import threading
from pathlib import Path
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


def test_whoever_asks_while_plugins_are_being_imported_waits_for_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "halting_plugins"
    package.mkdir()
    (package / "__init__.py").write_text("import threading\nis_half = threading.Event()\nmay_go_on = threading.Event()\n")
    (package / "later.py").write_text("import halting_plugins\nhalting_plugins.is_half.set()\nassert halting_plugins.may_go_on.wait(60)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    halting = importlib.import_module("halting_plugins")
    found: Registry[MetricConfig] = Registry("metric", package="halting_plugins")
    seen: list[bool] = []

    def ask() -> None:
        list(found)
        seen.append(halting.may_go_on.is_set())

    threads = [threading.Thread(target=ask) for _ in range(2)]
    threads[0].start()
    assert halting.is_half.wait(60)
    threads[1].start()
    threads[1].join(0.2)  # in which it would have answered with half of the names
    halting.may_go_on.set()
    for thread in threads:
        thread.join(60)

    assert seen == [True, True]
