"""`studio.recipes`: look at a recipe before it runs."""

from __future__ import annotations

from danlu.client.transport import Method, Noun
from danlu.services.platform import recipes


class Recipes(Noun):
    """Recipes: check them, see what they would take."""

    check = Method(recipes.check_recipe)
    preview = Method(recipes.preview_run)
    schema = Method(recipes.get_recipe_schema)
