"""Numbers as people read them, with their units."""

from __future__ import annotations

from typing import Any

from danlu.evaluation.report import words
from danlu.web.words import Language


def size(num_bytes: float | None) -> str:
    """Bytes in decimal units; number and unit stay on one line."""
    return words.size(num_bytes).replace(" ", "\u00a0")


def duration(seconds: float | None, language: Language) -> str:
    """Seconds in words."""
    return "\u2013" if seconds is None else words.duration(seconds)[language == "zh"].replace(" ", "\u00a0")


def count(number: float | None) -> str:
    """A whole number with thousands separated."""
    return "\u2013" if number is None else f"{round(number):,}"


def parameters(number: int) -> str:
    """How many weights a model has, as its makers write it: 0.6B."""
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= 0.1 * scale and number >= 1e5:
            return f"{number / scale:.{0 if number >= 9.95 * scale else 1}f}{unit}".replace(".0", "")
    return str(number)


def short(number: float | None) -> str:
    """A number with four significant digits at most."""
    if number is None:
        return "\u2013"
    if number != 0 and (abs(number) < 1e-3 or abs(number) >= 1e6):
        mantissa, _, exponent = f"{number:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{number:,.4g}" if abs(number) < 1000 else f"{number:,.0f}"


def setting(value: Any) -> str:
    """The value of a setting of a recipe."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return short(value)
    if isinstance(value, dict) and "type" in value:
        rest = {key: part for key, part in value.items() if key != "type" and part is not None}
        return f"{value['type']} ({setting(rest)})" if rest else str(value["type"])
    if isinstance(value, dict):
        return ", ".join(f"{key}: {setting(part)}" for key, part in value.items()) or "\u2013"
    if isinstance(value, list):
        return ", ".join(setting(part) for part in value) or "\u2013"
    return "\u2013" if value is None else str(value)


def plain(value: Any) -> str:
    """A number as it is typed."""
    return f"{value:g}" if isinstance(value, float) else str(value)
