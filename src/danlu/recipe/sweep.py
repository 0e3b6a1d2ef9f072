"""What a sweep tries: several values of a recipe's settings, all combinations or as Optuna chooses, and when losers are left."""

import itertools
import math
from typing import Any, Self

import yaml
from pydantic import Field, model_validator

from danlu.errors import RecipeError
from danlu.recipe.base import StrictModel


class Range(StrictModel):
    """Where one setting is searched: between two numbers, or among values."""

    low: float | None = None
    high: float | None = None
    is_log: bool = False
    is_integer: bool = False
    values: list[Any] = []


class SweepConfig(StrictModel):
    """The `sweep:` part of a sweep file, or the options of `danlu sweep`."""

    set: dict[str, list[Any]] = {}
    """Values of each setting, by its dotted path: every combination is one member."""
    rungs: int = Field(2, ge=0, le=10)
    """How often the members are compared by validation loss before the end, and the worse ones left. 0 trains all to the end."""
    keep: float = Field(0.5, gt=0, lt=1)
    """Share of the members that goes on after each rung (at least one)."""
    together: bool = True
    """Train members that can share it in one pass over the base model. Without, one after another."""
    trials: int | None = Field(None, ge=1)
    """Let Optuna choose the values of this many members from `space`; members are then trained to the end."""
    space: dict[str, str] = {}
    """Where Optuna searches, by dotted path: `1e-5..1e-3:log`, `4..64` or `a|b|c`."""

    @model_validator(mode="after")
    def _is_one_kind_of_search(self) -> Self:
        if bool(self.trials) != bool(self.space):
            raise ValueError("trials and space belong together: how many members Optuna tries, and where")
        if bool(self.set) == bool(self.space):
            raise ValueError("give either set (values to combine) or trials with space (Optuna)")
        for path, values in self.set.items():
            if not values or len({repr(value) for value in values}) != len(values):
                raise ValueError(f"set.{path}: {values} is empty or names a value twice")
        for path, text in self.space.items():
            parse_range(path, text)
        return self

    def members(self) -> list[dict[str, Any]]:
        """Settings of every member, in the order of the values given."""
        return [dict(zip(self.set, combination, strict=True)) for combination in itertools.product(*self.set.values())]

    def rung_steps(self, num_steps: int, every: int) -> list[int]:
        """Steps after which a member of `num_steps` steps is compared: at keep^rungs, ..., keep of them, at its next validation.

        Reference: Jamieson & Talwalkar 2016, arXiv:1502.07943 (successive halving).
        """
        steps = (math.ceil(num_steps * self.keep ** (self.rungs - rung) / every) * every for rung in range(self.rungs))
        return sorted({step for step in steps if step < num_steps})


def parse_range(path: str, text: str) -> Range:
    """Read `LOW..HIGH`, `LOW..HIGH:log` or `A|B|C`.

    Raises:
        ValueError: it is none of them.
    """
    if "|" in text:
        return Range(values=[yaml.safe_load(part) for part in text.split("|")])
    bounds, _, scale = text.partition(":")
    low, dots, high = bounds.partition("..")
    try:
        found = Range(low=float(low), high=float(high), is_log=scale == "log", is_integer=low.strip().isdigit() and high.strip().isdigit())
    except ValueError:
        dots = ""
    if not dots or scale not in ("", "log") or found.low >= found.high or (found.is_log and found.low <= 0):  # type: ignore[operator]
        raise ValueError(f"space.{path}: {text!r} is no range; write 1e-5..1e-3:log, 4..64 or a|b|c")
    return found


def split_file(values: dict[str, Any], source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe and the `sweep:` part of a sweep file."""
    sweep = values.get("sweep", {})
    if not isinstance(sweep, dict):
        raise RecipeError(f"{source}: sweep is not a mapping", why="it holds set, rungs, keep, ...", fix="see docs/sweeps.md")
    return {key: value for key, value in values.items() if key != "sweep"}, sweep
