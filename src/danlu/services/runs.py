"""Use cases on runs: start or continue one, find it, list them, read a report. Every door calls these."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from danlu.errors import NoEffectError, OutOfMemoryError, StorageError, is_out_of_memory
from danlu.files import read_json, sweep, write_json
from danlu.recipe.load import validate
from danlu.recipe.placement import Placement
from danlu.recipe.recipe import Recipe
from danlu.reporter import Listener, Reporter
from danlu.run_dir import RunDir
from danlu.services import pipeline, processes
from danlu.services.reports import build_report, diagnoses
from danlu.settings import Settings
from danlu.tracking.base import TRACKERS
from danlu.tracking.follow import follow


@dataclass(frozen=True)
class RunResult:
    """How a call of `run` ended."""

    run_dir: RunDir
    outcome: str
    """`finished` or `paused`; `followed` in the processes that only take part in training (torchrun)."""
    report: dict[str, Any] | None
    """Content of report.json when finished."""


def run(
    written: Recipe,
    *,
    run_dir: Path | None = None,
    new: bool = False,
    listeners: Iterable[Listener] = (),
    placement: Placement | None = None,
    track: Sequence[str] = (),
    paths: Mapping[str, str] = MappingProxyType({}),
) -> RunResult:
    """Carry out `written` from data to report and exports, or go on with the unfinished run of the same recipe.

    Every stage leaves its results in the run folder and is skipped when they are there, so a run that was killed
    at any instant goes on where it was. `placement` says in how many processes it trains; started by torchrun, it is
    one of them. `track` names the trackers that follow it (`tensorboard`, ...). `paths` says where names of the recipe
    lie that are no paths themselves.
    """
    if (launched := processes.launched_by_torchrun()) and launched[0]:
        return RunResult(processes.follow(), "followed", None)
    check_trackers(track)
    paths = local_paths(written, paths)
    found = RunDir.create(run_dir) if run_dir is not None else _unfinished_run(written, paths, new) or _new_run_dir(written)
    with found.lock():
        claim(found, written, paths)
        return _carry_out(found, written, listeners, placement, track)


def _carry_out(found: RunDir, written: Recipe, listeners: Iterable[Listener], placement: Placement | None, track: Sequence[str]) -> RunResult:
    """Do what is left of a run that this process holds."""
    placement = placement or Placement()
    if launched := processes.launched_by_torchrun():
        placement = placement.model_copy(update={"processes": launched[1]})
    sweep(found.path)
    reporter = Reporter(found, *listeners)
    if found.read_record()["state"] != "created":
        reporter.event("continued", f"going on with run {found.id}")
    started = time.time()
    try:
        with follow(track or Settings.from_environment().trackers, found, reporter):
            outcome = pipeline.carry_out(written, found, reporter, placement)
    except BaseException as error:
        with suppress(StorageError):  # a full disk must not hide the first reason
            found.update_record(state="failed", error=str(error) or type(error).__name__)
        if is_out_of_memory(error) and not isinstance(error, OutOfMemoryError):
            raise OutOfMemoryError(
                f"run {found.id} ran out of memory",
                why=str(error).splitlines()[0] if str(error) else type(error).__name__,
                fix="close other programs, lower optim.micro_batch_tokens or data.max_seq_len, or use a smaller base model; then start the same command again",
            ) from error
        raise
    seconds = found.read_record().get("wall_seconds", 0.0) + time.time() - started
    found.update_record(state=outcome, error=None, wall_seconds=round(seconds, 2))
    if outcome == "paused":
        return RunResult(found, outcome, None)
    reporter.stage("report")
    return RunResult(found, outcome, build_report(found))


def check_trackers(track: Sequence[str]) -> None:
    """Refuse trackers that cannot work, before a run is begun for them.

    Raises:
        UnknownNameError: there is no tracker of a name.
        MissingExtraError: its client is not installed.
    """
    for name in track or Settings.from_environment().trackers:
        TRACKERS.parse(name).require()


def resume(name: str, listeners: Iterable[Listener] = (), *, placement: Placement | None = None, track: Sequence[str] = ()) -> RunResult:
    """Go on with the run `name` (id, folder or `last`), also in another number of processes than before; without `track`, its trackers go on too."""
    if (launched := processes.launched_by_torchrun()) and launched[0]:
        return RunResult(processes.follow(), "followed", None)
    check_trackers(track)
    found = open_run(name)
    with found.lock():
        return _carry_out(found, validate(found.read_record().get("written", {}), source=str(found.record)), listeners, placement, track)


def list_runs(settings: Settings | None = None) -> list[dict[str, Any]]:
    """Runs of this home, newest first: id, state, dataset, base model, verdict."""
    rows = []
    for record_path in (settings or Settings.from_environment()).runs_dir.glob("*/run.json"):
        run_dir = RunDir(record_path.parent)
        record = run_dir.read_record()
        report = read_json(run_dir.report_json) if run_dir.report_json.exists() else {}
        rows.append(
            {
                "id": run_dir.id,
                "state": record.get("state"),
                "created": record.get("created", 0.0),
                "dataset": record.get("written", {}).get("dataset"),
                "base_model": record.get("written", {}).get("base_model"),
                "verdict": (report.get("verdict") or {}).get("label"),
            }
        )
    return sorted(rows, key=lambda row: row["created"], reverse=True)


def open_run(name: str) -> RunDir:
    """Find a run by id, folder or `last`."""
    return RunDir.open(name, Settings.from_environment().runs_dir)


def report(name: str) -> tuple[RunDir, dict[str, Any]]:
    """Build the report of a run again from its files, and return it."""
    run_dir = open_run(name)
    return run_dir, build_report(run_dir)


def coach(name: str) -> tuple[RunDir, list[dict[str, Any]]]:
    """What the coach has to say on a run, finished or not."""
    run_dir = open_run(name)
    return run_dir, diagnoses(run_dir)


def local_paths(written: Recipe, known: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Absolute path of every file and folder the recipe names: the same name is something else in another folder.

    Names in `known` are looked up nowhere else.
    """
    names = {name: os.path.expanduser(name) for name in (written.dataset, *written.data.mix, *written.data.split.datasets.values(), written.base_model)}
    paths = {name: os.path.abspath(path) for name, path in names.items() if name not in known and os.path.exists(path)} | dict(known)
    for name in [name for name in (written.start_from, written.data.replay.run if written.data.replay else None) if name and name not in known]:
        is_folder = os.path.isdir(os.path.expanduser(name)) and not os.path.isfile(os.path.join(name, "run.json"))
        paths[name] = os.path.abspath(os.path.expanduser(name)) if is_folder else str(open_run(name).path)
    return paths


