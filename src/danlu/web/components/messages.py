"""What went wrong and what to do about it; what went well; questions before something cannot be undone."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

import danlu
from danlu.data import reasons
from danlu.errors import DanluError, ForbiddenError, SignInError, chinese
from danlu.web.components.elements import Text, box, button, fold, paragraph
from danlu.web.session import Session

SECRET = re.compile(r"(?i)\b(dl_|hf_|sk-|ghp_)[\w-]{8,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)|\bBearer\s+\S+")


def redacted(text: str) -> str:
    """A text without what looks like a token or password."""
    return SECRET.sub("***", text)


def diagnostics(s: Session, error: DanluError) -> str:
    """What to send to someone who is to help."""
    return redacted(f"Danlu {danlu.__version__}\n{s.request.url.path}\n{error}")


def in_language(s: Session, sentence: str) -> str:
    """A sentence of an error, a mistake or a reason in the language of the page."""
    return chinese.in_chinese(sentence, reasons.in_chinese) if s.language == "zh" else sentence


def in_error_words(s: Session, error: DanluError) -> chinese.Told:
    """An error in the language of the page."""
    return chinese.told(error, reasons.in_chinese) if s.language == "zh" else chinese.Told(s.t("error.title"), error.what, error.why, error.fix)


def error_panel(s: Session, error: DanluError, *, where: str = "dl-card") -> ui.element:
    """What happened and how to go on; the reason folded, and on a Chinese page the words of the log."""
    told = in_error_words(s, error)
    made = box(where, "section").props("role=alert")
    with made:
        Text(told.title, "h2", "dl-bad")
        if told.what != told.title:
            paragraph(told.what, "dl-text")
        with box("dl-row top"):
            Text(s.t("error.fix"), "span", "dl-muted")
            Text(told.fix, "span", "dl-strong dl-text")
        with fold(s.t("error.why")):
            paragraph(f"{told.why} ({error.code})", "dl-text dl-muted")
        if told.what != error.what:
            original(s, str(error))
        with box("dl-row"):
            copy_button(s, diagnostics(s, error), s.t("error.copy"))
    return made


def original(s: Session, text: str) -> None:
    """What was said in English, folded: for the log, for a search, for whoever helps."""
    with fold(s.t("error.original")):
        Text(text, "p", "dl-text dl-muted dl-mono dl-small").props("lang=en")


def copy_button(s: Session, text: str, label: str) -> ui.element:
    """Put a text on the clipboard."""
    made = button(label, classes="small", symbol="content_copy")
    made.on("click", js_handler=f"() => window.danlu.copy({json.dumps(text)})")
    made.on("click", lambda: toast(s, s.t("basic.copied"), tone="good"), [])
    return made


def toast(s: Session, text: str, *, tone: str = "") -> None:
    """Say something briefly."""
    with s.toasts:
        with box(f"dl-toast {tone}").props("role=status") as made:
            Text(text)
        ui.timer(4.0, made.delete, once=True)  # here: what was pressed can be gone from the page by now


def error_toast(s: Session, error: DanluError) -> None:
    """Say that an action failed; it stays until it is closed, and is not said twice at a time. Who is signed out is asked to sign in again."""
    if isinstance(error, SignInError) and not s.actor.is_signed_in:
        with s.toasts:
            ui.run_javascript("window.danlu.signInAgain()")
        return
    before = s.told.get(error.what)
    if before is not None and not before.is_deleted:
        return
    with s.toasts:
        made = s.told[error.what] = error_panel(s, error, where="dl-toast bad")
        if isinstance(error, ForbiddenError):
            with made:
                paragraph(s.t("error.forbidden"))
        with made, box("dl-row"):
            button(s.t("basic.close"), made.delete, classes="small")


async def confirm(s: Session, title: str, text: str, *, do: str, danger: bool = False) -> bool:
    """Ask before something that cannot be undone."""
    return await choose(s, title, text, {"do": (do, "danger" if danger else "primary")}) == "do"


async def choose(s: Session, title: str, text: str, outcomes: dict[str, tuple[str, str]], *, can_cancel: bool = True) -> str | None:
    """Ask which of several outcomes is wanted; None when the dialog is closed. `can_cancel` adds a button that only closes it."""
    # Not where the button is: a list that is drawn anew while the question is open would take it away.
    with s.toasts, ui.dialog() as dialog, box("dl-dialog").props("role=dialog aria-modal=true") as content:
        content._props["aria-label"] = title
        Text(title, "h2")
        paragraph(text, "dl-text dl-muted")
        with box("dl-row"):
            for key, (label, classes) in outcomes.items():
                button(label, lambda key=key: dialog.submit(key), classes=classes)
            if can_cancel:
                button(s.t("basic.cancel"), dialog.close, classes="quiet")
    chosen = await dialog
    dialog.delete()
    return str(chosen) if chosen else None


def guarded(s: Session, action: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[None]]:
    """An action of a page: pressed twice it is done once, and what the operation refuses is told."""
    state = {"is_busy": False}

    async def carried_out(*args: Any) -> None:
        if state["is_busy"]:
            return
        state["is_busy"] = True
        try:
            await action(*args)
        except DanluError as error:
            error_toast(s, error)
        finally:
            state["is_busy"] = False

    async def with_event(event: Any) -> None:
        await carried_out(event)

    async def without_event() -> None:
        await carried_out()

    takes = [one for one in inspect.signature(action).parameters.values() if one.default is one.empty]
    return with_event if takes else without_event  # NiceGUI looks at the signature
