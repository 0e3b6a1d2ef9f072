"""The one rule set: a value for everything a recipe leaves open, each with its reason in both languages and its source."""

from danlu.recipe.recommend.choose import recommend, recommend_all, resolve, with_values
from danlu.recipe.recommend.facts import GOALS, Facts, Goal, Reason

__all__ = ["GOALS", "Facts", "Goal", "Reason", "recommend", "recommend_all", "resolve", "with_values"]
