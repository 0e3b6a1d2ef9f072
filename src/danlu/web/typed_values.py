"""Values of settings as people type them, and back."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from danlu.recipe.sweep import range_around
from danlu.web import numbers
from danlu.web.schema_fields import FormField

CONSTANTS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}


def values_of(text: str) -> list[Any]:
    """Values with commas between, as people type them: `1e-4, 3e-4`."""
    for sign in "\uff0c\u3001;\uff1b":
        text = text.replace(sign, ",")
    return [_value(part.strip()) for part in text.split(",") if part.strip()]


def _value(text: str) -> Any:
    if text in CONSTANTS:
        return CONSTANTS[text]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def text_of(values: Iterable[Any]) -> str:
    """The same the other way round."""
    return ", ".join(numbers.plain(value) if isinstance(value, float) else str(value) for value in values)


def range_of(item: FormField, value: Any) -> str:
    """Where a setting could be searched that nobody has a suggestion for: among what can be chosen, or around the value it has."""
    if item.kind == "switch":
        return "true|false"
    if item.kind == "choice":
        return "|".join(str(one) for one in item.options)
    return range_around(value) if isinstance(value, int | float) else ""
