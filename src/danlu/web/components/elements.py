"""The smallest parts: text, links, buttons, badges, help. Texts are always shown as text, never as HTML."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from danlu.web.session import Session

Tone = Literal["", "good", "warn", "bad", "accent"]
STATE_TONES: dict[str, Tone] = {
    "running": "accent", "succeeded": "good", "failed": "bad", "paused": "warn", "pausing": "warn", "cancelling": "warn", "improved": "good",
    "no_difference": "warn", "regressed": "bad", "kept": "good", "slightly_worse": "warn", "forgotten": "bad",
}  # fmt: skip


class Text(TextElement):
    """An element that holds a text."""

    def __init__(self, text: str, tag: str = "span", classes: str = "") -> None:
        super().__init__(tag=tag, text=text)
        self.classes(classes)


def box(classes: str = "", tag: str = "div") -> ui.element:
    """An element that holds others."""
    return ui.element(tag).classes(classes)


def paragraph(text: str, classes: str = "") -> Text:
    """A sentence or several."""
    return Text(text, "p", classes)


def icon(name: str) -> ui.icon:
    """A picture beside a text that says the same."""
    return ui.icon(name).props("aria-hidden=true")


def link(text: str, href: str, classes: str = "", *, new_tab: bool = False) -> ui.element:
    """A link to a page."""
    made = Text(text, "a", classes)
    made._props["href"] = href
    if new_tab:
        made.props("target=_blank rel=noopener")
    return made


def button(
    text: str, on_click: Callable[..., Any] | None = None, *, classes: str = "", symbol: str = "", href: str | None = None, why_not: str | None = None
) -> ui.element:
    """A button, or a link that looks like one. `why_not` greys it and says why it cannot be pressed."""
    made = box(f"dl-btn {classes}", "a" if href is not None and why_not is None else "button")
    if why_not is not None:
        made.props("type=button aria-disabled=true")
        made._props["data-tip"] = why_not
    elif href is not None:
        made._props["href"] = href
    else:
        made.props("type=button")
        if on_click is not None:
            made.on("click", on_click, [])
    with made:
        if symbol:
            icon(symbol)
        Text(text)
    return made


def badge(text: str, tone: Tone = "") -> Text:
    """A word on a coloured ground."""
    return Text(text, "span", f"dl-badge {tone}")


def state_badge(s: Session, state: str) -> Text:
    """The state of a run or job, or a verdict."""
    return badge(s.t(f"state.{state}"), STATE_TONES.get(state, ""))


def help_tip(s: Session, text: str) -> ui.element:
    """A question mark whose bubble explains; reached by keyboard too."""
    made = Text("?", "button", "dl-help")
    made.props("type=button")
    made._props["data-tip"] = text
    made._props["aria-label"] = f"{s.t('basic.help')}: {text}"
    return made


def term(s: Session, name: str) -> ui.element:
    """A word of the glossary, explained on hover and focus."""
    made = Text(s.t(f"glossary.{name}"), "span", "dl-term")
    made.props("tabindex=0")
    made._props["data-tip"] = s.t(f"glossary.{name}_means")
    return made


def moment(seconds: float | None) -> ui.element:
    """A time, relative to now, the absolute one on hover; kept true by the page itself."""
    if seconds is None:
        return Text("\u2013")
    made = box("", "time")
    made._props["data-at"] = f"{seconds:.3f}"
    return made


def card(title: str = "", classes: str = "", *, tip: str = "", s: Session | None = None) -> ui.element:
    """A framed part of a page."""
    made = box(f"dl-card {classes}", "section")
    if title:
        with made, box("dl-cardhead"), box("dl-row"):
            Text(title, "h2")
            if tip and s is not None:
                help_tip(s, tip)
    return made


def facts(pairs: list[tuple[str, str]]) -> ui.element:
    """Names and values side by side."""
    made = box("dl-facts", "dl")
    with made:
        for name, value in pairs:
            with box():
                Text(name, "dt")
                Text(value, "dd")
    return made


def pairs(rows: list[tuple[str, str]], classes: str = "") -> ui.element:
    """Names and values, one below the other."""
    made = box(f"dl-pairs {classes}", "dl")
    with made:
        for name, value in rows:
            Text(name, "dt")
            Text(value, "dd")
    return made


def note(text: str, tone: Tone = "", title: str = "") -> ui.element:
    """A remark that should not be overlooked."""
    made = box(f"dl-note {tone}")
    with made:
        if title:
            Text(title, "div", "dl-strong")
        Text(text, "div", "dl-text")
    return made


def empty(symbol: str, title: str, text: str) -> ui.element:
    """What an empty page teaches; the caller adds its button."""
    made = box("dl-card dl-empty", "section")
    with made:
        icon(symbol)
        Text(title, "h2")
        paragraph(text)
    return made


def no_project(s: Session, symbol: str) -> None:
    """What a page of a project teaches where there is none yet."""
    with empty(symbol, s.t("home.no_project_title"), s.t("home.project_text")):
        button(s.t("home.no_project_go"), href="/", classes="primary")


def bar(share: float, label: str, tone: Tone = "") -> ui.element:
    """How much of something is used or done."""
    made = box("dl-bar").props("role=progressbar aria-valuemin=0 aria-valuemax=100")
    made._props["aria-label"] = label
    with made:
        box()
    move_bar(made, share, tone)
    return made


def move_bar(made: ui.element, share: float, tone: Tone = "") -> None:
    """Show another share in a bar."""
    percent = 100 * min(1.0, max(0.0, share))
    made.classes(replace=f"dl-bar {tone}")
    made.props(f"aria-valuenow={percent:.0f}")
    made.default_slot.children[0].style(replace=f"width: {percent:.1f}%")


def fold(title: str) -> ui.element:
    """A part that is opened on demand."""
    made = box("dl-fold", "details")
    with made:
        Text(title, "summary")
    return made


def segmented(options: dict[str, str], value: str, choose: Callable[[str], Any], label: str) -> ui.element:
    """A few choices of which one holds."""
    made = box("dl-seg").props("role=group")
    made._props["aria-label"] = label
    buttons: dict[str, ui.element] = {}

    def pressed(key: str) -> Any:
        for name, other in buttons.items():
            other.props(f"aria-pressed={'true' if name == key else 'false'}")
        return choose(key)

    with made:
        for key, text in options.items():
            buttons[key] = Text(text, "button").props(f"type=button aria-pressed={'true' if key == value else 'false'}")
            buttons[key].on("click", lambda _, key=key: pressed(key), [])
    return made


def option(title: str, text: str, is_chosen: bool, on_click: Any, tag: str = "", mark: tuple[str, Tone] | None = None) -> None:
    """One of several things to choose, with a sentence on it and a badge where it has one."""
    with box("dl-option", "button").props(f"type=button aria-pressed={'true' if is_chosen else 'false'}") as made:
        if tag:
            Text(tag, "span", "dl-small dl-muted")
        with box("dl-row", "span"):
            Text(title, "span", "dl-strong")
            if mark is not None:
                badge(*mark)
        if text:
            Text(text, "span", "dl-small dl-muted dl-text")
    made.on("click", on_click, [])
