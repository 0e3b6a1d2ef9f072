"""Fields of forms: Quasar's, always with a label that a screen reader finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import ui

from danlu.web.components.elements import Text, box


def text_field(label: str, value: str = "", *, maxlength: int | None = None, on_change: Callable[..., Any] | None = None) -> ui.input:
    """One line of text."""
    made = ui.input(placeholder=label, value=value, on_change=on_change).props("outlined dense").style("flex: 1 1 220px; max-width: 420px")
    made._props["aria-label"] = label
    if maxlength is not None:
        made.props(f"maxlength={maxlength}")
    return made


def choice(label: str, options: dict[Any, str], value: Any, on_change: Callable[..., Any] | None = None) -> ui.select:
    """One of several."""
    made = ui.select(options, value=value, on_change=on_change).props("outlined dense options-dense").style("min-width: 160px")
    made._props["aria-label"] = label
    return made


def labelled_choice(label: str, options: dict[Any, str], value: Any, on_change: Callable[..., Any] | None = None) -> ui.select:
    """One of several, with its label above it: for choices whose values do not say what they are about."""
    with box("dl-field"):
        Text(label, "span", "dl-small dl-muted").props("aria-hidden=true")
        return choice(label, options, value, on_change)


def text_area(label: str, value: str = "", *, rows: int = 8, is_code: bool = False) -> ui.textarea:
    """Several lines of text."""
    made = ui.textarea(value=value).props(f"outlined rows={rows} debounce=400").style("width: 100%")
    made._props["aria-label"] = label
    if is_code:
        made.props("input-class=dl-mono spellcheck=false")
    return made


def password_field(label: str) -> ui.input:
    """One line that is not shown; a label stands above it, since managers of passwords look for one."""
    made = ui.input(label=label).props("outlined dense type=password autocomplete=new-password").style("flex: 1 1 220px; max-width: 420px")
    made.props("maxlength=256")
    return made
