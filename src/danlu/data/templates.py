"""Chat templates are programs that come with a tokenizer. They run in Jinja's sandbox; here their time is limited.

A template can loop for ever, which the sandbox allows. A limit on the processor time of each rendering ends that; what one
instruction could do without end (powers of large numbers) is refused before.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from danlu.errors import TemplateError

MAX_TEMPLATE_CHARS = 1_000_000
MAX_NUMBER = 1_000_000
RENDER_SECONDS = 10.0
"""Processor time of one rendering. A conversation of a megabyte takes some hundredths."""


def check_template(template: str) -> None:
    """Refuse a template that could do endless work in one instruction.

    Raises:
        TemplateError: it could, or it is no template.
    """
    from jinja2 import Environment
    from jinja2 import TemplateError as JinjaError

    if len(template) > MAX_TEMPLATE_CHARS:
        raise _refused(f"it has {len(template):,} characters")
    try:
        for line, kind, text in Environment(autoescape=False).lex(template):
            if kind == "operator" and text == "**":
                raise _refused(f"line {line} raises a number to a power")
            if kind == "integer" and len(text) > len(str(MAX_NUMBER)):
                raise _refused(f"line {line} has the number {text[:20]}")
    except JinjaError as error:
        raise TemplateError("the chat template is no Jinja template", why=str(error), fix="use the tokenizer of a chat model") from error


@contextmanager
def time_limit(seconds: float = RENDER_SECONDS) -> Iterator[None]:
    """End what runs inside after so much processor time.

    Raises:
        TemplateError: it took longer.
    """
    # LIMIT: only the main thread of a process can be interrupted (docs/limits.md#templates); rendering happens in job processes, which can be ended.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise TemplateError(
            "the chat template takes too long",
            why=f"it did not end within {seconds:g} seconds of processor time",
            fix="use another tokenizer: this one may never end",
        )

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


def _refused(why: str) -> TemplateError:
    return TemplateError("the chat template could run without end", why=why, fix="use a tokenizer from a source you trust")
