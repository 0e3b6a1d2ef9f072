"""A run's folder: the only place a stage reads and writes, and the API for analysing a run afterwards."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danlu.errors import RunBusyError, RunNotFoundError
from danlu.files import read_json, storage_errors, write_json


@dataclass(frozen=True)
class RunDir:
    """Paths of one run. Creating the object touches nothing."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> "RunDir":
        """Make the folder (and parents) where it is missing."""
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    @classmethod
    def open(cls, name: str | Path, runs_dir: Path) -> "RunDir":
        """Find a run by folder, by id, or by `last`.

        Raises:
            RunNotFoundError: there is no such run.
        """
        candidates = [Path(name), runs_dir / str(name)]
        if str(name) == "last":
            candidates = sorted(runs_dir.glob("*/run.json"), key=lambda p: p.stat().st_mtime, reverse=True)
            candidates = [p.parent for p in candidates[:1]]
        for candidate in candidates:
            if os.path.isfile(candidate / "run.json"):  # pathlib's own raises for a name that is too long
                return cls(candidate.resolve())
        known = sorted(p.parent.name for p in runs_dir.glob("*/run.json"))
        raise RunNotFoundError(
            f"no run {str(name)!r}",
            why=f"runs in {runs_dir}: {', '.join(known[-5:])}" if known else f"{runs_dir} holds no runs",
            fix="give a run id, a run folder, or `last`; list them with `danlu runs`",
        )

    @property
    def id(self) -> str:
        """Name of the folder."""
        return self.path.name

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.json"

    @property
    def record(self) -> Path:
        """`run.json`: state, versions, hardware, timing."""
        return self.path / "run.json"

    @property
    def data(self) -> Path:
        """train / validation / test .jsonl, dropped.jsonl, accounting.json, packed cache."""
        return self.path / "data"

    @property
    def metrics(self) -> Path:
        """One JSON object per optimizer step or validation."""
        return self.path / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """What happened and when."""
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """`step-000120/` folders, each with a manifest."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """Final adapter in PEFT's own format (methods that train one)."""
        return self.path / "adapter"

    @property
    def model(self) -> Path:
        """Final whole model (methods that change every weight)."""
        return self.path / "model"

    @property
    def evaluation(self) -> Path:
        """`<suite>.json` and generations.jsonl."""
        return self.path / "evaluation"

    @property
    def report_json(self) -> Path:
        """Machine-readable report."""
        return self.path / "report.json"

    @property
    def report_html(self) -> Path:
        """Self-contained report for a person."""
        return self.path / "report.html"

    @property
    def exports(self) -> Path:
        """One folder per exported format."""
        return self.path / "exports"

    def read_record(self) -> dict[str, Any]:
        """Return run.json, or an empty mapping before the run has started."""
        return dict(read_json(self.record)) if self.record.exists() else {}

    def update_record(self, **changes: Any) -> None:
        """Merge `changes` into run.json, atomically."""
        write_json(self.record, self.read_record() | changes)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the kernel releases it when the process dies.

        Raises:
            RunBusyError: another process holds it.
        """
        with storage_errors(self.path):
            file = (self.path / ".lock").open("a+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise RunBusyError(
                    f"run {self.id} is in use by process {file.read().strip() or '?'}",
                    why="two processes writing one run would corrupt it",
                    fix="wait for it, stop it with Ctrl-C, or choose another --run-dir",
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
