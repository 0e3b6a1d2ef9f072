"""Server-sent events: the lines of a stream as messages, and a stream that goes on where it was cut."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Happening:
    """One thing that happened to a run or in a log."""

    kind: str
    """`event`, `point` or `run` of a run; `log` or `attempt` of a job."""
    fields: dict[str, Any]
    position: str | None = None
    """Where to go on after it; None for what is only of the moment."""


def messages(lines: Iterable[str]) -> Iterator[Happening]:
    """Read the lines of an event stream; one that was cut in the middle of a message ends before it.

    Reference: WHATWG HTML, "Interpreting an event stream"; `retry` is left out, since the client has its own waiting.
    """
    kind, data, position = "", list[str](), None
    for line in lines:
        if not line:
            if data:
                yield Happening(kind or "message", json.loads("\n".join(data)), position)
            kind, data, position = "", [], None
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            position = value
