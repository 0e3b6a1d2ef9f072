"""How a stage tells the world what it does: numbers, events and progress, to files and to whoever listens."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from danlu.errors import StorageError
from danlu.files import append, storage_errors
from danlu.run_dir import RunDir

Listener = Callable[[str, dict[str, Any]], None]
"""Gets (kind, fields); kinds are `stage`, `progress`, `metrics`, and every event's own kind."""


class Reporter:
    """Appends to metrics.jsonl and events.jsonl and calls the listeners. Knows nothing of terminals or web pages."""

    def __init__(self, run_dir: RunDir, *listeners: Listener) -> None:
        self.run_dir, self.listeners = run_dir, listeners

    def listen(self, listener: Listener) -> None:
        """Let one more listener hear what is said from now on."""
        self.listeners = (*self.listeners, listener)

    def metrics(self, **values: Any) -> None:
        """Append one line to metrics.jsonl; `step` is expected among the values."""
        values = {"time": round(time.time(), 3), **values}
        self._append(self.run_dir.metrics, values)
        self._tell("metrics", values)

    def append(self, path: Path, value: dict[str, Any]) -> None:
        """Append one line to a log of the run's own (rollouts.jsonl); nobody listens to it."""
        self._append(path, value)

    def event(self, kind: str, message: str, **fields: Any) -> None:
        """Append one line to events.jsonl. `message` is one plain sentence for a person."""
        fields = {"time": round(time.time(), 3), "kind": kind, "message": message, **fields}
        self._append(self.run_dir.events, fields)
        self._tell(kind, fields)

    def stage(self, name: str, **fields: Any) -> None:
        """Say which stage begins: `data`, `training`, `evaluation`, `report`, `export`."""
        self.event("stage", f"{name} begins", stage=name, **fields)

    def relay(self, kind: str, fields: dict[str, Any]) -> None:
        """Pass on what a reporter of the same run has stored in another process."""
        self._tell(kind, fields)

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Say how far a pass has come. Not stored."""
        self._tell("progress", {"what": what, "done": done, "total": total})

    def _tell(self, kind: str, fields: dict[str, Any]) -> None:
        for listener in self.listeners:
            listener(kind, fields)

    def _append(self, path: Path, value: dict[str, Any]) -> None:
        """Append one line, or nothing of it; a reader sees whole lines or a last one without newline."""
        line = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"
        try:
            with storage_errors(path):
                descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                try:
                    append(descriptor, line)
                finally:
                    os.close(descriptor)
        except StorageError as error:
            # A full disk must not end training: say so where it can still be heard, and go on.
            self._tell("alarm", {"message": f"{path.name} misses a line: {error.why}"})


class SilentReporter(Reporter):
    """For the processes of a run that leave telling to the main one."""

    def _tell(self, kind: str, fields: dict[str, Any]) -> None:
        pass

    def _append(self, path: Path, value: dict[str, Any]) -> None:
        pass


def truncate_metrics(path: Path, *, after_step: int) -> None:
    """Drop lines of steps beyond `after_step` (and a half-written last line), so that a resumed run has each step once."""
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n") and orjson.loads(line).get("step", 0) <= after_step:
            kept.append(line)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(b"".join(kept))
    os.replace(temporary, path)
