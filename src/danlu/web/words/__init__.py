"""Every text of the studio, English and Chinese side by side: one module for each page, keys begin with its name."""

from __future__ import annotations

from importlib import import_module
from typing import Literal

Language = Literal["en", "zh"]
Label = tuple[str, str]
"""(English, Chinese)."""
MODULES = (
    "account", "advisor", "basic", "chart", "chat", "compare_runs", "datasets", "error", "form", "glossary", "help", "home", "models", "new_run",
    "people", "preview", "project", "proof", "queue", "run", "settings", "shell", "sign_in", "state", "sweeps",
)  # fmt: skip


def _gathered() -> dict[str, Label]:
    found: dict[str, Label] = {}
    for name in MODULES:
        words: dict[str, Label] = import_module(f"danlu.web.words.{name}").WORDS
        found |= {f"{name}.{key}": label for key, label in words.items()}
    return found


CATALOGUE = _gathered()


def say(language: Language, key: str, **values: object) -> str:
    """Return the text of a key, with its `{places}` filled."""
    text = CATALOGUE[key][language == "zh"]
    return text.format(**values) if values else text
