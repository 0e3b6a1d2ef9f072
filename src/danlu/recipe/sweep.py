"""What a sweep tries: several values of a recipe's settings, all combinations or as Optuna chooses, and when losers are left."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import yaml
from pydantic import Field, model_validator

from danlu.errors import RecipeError
from danlu.recipe.base import StrictModel

FACTORS: dict[str, tuple[float, ...]] = {
    "optim.learning_rate": (0.3, 1, 3),
    "method.rank": (0.5, 1, 2),
    "method.alpha": (0.5, 1, 2),
    "optim.num_epochs": (0.5, 1, 2),
    "optim.global_batch_size": (0.5, 1, 2),
}
"""What a recipe's own value is multiplied by to get values around it; the settings that change most come first."""
USUAL: dict[str, tuple[float, ...]] = {"method.dropout": (0.0, 0.05, 0.1), "optim.weight_decay": (0.0, 0.01, 0.1)}
"""Values that are usual whatever the recipe says."""
SPREADS: dict[str, tuple[float, float, str]] = {
    "optim.learning_rate": (0.1, 10, ":log"),
    "method.rank": (0.25, 4, ":log"),
    "method.alpha": (0.25, 4, ":log"),
    "optim.num_epochs": (0.5, 2, ""),
    "optim.global_batch_size": (0.25, 4, ":log"),
}
"""The ends of a range around a recipe's own value, as its multiples, and how the range is searched."""
USUAL_RANGES = {"method.dropout": "0..0.2", "optim.weight_decay": "0..0.2"}
"""The same for settings whose usual ranges do not depend on the recipe."""

LARGEST = 1e12


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

    @property
    def num_members(self) -> int:
        """How many there will be."""
        return self.trials or math.prod(len(values) for values in self.set.values())

    def ends(self) -> list[dict[str, Any]]:
        """Each end of each range, and each of the values that are named, by itself: where these are valid, what is chosen between them is."""
        found: list[dict[str, Any]] = []
        for path, text in self.space.items():
            where = parse_range(path, text)
            ends = where.values or [int(end) if where.is_integer else end for end in (where.low, where.high) if end is not None]
            found += [{path: end} for end in ends]
        return found

    def members(self) -> list[dict[str, Any]]:
        """Settings of every member, in the order of the values given."""
        return [dict(zip(self.set, combination, strict=True)) for combination in itertools.product(*self.set.values())]

    def rung_steps(self, num_steps: int, every: int) -> list[int]:
        """Steps after which a member of `num_steps` steps is compared: at keep^rungs, ..., keep of them, at its next validation.

        Reference: Jamieson & Talwalkar 2016, arXiv:1502.07943 (successive halving).
        """
        steps = (math.ceil(num_steps * self.keep ** (self.rungs - rung) / every) * every for rung in range(self.rungs))
        return sorted({step for step in steps if step < num_steps})

    def num_kept(self, num_members: int) -> int:
        """How many of the members that are compared at a rung go on."""
        return max(1, math.ceil(num_members * self.keep))


def ranked(members: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Members with their ranks, best first: trained ones, then those that were left or are on their way, then those that failed or have not begun."""
    order = {"trained": 0, "training": 1, "left": 1, "failed": 2, "waiting": 3}
    found = sorted(members, key=lambda row: (order[row["state"]], math.inf if row["validation_loss"] is None else row["validation_loss"]))
    return [{"rank": number, **{name: value for name, value in row.items() if name != "rank"}} for number, row in enumerate(found, 1)]


def values_to_try(recipe: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Values worth trying by path, the recipe's own among them; only of settings that the recipe has, and that are not `auto`."""
    found: dict[str, list[Any]] = {}
    for path, factors in FACTORS.items():
        own = _number_at(recipe, path)
        if own is not None:
            found[path] = _distinct(own if factor == 1 else _scaled(own, factor) for factor in factors)
    seed = _number_at(recipe, "seed")
    if seed is not None:
        found["seed"] = [seed, seed + 1, seed + 2]
    for path, usual in USUAL.items():
        own = _number_at(recipe, path)
        if own is not None:
            found[path] = sorted({own, *usual})
    return found


def ranges_to_search(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Ranges worth searching by path, around the recipe's own values; only of settings that the recipe has, and that are not `auto`."""
    found = {path: range_around(own, *SPREADS[path]) for path in SPREADS if (own := _number_at(recipe, path)) is not None}
    return found | {path: text for path, text in USUAL_RANGES.items() if _number_at(recipe, path) is not None}


def range_around(value: float, low: float = 0.5, high: float = 2, scale: str = "") -> str:
    """The range between two multiples of a number, as `parse_range` reads it."""
    first, last = sorted((_scaled(value, low), _scaled(value, high)))
    if first == last:
        return f"0..{max(1, last):g}"
    return f"{first:g}..{last:g}{scale if first > 0 else ''}"


def _number_at(recipe: Mapping[str, Any], path: str) -> Any:
    """The number at a dotted path; None when there is none, or none that anyone would vary."""
    value: Any = recipe
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST else None


def _scaled(value: float, factor: float) -> float:
    """The product as a person would write it: whole where the value is, else of two digits."""
    return max(1, round(value * factor)) if isinstance(value, int) else float(f"{value * factor:.1e}")


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


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
