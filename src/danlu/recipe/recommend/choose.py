"""Applying the rules: to what a recipe leaves `auto`, or to everything."""

from __future__ import annotations

from typing import Any

from danlu.recipe.recipe import Recipe
from danlu.recipe.recommend.facts import Facts, Reason
from danlu.recipe.recommend.method import METHOD_RULES, choose_method
from danlu.recipe.recommend.rules import FIXED_RULES, RULES


def recommend(recipe: Recipe, facts: Facts) -> list[Reason]:
    """Return a value and a reason for every `auto` of `recipe`."""
    reasons = []
    for path, rule in RULES.items():
        section, name = path.split(".")
        if getattr(getattr(recipe, section), name) == "auto":
            choice = rule(recipe, facts)
            if choice is not None:
                reasons.append(Reason(path, *choice))
                recipe = with_values(recipe, {path: choice.value})
    return reasons


def resolve(recipe: Recipe, facts: Facts) -> tuple[Recipe, list[Reason]]:
    """Return the recipe with every `auto` filled in, and the reasons."""
    reasons = recommend(recipe, facts)
    return with_values(recipe, {reason.path: reason.value for reason in reasons}), reasons


def recommend_all(recipe: Recipe, facts: Facts) -> tuple[Recipe, list[Reason]]:
    """Choose the method as well, then all that is `auto`; what no `auto` stands for gets its reason too.

    Only base model, data set, objective and split of `recipe` are kept as they are.
    """
    recipe, method = choose_method(recipe, facts)
    reasons = [method]
    for path, rule in METHOD_RULES.items():
        if path.split(".")[1] in type(recipe.method).model_fields:
            choice = rule(recipe, facts)
            recipe = with_values(recipe, {path: choice.value})
            reasons.append(Reason(path, *choice))
    recipe, rest = resolve(with_values(recipe, {"optim.warmup_ratio": "auto"}), facts)
    reasons += rest
    for path, fixed in FIXED_RULES.items():
        found = fixed(recipe, facts)
        if found is not None:
            recipe = with_values(recipe, {path: found.value})
            reasons.append(Reason(path, *found))
    return recipe, reasons


def with_values(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """Return a validated copy with dotted paths replaced."""
    content = recipe.to_dict()
    for path, value in values.items():
        section, name = path.split(".")
        content[section][name] = value
    return Recipe.model_validate(content)
