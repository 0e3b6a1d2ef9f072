"""Danlu: turn a general language model into your own specialist, and prove that it got better.

The names below are the public Python API. They are loaded when they are first used, so that `import danlu` stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from danlu.client import Studio
    from danlu.errors import DanluError
    from danlu.recipe.load import load_recipe
    from danlu.recipe.recipe import Recipe
    from danlu.services.runs import list_runs, report, resume, run

__all__ = ["DanluError", "Recipe", "Studio", "__version__", "list_runs", "load_recipe", "report", "resume", "run"]
__version__ = "0.1.0"

_PLACES = {
    "DanluError": "danlu.errors",
    "Recipe": "danlu.recipe.recipe",
    "Studio": "danlu.client",
    "list_runs": "danlu.services.runs",
    "load_recipe": "danlu.recipe.load",
    "report": "danlu.services.runs",
    "resume": "danlu.services.runs",
    "run": "danlu.services.runs",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'danlu' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
