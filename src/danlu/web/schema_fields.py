"""The fields of a recipe, out of its JSON Schema: for a form that never has to be written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from danlu.recipe.recipe import Recipe

Kind = Literal["choice", "switch", "number", "text", "other"]
GROUPS = ("optim", "data", "training", "method", "objective", "evaluation", "recipe")
HIDDEN = {"schema_version", "base_model", "dataset"}
"""Asked for elsewhere, or never to be changed."""


@dataclass(frozen=True)
class FormField:
    """One setting."""

    path: str
    group: str
    kind: Kind
    options: tuple[Any, ...]
    """What can be chosen, for `choice`; words that stand for a number (`auto`) else."""
    help: str
    default: Any
    is_nullable: bool
    variant: str = ""
    """The method, objective or format that has it."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]


@cache
def recipe_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, with everything that is installed."""
    return Recipe.model_json_schema()


def fields_of(recipe: dict[str, Any]) -> list[FormField]:
    """Every setting that a recipe has, with the method and objective it names."""
    schema = recipe_schema()
    found = list(_walk(schema, schema, "", recipe))
    return sorted(found, key=lambda field: GROUPS.index(field.group))


def value_at(values: dict[str, Any], path: str, default: Any = None) -> Any:
    """The value at a dotted path."""
    here: Any = values
    for key in path.split("."):
        if not isinstance(here, dict) or key not in here:
            return default
        here = here[key]
    return here


def with_value(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a dotted path; a copy with a name where a part was written in full takes its defaults."""
    first, _, rest = path.partition(".")
    if not rest:
        return {**values, first: value}
    inner = values.get(first)
    if not isinstance(inner, dict):
        inner = {} if inner is None else {"type": inner}
    return {**values, first: with_value(inner, rest, value)}


def with_changes(recipe: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The recipe with other values at dotted paths; a part of another type begins with that type's defaults."""
    for path, value in changes.items():
        whole = path.removesuffix(".type")
        recipe = with_value(recipe, whole, {"type": value}) if whole != path else with_value(recipe, path, value)
    return recipe


def changes_to(base: dict[str, Any], recipe: dict[str, Any]) -> dict[str, Any]:
    """What makes `recipe` of `base`, by dotted path; what is left to be chosen (`auto`) stays as it is in `base`."""
    found: dict[str, Any] = {}
    for field in sorted(fields_of(recipe), key=lambda field: not field.path.endswith(".type")):
        is_of_other_type = any(field.path.startswith(path.removesuffix("type")) for path in found if path.endswith(".type"))
        value, before = value_at(recipe, field.path, field.default), field.default if is_of_other_type else value_at(base, field.path, field.default)
        is_open = value == "auto" and not (field.path == "optim.num_epochs" and value_at(recipe, "optim.max_steps"))  # the two exclude each other
        if value != before and not is_open:
            found[field.path] = value
    return found


def _walk(node: dict[str, Any], schema: dict[str, Any], prefix: str, value: Any) -> Iterator[FormField]:
    for name, written in node.get("properties", {}).items():
        path = f"{prefix}{name}"
        if path in HIDDEN:
            continue
        known = value.get(name) if isinstance(value, dict) else None
        yield from _field(written, schema, path, known)


def _field(written: dict[str, Any], schema: dict[str, Any], path: str, value: Any) -> Iterator[FormField]:
    variants = [_resolved(variant, schema) for variant in written.get("anyOf", written.get("oneOf", [written]))]
    objects = [variant for variant in _flat(variants, schema) if variant.get("type") == "object" and "properties" in variant]
    names = [str(name) for variant in _flat(variants, schema) for name in variant.get("enum", [])]
    type_of = value.get("type") if isinstance(value, dict) else value
    chosen = [variant for variant in objects if variant["properties"].get("type", {}).get("const") in (type_of, None)]
    if names and objects:  # a part that is chosen by name, with settings of its own
        yield _made(path + ".type", "choice", tuple(dict.fromkeys(names)), written, False, default=_name(written.get("default")))
        for variant in chosen[:1]:
            inner = {**variant, "properties": {key: part for key, part in variant["properties"].items() if key != "type"}}
            name = str(variant["properties"]["type"]["const"])
            yield from (field if field.variant else replace(field, variant=name) for field in _walk(inner, schema, f"{path}.", value))
    elif objects and not names and all(variant.get("type") in ("object", "null") for variant in variants):
        if value is not None or not any(variant.get("type") == "null" for variant in variants):
            yield from _walk(objects[0], schema, f"{path}.", value)
    else:
        yield _simple(path, variants, written)


def _simple(path: str, variants: list[dict[str, Any]], written: dict[str, Any]) -> FormField:
    types = {variant.get("type") for variant in variants} - {"null"}
    words = tuple(name for variant in variants for name in variant.get("enum", [variant["const"]] if "const" in variant else []))
    is_nullable = any(variant.get("type") == "null" for variant in variants)
    if types == {"boolean"}:
        kind: Kind = "switch"
    elif types & {"integer", "number"}:
        kind = "number"
    elif words and types == {"string"} and len(words) > 1:
        kind = "choice"
    elif types == {"string"}:
        kind = "text"
    else:
        kind = "other"
    return _made(path, kind, words, written, is_nullable, default=written.get("default"))


def _made(path: str, kind: Kind, options: tuple[Any, ...], written: dict[str, Any], is_nullable: bool, *, default: Any) -> FormField:
    group = path.split(".")[0]
    return FormField(path, group if group in GROUPS else "recipe", kind, options, " ".join(written.get("description", "").split()), default, is_nullable)


def _name(default: Any) -> Any:
    return default.get("type") if isinstance(default, dict) else default


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    return schema["$defs"][reference.rpartition("/")[2]] if reference else node


def _flat(variants: list[dict[str, Any]], schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for variant in variants:
        inner = variant.get("anyOf") or variant.get("oneOf")
        yield from _flat([_resolved(part, schema) for part in inner], schema) if inner else [variant]
