"""Everything a run knows about itself, gathered from its folder into report.json, then shown as report.html.

Works on any run: without evaluation, without validation, of plain text. What was not measured is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.evaluation import scorecard
from danlu.evaluation.report import page
from danlu.evaluation.report.cases import best_and_worst
from danlu.evaluation.report.curves import read_curves
from danlu.evaluation.report.samples import read_samples
from danlu.files import read_json, write_json, write_text

if TYPE_CHECKING:
    from danlu.evaluation.report.curves import Curves
    from danlu.recipe.recipe import Recipe
    from danlu.run_dir import RunDir

SCHEMA_VERSION = 1


def build(recipe: Recipe, run_dir: RunDir, *, coach: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Write report.json and report.html (each atomically) and return the content of the first.

    `coach` holds the diagnoses of the training; whoever calls has asked for them.
    """
    curves = read_curves(run_dir.metrics)
    report = facts(recipe, run_dir, curves, coach)
    write_json(run_dir.report_json, report)
    write_text(run_dir.report_html, page.render(report, curves))
    return report


def facts(recipe: Recipe, run_dir: RunDir, curves: Curves, coach: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """The content of report.json: plain values without NaN."""
    card = scorecard.build(recipe, run_dir)
    record, training = run_dir.read_record(), _optional(run_dir.path / "training.json")
    heldout = _optional(run_dir.evaluation / "heldout.json")
    report = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_dir.id,
        "state": record.get("state"),
        "created": record.get("created"),
        "verdict": card["verdict"],
        "metrics": card["metrics"],
        "retention": card["retention"],
        "rounds": card["rounds"],
        "heldout": card["heldout"],
        "warnings": card["warnings"],
        "coach": list(coach),
        "rows": _optional(run_dir.data / "accounting.json"),
        "encoded": _optional(run_dir.data / "encoded.json"),
        "training": _training(training, curves),
        "timing": _timing(record, training, card["seconds"]),
        "memory": _memory(record, training, curves),
        "forecast": record.get("forecast"),
        "disk": _disk(run_dir),
        "reasons": record.get("reasons", []),
        "base_model": record.get("base_model"),
        "recipe": recipe.to_dict(),
        "fingerprint": record.get("fingerprint") or recipe.fingerprint,
        "environment": record.get("environment", {}),
        "samples": read_samples(run_dir),
        "examples": best_and_worst(heldout, run_dir) if heldout else {"best": [], "worst": []},
    }
    return dict(scorecard.finite(report))


def _optional(path: Path) -> Any:
    return read_json(path) if path.exists() else None


def _training(training: dict[str, Any] | None, curves: Curves) -> dict[str, Any] | None:
    """training.json and the ends of the curves; None when nothing was trained."""
    if training is None and not curves.train:
        return None
    ends = {
        "first_loss": curves.train[0][1] if curves.train else None,
        "last_loss": curves.train[-1][1] if curves.train else None,
        "first_validation_loss": curves.validation[0][1] if curves.validation else None,
        "best_validation_loss": min((loss for _, loss in curves.validation), default=None),
        "last_validation_loss": curves.validation[-1][1] if curves.validation else None,
        "median_tokens_per_second": curves.median_tokens_per_second(),
    }
    return {**(training or {}), **ends}


def _timing(record: dict[str, Any], training: dict[str, Any] | None, seconds: dict[str, float]) -> dict[str, Any]:
    timing = dict(record.get("timing") or {})
    if record.get("wall_seconds") is not None:
        timing["wall_seconds"] = record["wall_seconds"]
    if training and training.get("training_seconds") is not None:
        timing["optimizer_steps_seconds"] = training["training_seconds"]
    return timing | {f"evaluation_{name}_seconds": value for name, value in seconds.items()}


def _disk(run_dir: RunDir) -> dict[str, int]:
    """Bytes on disk of what a forecast speaks of."""
    places = {"data": [run_dir.data], "checkpoints": [run_dir.checkpoints], "result": [run_dir.adapter, run_dir.model], "exports": [run_dir.exports]}
    sizes = {f"{name}_bytes": sum(_size(folder) for folder in folders) for name, folders in places.items()}
    return {**sizes, "disk_bytes": sum(sizes.values())}


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _memory(record: dict[str, Any], training: dict[str, Any] | None, curves: Curves) -> dict[str, Any]:
    peak = (training or {}).get("peak_memory_bytes") or curves.peak_memory_bytes
    return {**(record.get("memory") or {}), **({"training_peak_bytes": peak} if peak else {})}
