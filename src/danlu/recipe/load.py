"""From YAML files and dotted overrides to a Recipe, with every mistake reported at once: place, value, what was meant."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from danlu.errors import RecipeError
from danlu.recipe.base import METHODS, OBJECTIVES
from danlu.recipe.recipe import Recipe

MAX_RECIPE_BYTES = 1_000_000
MAX_DOTS = 16
"""Of a dotted path; a recipe has three levels, and values of plugins a few more."""


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without aliases (they can expand without end) and without duplicate keys (the last would win silently)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "anchors and aliases are not allowed in a recipe", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float):
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} cannot be the name of a setting", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_recipe(files: Sequence[Path] = (), overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None, *, leave_out: Sequence[str] = ()) -> Recipe:
    """Merge `files` left to right, then `values`, then `overrides` (`optim.learning_rate=1e-4`), and validate.

    `leave_out` names parts of the files that are not the recipe's (`sweep` of a sweep file).

    Raises:
        RecipeError: a file cannot be read, or the result does not validate; all mistakes are listed.
    """
    merged: dict[str, Any] = {}
    for file in files:
        _merge(merged, {key: value for key, value in read_yaml(file).items() if key not in leave_out})
    _merge(merged, dict(values or {}))
    for override in overrides:
        _merge(merged, parse_override(override))
    return validate(merged, source=", ".join(str(file) for file in files) or "the command line")


def with_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """A copy of the recipe with other values at dotted paths.

    Raises:
        RecipeError: the result does not validate.
    """
    values = recipe.to_dict()
    for path, value in settings.items():
        if path.count(".") > MAX_DOTS:
            raise RecipeError(f"{path[:80]!r} is no setting", why=f"the path of a setting has at most {MAX_DOTS} dots", fix="see docs/recipe.md")
        for key in reversed(path.split(".")):
            value = {key: value}
        _merge(values, value)
    return validate(values, source=", ".join(f"{path}={value}" for path, value in settings.items()))


def validate(values: dict[str, Any], *, source: str) -> Recipe:
    """Validate plain values as a Recipe.

    Raises:
        RecipeError: with one line per mistake.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        lines = [_describe(entry, values) for entry in _one_per_field(error.errors(include_url=False))]
        count = f"{len(lines)} mistakes" if len(lines) > 1 else "1 mistake"
        raise RecipeError(
            f"{count} in the recipe ({source})\n" + "\n".join(f"    {line}" for line in lines),
            why="every field is checked before anything starts",
            fix="correct the lines above; all fields are described in docs/recipe.md",
        ) from error


def read_yaml(file: Path) -> dict[str, Any]:
    """Read one recipe file as plain values."""
    try:
        content = file.read_bytes()
    except IsADirectoryError as error:
        raise RecipeError(f"{file} is a folder", why="a recipe is one YAML file", fix="give the .yaml file") from error
    except OSError as error:
        raise RecipeError(f"cannot read {file}", why=error.strerror or repr(error), fix="check the path") from error
    if len(content) > MAX_RECIPE_BYTES:
        raise RecipeError(f"{file} is {len(content):,} bytes", why="a recipe is a short YAML file; is this a data file?", fix=f"danlu run --data {file}")
    return parse_yaml(content, str(file))


def parse_yaml(text: bytes | str, what: str) -> dict[str, Any]:
    """Read the text of a recipe file as plain values.

    Raises:
        RecipeError: it is no YAML mapping.
    """
    values = _parse(text, what, fix="correct the line named above")
    if not isinstance(values, dict):
        raise RecipeError(f"{what} does not hold a mapping", why=f"its top level is {type(values).__name__}", fix="start from docs/recipe.md")
    return {str(key): value for key, value in values.items()}


