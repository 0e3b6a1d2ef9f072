"""A form made from the recipe's schema: grouped, searchable, what was changed marked, mistakes beside their fields."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import yaml
from nicegui import ui

from danlu.web import numbers
from danlu.web.components.elements import Text, badge, box, fold, help_tip
from danlu.web.components.fields import choice, text_field
from danlu.web.components.messages import guarded, in_language
from danlu.web.schema_fields import GROUPS, FormField, fields_of, value_at
from danlu.web.session import Session
from danlu.web.words.recipe import help_zh

Change = Callable[[str, Any], Awaitable[None]]


def field_help(s: Session, field: FormField) -> str:
    """One sentence on a setting."""
    return help_zh(field.path, field.variant) if s.language == "zh" else field.help


class SchemaForm:
    """Every setting of a recipe."""

    def __init__(self, s: Session, recipe: dict[str, Any], changed: set[str], change: Change) -> None:
        self.s, self.change = s, change
        self.rows: list[tuple[str, ui.element]] = []
        self.groups: list[tuple[ui.element, list[ui.element]]] = []
        self.notes: dict[str, Text] = {}
        search = text_field(s.t("new_run.search"), on_change=lambda event: self._find(str(event.value or "")))
        search.props("type=search clearable=false")
        fields = fields_of(recipe)
        for group in GROUPS:
            of_group = [field for field in fields if field.group == group]
            if of_group:
                self._group(group, of_group, recipe, changed)
        self.nothing = Text(s.t("form.none_found"), "p", "dl-muted")
        self.nothing.set_visibility(False)

    def tell(self, mistakes: list[str]) -> None:
        """Show each mistake beside its field."""
        for path, place in self.notes.items():
            found = [line for line in mistakes if line.strip().startswith(f"{path.removesuffix('.type')}:")]
            place.text = " ".join(in_language(self.s, line).strip().removeprefix(path.removesuffix(".type")).lstrip(":\uff1a ") for line in found)

    def _group(self, group: str, fields: list[FormField], recipe: dict[str, Any], changed: set[str]) -> None:
        with fold(self.s.t(f"form.group_{group}")) as made:
            if any(field.path in changed for field in fields):
                made.props("open")
            rows = []
            with box("dl-formgrid"):
                for field in fields:
                    with box("dl-field") as row:
                        self._row(field, value_at(recipe, field.path, field.default), field.path in changed)
                    rows.append(row)
                    self.rows.append((f"{field.path} {field_help(self.s, field)}".lower(), row))
        self.groups.append((made, rows))

    def _row(self, field: FormField, value: Any, is_changed: bool) -> None:
        s = self.s
        with box("dl-row"):
            Text(field.path.partition(".")[2] or field.path, "span", "dl-mono dl-strong")
            if explained := field_help(s, field):
                help_tip(s, explained)
            if is_changed:
                badge(s.t("form.changed"), "accent")
        if isinstance(value, dict) and field.path.endswith(".type"):
            value = value.get("type")
        if field.kind == "switch":
            made: ui.element = ui.switch(value=bool(value), on_change=guarded(s, lambda event: self.change(field.path, event.value)))
            made._props["aria-label"] = field.path
        elif field.kind == "choice":
            options = list(field.options) if value in field.options else [value, *field.options]
            choice(field.path, {option: str(option) for option in options}, value, guarded(s, lambda event: self.change(field.path, event.value)))
        else:
            shown = (
                ""
                if value is None
                else value
                if isinstance(value, str)
                else yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).strip().removesuffix("...").strip()
            )
            entry = text_field(field.path, shown)
            entry._props["placeholder"] = s.t("form.default", value=numbers.setting(field.default))
            entry.on("change", guarded(s, lambda: self._typed(field, str(entry.value or ""))), [])
        self.notes[field.path] = Text("", "span", "dl-small dl-bad")

    async def _typed(self, field: FormField, text: str) -> None:
        try:
            value = text if field.kind == "text" and text else yaml.safe_load(text) if text.strip() else None
        except yaml.YAMLError:
            self.notes[field.path].text = self.s.t("form.not_a_value", text=text[:60])
            return
        if isinstance(value, str) and field.kind == "number" and "e" in value.lower():
            value = _number(value)
        await self.change(field.path, value)

    def _find(self, text: str) -> None:
        words = text.lower().split()
        for content, row in self.rows:
            row.set_visibility(all(word in content for word in words))
        is_any = False
        for group, rows in self.groups:
            shown = any(row.visible for row in rows)
            is_any = is_any or shown
            group.set_visibility(shown)
            if words and shown:
                group.props("open")
        self.nothing.set_visibility(not is_any)


def _number(text: str) -> Any:
    """YAML takes `1e-4` for a word; people take it for a number."""
    try:
        return float(text)
    except ValueError:
        return text