def claim(run_dir: RunDir, written: Recipe, paths: dict[str, str]) -> None:
    """Store the written recipe; refuse a folder that belongs to another one."""
    record = run_dir.read_record()
    known = record.get("paths", {})
    if record and (record.get("written") != written.to_dict() or any(known.get(name, path) != path for name, path in paths.items())):
        raise NoEffectError(
            f"{run_dir.path} belongs to a run with another recipe",
            why="its data and checkpoints do not fit the recipe given now",
            fix="choose another --run-dir, or repeat the command the run was started with",
        )
    if not record:
        write_json(run_dir.record, {"written": written.to_dict(), "paths": paths, "created": time.time(), "state": "created"})


def _unfinished_run(written: Recipe, paths: dict[str, str], new: bool) -> RunDir | None:
    if new:
        return None
    for record_path in sorted(Settings.from_environment().runs_dir.glob("*/run.json"), reverse=True):
        run_dir = RunDir(record_path.parent)
        record = run_dir.read_record()
        if record.get("state") != "finished" and record.get("written") == written.to_dict() and record.get("paths") == paths:
            return run_dir
    return None


def _new_run_dir(written: Recipe) -> RunDir:
    pipeline.find_inputs(written)  # a mistyped name must not leave a run behind that `last` then means
    stem = re.sub(r"[^\w-]+", "-", Path(written.dataset).name.split(".")[0])[:40] or "run"
    base = Settings.from_environment().runs_dir / f"{time.strftime('%Y%m%d-%H%M%S')}-{stem}"
    number = 1
    while True:
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        if not path.exists():
            return RunDir.create(path)
        number += 1