def parse_override(text: str) -> dict[str, Any]:
    """Turn `a.b=value` into nested values; the value is read as YAML."""
    path, separator, raw = text.partition("=")
    if not separator or not path.strip() or not raw.strip():
        raise RecipeError(
            f"{text!r} is not an override", why="overrides are written path=value", fix="for example optim.learning_rate=1e-4 or optim.max_steps=null"
        )
    value = _parse(raw, f"the value of {path}", fix="quote it")
    for key in reversed(path.strip().lstrip("-").split(".")):
        value = {key: value}
    return dict(value)


def _parse(content: bytes | str, what: str, *, fix: str) -> Any:
    try:
        return yaml.load(content, Loader=_StrictLoader)  # a SafeLoader
    except RecursionError as error:
        raise RecipeError(f"{what} is nested too deeply", why="a recipe has three levels", fix="start from docs/recipe.md") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date or a number and is none
        raise RecipeError(f"{what} is not valid YAML", why=" ".join(str(error).split()), fix=fix) from error


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    """Merge mappings; a mapping that names another `type` replaces the old one, since its fields belong to that type."""
    for key, value in other.items():
        old = into.get(key)
        if isinstance(old, str) and isinstance(value, dict) and key in ("method", "objective") and "type" not in value:
            old = {"type": old}
        if isinstance(old, dict) and isinstance(value, dict) and value.get("type", old.get("type")) == old.get("type"):
            _merge(old, value)
            into[key] = old
        elif key in ("method", "objective") and old is None and isinstance(value, dict) and "type" not in value:
            into[key] = {"type": Recipe.model_fields[key].default} | value
        else:
            into[key] = dict(value) if isinstance(value, dict) else value


def _one_per_field(entries: Sequence[Any]) -> Iterator[Any]:
    """Leave out "is not 'auto'" where the same field has an error that says more."""
    places = [_location(entry) for entry in entries]
    for entry, place in zip(entries, places, strict=True):
        if entry["type"] != "literal_error" or places.count(place) == 1:
            yield entry


def _location(entry: Any) -> list[Any]:
    *places, last = entry["loc"] or (None,)
    is_written = entry["type"] == "extra_forbidden"  # its last part is what somebody wrote, whatever it looks like
    return [part for part in places if not _is_union_branch(part)] + ([last] if last is not None and (is_written or not _is_union_branch(last)) else [])


def _describe(entry: Any, values: dict[str, Any]) -> str:
    location = _location(entry)
    path = ".".join(str(part) for part in location) or "recipe"
    message = str(entry["msg"]).removeprefix("Value error, ")
    if entry["type"] == "extra_forbidden":
        near = get_close_matches(str(location[-1]), list(_fields_at(location[:-1], values)), n=1, cutoff=0.5)
        message = "there is no such setting" + (f"; did you mean {near[0]!r}?" if near else "")
    elif entry["type"] == "missing":
        return f"{path}: missing"
    elif message.startswith("DL"):
        message = "; ".join(line.strip() for line in message.split(": ", 1)[1].splitlines())
    given = repr(entry["input"])
    return f"{path}: {message} (given: {given if len(given) <= 60 else given[:57] + '...'})"


def _is_union_branch(part: Any) -> bool:
    """Pydantic puts the tried branch of a union into the location; a person did not write it."""
    return isinstance(part, str) and (part in ("float", "int", "str", "constrained-int", "constrained-float") or "[" in part or part.endswith("Config"))


def _fields_at(location: Sequence[Any], values: Any) -> Iterator[str]:
    """Names a mapping at `location` may hold."""
    model: type[BaseModel] = Recipe
    for part in location:
        values = values.get(part) if isinstance(values, dict) else None
        name = values.get("type", Recipe.model_fields[part].default) if isinstance(values, dict) and part in ("method", "objective") else None
        if part == "method" and isinstance(name, str):
            model = METHODS[name]
        elif part == "objective" and isinstance(name, str):
            model = OBJECTIVES[name]
        elif part in model.model_fields:
            annotation = model.model_fields[part].annotation
            if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
                return
            model = annotation
        else:
            return
    yield from model.model_fields
