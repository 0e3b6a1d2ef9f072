"""What a job's log says of its run: what begins, what happened, how far it is. Not a word of the data: answers stand on the run's page alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from danlu.text import printable

EVERY_SECONDS = 10.0
"""Between lines that only say how far it is."""
CONTENT = ("sample",)
"""Events that hold what people or models wrote."""


class JobLog:
    """A listener of a run that writes lines to standard output, which is the job's log."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = -EVERY_SECONDS

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        """Write what is worth a line."""
        if kind == "metrics":
            self._metrics(fields)
        elif kind == "progress":
            if self._is_due():
                self._write(f"  {fields['what']}: {fields['done']:,}" + (f" of {fields['total']:,}" if fields["total"] else ""))
        elif kind not in CONTENT:
            self._write(f"{'' if kind == 'stage' else '  '}{fields.get('message', kind)}")

    def of_member(self, member: str, kind: str, fields: dict[str, Any]) -> None:
        """The same of one of several runs ("" of all of them), without numbers: those of runs that train at the same time say nothing in one log."""
        if kind not in ("metrics", "progress"):
            self(kind, fields | {"message": f"{member}: {fields.get('message', kind)}"} if member else fields)

    def _metrics(self, fields: dict[str, Any]) -> None:
        measured = [f"{name.replace('_', ' ')} {fields[name]:.4f}" for name in ("validation_reward", "validation_loss") if name in fields]
        if measured:
            self._write(f"  step {fields['step']}: {measured[0]}")
        elif "loss" in fields and (self._is_due() or fields["step"] == fields["num_steps"]):
            self._write(f"  step {fields['step']} of {fields['num_steps']}: loss {fields['loss']:.4f}")

    def _is_due(self) -> bool:
        if self._clock() - self._last < EVERY_SECONDS:
            return False
        self._last = self._clock()
        return True

    @staticmethod
    def _write(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {printable(text)}", flush=True)
