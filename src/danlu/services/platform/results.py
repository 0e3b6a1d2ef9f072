"""What a run says of itself in its folder, kept with its row: resolved recipe, verdict, report, exports. Holds no operations."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from danlu.errors import StorageError
from danlu.files import read_json
from danlu.run_dir import RunDir
from danlu.services.platform.platform import Platform
from danlu.store import measurements
from danlu.store.engine import Connection
from danlu.store.runs import EVALUATIONS, EXPORTS, RUNS, Run

LIVE = ("loss", "learning_rate", "tokens_per_second", "peak_memory_bytes", "num_steps", "epoch", "num_tokens")
"""Numbers of the newest step that lists and cards show."""


@dataclass(frozen=True)
class Changes:
    """What is new about a run."""

    columns: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] | None = None

    def __bool__(self) -> bool:
        return bool(self.columns or self.report)


def changes(connection: Connection, run: Run, run_dir: RunDir) -> Changes:
    """Compare a run's folder with what is stored of it."""
    record, recipe, report = _read(run_dir.record) or {}, _read(run_dir.recipe), _read(run_dir.report_json)
    columns: dict[str, Any] = {"summary": _summary(connection, run, record, report)}
    if recipe is not None:
        columns |= {"resolved": recipe, "fingerprint": record.get("fingerprint")}
    if report is not None:
        columns["verdict"] = (report.get("verdict") or {}).get("label")
    stored = EVALUATIONS.find(connection, run_id=run.id)
    return Changes(
        {name: value for name, value in columns.items() if value != getattr(run, name)},
        report if report is not None and (stored is None or stored.report != report) else None,
    )


def keep(connection: Connection, run: Run, found: Changes) -> None:
    """Store what is new."""
    if found.columns:
        RUNS.update(connection, run.id, **found.columns)
    if found.report is not None:
        stored = EVALUATIONS.find(connection, run_id=run.id)
        if stored is None:
            EVALUATIONS.insert(connection, project_id=run.project_id, run_id=run.id, report=found.report)
        else:
            EVALUATIONS.update(connection, stored.id, report=found.report)


def new_exports(connection: Connection, run: Run, run_dir: RunDir) -> list[Path]:
    """Folders of exports that were verified after what is stored of them."""
    stored = {export.type: export.created_at for export in EXPORTS.all(connection, run_id=run.id)}
    return [path.parent for path in sorted(run_dir.exports.glob("*/verification.json")) if stored.get(path.parent.name, 0.0) < path.stat().st_mtime]


def keep_export(platform: Platform, run: Run, folder: Path) -> None:
    """Keep the files of an export as an artifact, in place of an earlier one of its form."""
    stored = platform.artifacts.put_folder(folder, is_final=True)
    with platform.database.writing() as connection:
        if RUNS.find(connection, id=run.id) is None:
            return
        for old in EXPORTS.all(connection, run_id=run.id, type=folder.name):
            EXPORTS.delete(connection, old.id)
        values = {"type": folder.name, "digest": stored.digest, "size_bytes": stored.size_bytes, "verification": _read(folder / "verification.json") or {}}
        EXPORTS.insert(connection, project_id=run.project_id, run_id=run.id, **values)


def _read(path: Any) -> dict[str, Any] | None:
    """The JSON object in a file; None when there is none, or it is damaged (the run's own process will say so)."""
    try:
        value = read_json(path)
    except (FileNotFoundError, NotADirectoryError, StorageError):
        return None
    return value if isinstance(value, dict) else None


def _summary(connection: Connection, run: Run, record: dict[str, Any], report: dict[str, Any] | None) -> dict[str, Any]:
    summary: dict[str, Any] = dict(run.summary or {})
    train, validation = (measurements.last_point(connection, run.id, kind) for kind in ("train", "validation"))
    if train is not None:
        summary |= {"step": train.step} | {name: train.values[name] for name in LIVE if name in train.values}
    if validation is not None:
        summary["validation_loss"] = validation.values.get("validation_loss")
    for name in ("forecast", "base_model", "timing", "memory", "wall_seconds", "reasons", "start", "merge"):
        if record.get(name) is not None:
            summary[name] = record[name]
    if report is not None:
        metrics, verdict = report.get("metrics") or {}, report.get("verdict") or {}
        summary["verdict"] = verdict or None
        summary["headline"] = metrics.get(verdict.get("metric")) if verdict else None
        summary["retention"] = (report.get("retention") or {}).get("label")
    return summary
