"""How answers are drawn: temperature, length, system prompt; as a form, and as the options of an address."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from danlu.web.components.elements import Text, box, help_tip, segmented
from danlu.web.components.fields import text_area
from danlu.web.components.messages import guarded
from danlu.web.session import Session

PRESETS = {"exact": (0.0, 1.0), "balanced": (0.7, 0.9), "free": (1.1, 0.95)}
LIMITS = {"temperature": (0.0, 2.0, 0.1), "top_p": (0.05, 1.0, 0.05), "max_new_tokens": (1, 2048, 1)}
"""(lowest, highest, step)."""
MAX_SHARED_CHARS = 1500
"""A longer system prompt does not go into a link: addresses have a limit."""
Change = Callable[[], Awaitable[Any]]


@dataclass
class Parameters:
    """How answers are drawn."""

    temperature: float = 0.7
    top_p: float = 0.9
    max_new_tokens: int = 128
    system: str = ""

    def take(self, values: Mapping[str, Any]) -> None:
        """Take what is there and makes sense: a draft, or the options of an address."""
        for name, (low, high, _) in LIMITS.items():
            try:
                number = float(values[name])
            except (KeyError, TypeError, ValueError):
                continue
            if low <= number <= high:
                setattr(self, name, int(number) if name == "max_new_tokens" else number)
        if isinstance(values.get("system"), str):
            self.system = values["system"]

    def shared(self) -> dict[str, str]:
        """The options of an address that says the same."""
        told = {name: f"{getattr(self, name):g}" for name in LIMITS}
        return told | ({"system": self.system} if self.system and len(self.system) <= MAX_SHARED_CHARS else {})


class ParameterForm:
    """The fields; `changed` is called after each change."""

    def __init__(self, s: Session, parameters: Parameters, changed: Change) -> None:
        self.s, self.parameters, self.changed = s, parameters, changed
        with box("dl-col wide"):
            self.presets = box()
            self._draw_presets()
            with box("dl-grid3"):
                self.temperature = self._number("temperature", "temperature")
                self.top_p = self._number("top_p", "top_p")
                self._number("max_new_tokens", "length")
            with box("dl-row"):
                Text(s.t("chat.system"), "span", "dl-label")
                help_tip(s, s.t("chat.system_help"))
            system = text_area(s.t("chat.system"), parameters.system, rows=2)
            system.on("blur", guarded(s, lambda: self._take(system=str(system.value or ""))), [])

    def _draw_presets(self) -> None:
        s, p = self.s, self.parameters
        chosen = next((name for name, values in PRESETS.items() if values == (p.temperature, p.top_p)), "")
        self.presets.clear()
        with self.presets:
            segmented({name: s.t(f"chat.preset_{name}") for name in PRESETS}, chosen, guarded(s, self._preset), s.t("chat.presets"))

    async def _preset(self, name: str) -> None:
        temperature, top_p = PRESETS[name]
        self.temperature.set_value(temperature)
        self.top_p.set_value(top_p)
        await self._take(temperature=temperature, top_p=top_p)

    async def _take(self, **values: Any) -> None:
        self.parameters.take(values)
        self._draw_presets()
        await self.changed()

    def _number(self, name: str, words: str) -> ui.number:
        s, (low, high, step) = self.s, LIMITS[name]
        with box("dl-field"):
            with box("dl-row"):
                Text(s.t(f"chat.{words}"), "span", "dl-label")
                help_tip(s, s.t(f"chat.{words}_help"))
            made = ui.number(value=getattr(self.parameters, name), min=low, max=high, step=step).props("outlined dense")
            made._props["aria-label"] = s.t(f"chat.{words}")
            made.on("blur", guarded(s, lambda: self._take(**{name: made.value})), [])
        return made
