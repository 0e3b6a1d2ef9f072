"""The listener that hands a run's metrics to its trackers, each in a thread of its own, so that a slow or broken one costs nothing.

Every row of metrics.jsonl reaches a tracker once, also when the run is killed and resumed: a tracker says which
steps it has, and gets the others.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from danlu.errors import StorageError
from danlu.files import read_json, read_jsonl, write_json
from danlu.tracking.base import TRACKERS, Tracker, TrackerConfig

if TYPE_CHECKING:
    from danlu.reporter import Reporter
    from danlu.run_dir import RunDir

CLOSE_SECONDS = 30.0
"""Longest wait for a tracker at the end of a run."""
NOT_SENT = (("data", "system"), ("training", "sample_prompts"))
"""Parts of the recipe that hold the user's own words."""


@contextmanager
def follow(names: Sequence[str], run_dir: RunDir, reporter: Reporter) -> Iterator[None]:
    """Let the trackers of these names follow the run while the context lasts.

    Without names those of an earlier attempt go on.

    Raises:
        UnknownNameError: there is no tracker of a name.
        MissingExtraError: its client is not installed.
    """
    path = run_dir.path / "tracking.json"
    states: dict[str, dict[str, Any]] = read_json(path) if path.exists() else {}
    configs: list[TrackerConfig] = [TRACKERS.parse(name) for name in dict.fromkeys(names or states)]
    for config in configs:
        config.require()

    def save() -> None:
        with suppress(StorageError):  # a full disk is told where it matters
            write_json(path, states | {follower.config.type: follower.state for follower in followers})

    followers = [Follower(config, run_dir, reporter, states.get(config.type, {}), save) for config in configs]
    for follower in followers:
        reporter.listen(follower)
    try:
        yield
    finally:
        for follower in followers:
            follower.close()


class Follower:
    """One tracker beside a run."""

    def __init__(self, config: TrackerConfig, run_dir: RunDir, reporter: Reporter, state: dict[str, Any], save: Callable[[], None]) -> None:
        self.config, self.run_dir, self.reporter, self.state, self._save = config, run_dir, reporter, state, save
        self._tracker: Tracker | None = None
        self._sent: dict[str, int] = {}
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"danlu-{config.type}")
        self._work: deque[Future[Any]] = deque()
        self._has_begun = self._has_failed = self._is_told = False

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        """Listen; rows are sent later, in order."""
        if kind != "metrics" or self._has_failed:
            return
        if not self._has_begun:  # only now: a resumed loop has cut metrics.jsonl back to its checkpoint before its first row
            self._has_begun = True
            self._work.append(self._executor.submit(self._open))
        self._work.append(self._executor.submit(self._send, fields))
        self._look()

    def close(self) -> None:
        """Wait for what is under way, but not for ever."""
        deadline = time.monotonic() + CLOSE_SECONDS
        if self._has_begun and not self._has_failed:
            self._work.append(self._executor.submit(self._close))
        while self._work and not self._has_failed and time.monotonic() < deadline:
            self._look()
            time.sleep(0.01)
        is_stuck = bool(self._work) and not self._has_failed
        if is_stuck:
            self._fail(f"no answer within {CLOSE_SECONDS:g} seconds")
        self._executor.shutdown(wait=not is_stuck, cancel_futures=True)
        if self._has_begun:
            self._save()

    def _open(self) -> None:
        tracker = self.config.open(self.run_dir, _config(self.run_dir), self.state)
        self._tracker, self.state = tracker, tracker.state
        for row in read_jsonl(self.run_dir.metrics):
            self._send(row)

    def _send(self, row: dict[str, Any]) -> None:
        assert self._tracker is not None
        step = int(row["step"])
        values = {
            key: float(value) for key, value in row.items() if key not in ("step", "time") and isinstance(value, int | float) and not isinstance(value, bool)
        }
        values = {key: value for key, value in values.items() if step > self._sent.setdefault(key, self._tracker.last_step(key))}
        if values:
            self._tracker.log(step, float(row["time"]), values)
            self._sent |= dict.fromkeys(values, step)

    def _close(self) -> None:
        assert self._tracker is not None
        self._tracker.close()
        self.state = self._tracker.state

    def _look(self) -> None:
        """Report what has happened in the thread since the last look."""
        while self._work and self._work[0].done():
            error = self._work.popleft().exception()
            if error is not None:
                self._fail(str(error) or type(error).__name__)
                return
            if self._tracker is not None and not self._is_told:
                self._is_told = True
                self._save()
                self.reporter.event("tracking", f"{self.config.type} follows this run: {self._tracker.where}", tracker=self.config.type)

    def _fail(self, reason: str) -> None:
        self._has_failed = True
        for waiting in self._work:
            waiting.cancel()
        self._work.clear()
        shown = " ".join(self._without_secrets(reason).split())[:200]
        self.reporter.event("tracker_failed", f"{self.config.type} no longer follows this run: {shown}", tracker=self.config.type)

    def _without_secrets(self, text: str) -> str:
        for name, value in os.environ.items():
            if name.startswith(self.config.secrets or ("\0",)) and len(value) >= 6:
                text = text.replace(value, "***")
        return text


def _config(run_dir: RunDir) -> dict[str, Any]:
    """The resolved recipe by dotted path, without the user's own words."""
    recipe = read_json(run_dir.recipe) if run_dir.recipe.exists() else {}
    for section, key in NOT_SENT:
        recipe.get(section, {}).pop(key, None)
    return dict(_flat(recipe))


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield prefix + key, item if isinstance(item, str | int | float | bool) or item is None else str(item)
