"""The members of a sweep as their folders show them: what its own process says of them, and what they have measured since. Holds no operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from danlu.files import read_json
from danlu.recipe.sweep import SweepConfig, ranked
from danlu.run_dir import RunDir
from danlu.services.platform.watching import Curve, thin

FOLDER = "sweep"
"""Folder of the sweep inside the run's folder."""
KEPT_POINTS = 400
"""Points of a curve that are kept of each member."""
KEPT_MEMBERS = 512
"""Members whose measurements are kept in memory: one that has not changed is not read again, whoever looks."""


@dataclass(frozen=True)
class Measurements:
    """What a member has measured so far."""

    step: int = 0
    num_steps: int | None = None
    best_loss: float | None = None
    best_step: int | None = None
    curves: tuple[Curve, ...] = ()
    """Loss in training and in validation."""


def table_of(run_folder: Path, config: SweepConfig) -> tuple[str | None, str | None, list[dict[str, Any]]]:
    """What the sweep's process said last, the name of its best member, and all members, best first.

    Before it has said anything, the members are those that it will try, where that is known.
    """
    path = run_folder / FOLDER / "results.json"
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    if not found:
        return None, None, ranked([_planned(number, settings) for number, settings in enumerate(config.members() if config.set else [], 1)])
    members = [{name: value for name, value in member.items() if name != "path"} for member in found["members"]]
    return found["state"], found.get("best"), ranked([_live(run_folder, member) for member in members])


def measurements_of(run_folder: Path, name: str) -> Measurements:
    """What a member has measured."""
    path = RunDir(run_folder / FOLDER / "runs" / name).metrics
    try:
        stat = path.stat()
    except FileNotFoundError:
        return Measurements()
    return _read(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _planned(number: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    nothing = {"validation_loss": None, "best_step": None, "steps": 0, "num_steps": None, "state": "waiting", "note": ""}
    return {"name": f"{number:03d}", "settings": dict(settings), **nothing}


def _live(run_folder: Path, member: dict[str, Any]) -> dict[str, Any]:
    """A member that is on its way, with what it has measured since the table was written."""
    if member["state"] != "training":
        return member
    now = measurements_of(run_folder, member["name"])
    if not now.step:
        return member
    return member | {"validation_loss": now.best_loss, "best_step": now.best_step, "steps": now.step, "num_steps": now.num_steps or member["num_steps"]}


@lru_cache(maxsize=KEPT_MEMBERS)
def _read(path: Path, inode: int, size: int, changed_ns: int) -> Measurements:
    """Read a metrics.jsonl; the rest of the arguments say which state of it."""
    train: list[tuple[int, float]] = []
    validation: list[tuple[int, float]] = []
    num_steps = None
    for line in path.read_bytes().split(b"\n")[:-1]:  # what has no newline yet is being written
        try:
            values = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue  # the run's own process says so
        if values.get("validation_loss") is not None:
            validation.append((int(values["step"]), float(values["validation_loss"])))
        elif values.get("loss") is not None:
            train.append((int(values["step"]), float(values["loss"])))
            num_steps = values.get("num_steps", num_steps)
    best = min(validation, key=lambda point: point[1], default=None)
    curves = [
        Curve(name, kind, [step for step, _ in thinned], [value for _, value in thinned])
        for name, kind, points in (("loss", "train", train), ("validation_loss", "validation", validation))
        if (thinned := thin(points, KEPT_POINTS))
    ]
    last = max((points[-1][0] for points in (train, validation) if points), default=0)
    return Measurements(last, num_steps, best and best[1], best and best[0], tuple(curves))
