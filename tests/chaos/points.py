"""Every place that saves or commits, times {KILL, ENOSPC, EIO}: in the process of a training, and in the worker."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos import faults
from chaos.gate import HERE, Gate, recipe
from chaos.zygote import ForkedExecutor
from danlu.executors.base import Attempt, Executor, Status
from danlu.executors.local import LocalExecutor
from danlu.files import read_json, read_jsonl, write_json
from danlu.services.platform.platform import Platform
from danlu.settings import Settings
from danlu.store import jobs
from danlu.store.jobs import JOBS, Job
from danlu.store.projects import PROJECTS

CHAIN_STEPS = 3


def chosen(places: dict[int, str], limit: int | None, seed: int) -> list[tuple[int, str, str]]:
    """Number, name and fault of what is tried: everything, or `limit` of it drawn at random."""
    everything = [(number, name, kind) for number, name in places.items() for kind in faults.KINDS]
    return everything if limit is None else sorted(random.Random(seed).sample(everything, min(limit, len(everything))))


# -- the process of a training


def training_points(gate: Gate, *, limit: int | None = None, seed: int = 0) -> tuple[int, list[str]]:
    """Number of faults tried, and what was wrong after them."""
    executor: Executor = ForkedExecutor(gate.home, gate.folder / "z") if gate.is_forked else LocalExecutor(gate.home)
    log = gate.folder / "points.log"
    ended = _train(gate, executor, "count", 1, {"log": str(log)})
    assert ended.state == "ended", ended
    tried, wrong = chosen(faults.places(log), limit, seed), list[str]()
    for number, name, kind in tried:
        home = f"{number}-{kind}"
        first = _train(gate, executor, home, 1, {"point": number, "kind": kind})
        again = 1 if first.result and first.result["state"] == "succeeded" else 2
        ended = first if again == 1 else _train(gate, executor, home, again, None)
        if not (gate.folder / "points" / home / faults.MET).exists():
            wrong.append(f"{name} was not met again")
        if not ended.result or ended.result["state"] != "succeeded":
            wrong.append(f"{kind} at {name}: attempt {again} ended as {ended}")
            continue
        run = gate.folder / "points" / home / "run"
        job = Job(**{**dict.fromkeys(Job.__dataclass_fields__), "state": "succeeded"})
        wrong += [f"{kind} at {name}: {harm}" for harm in gate.harm(job, run)]
        shutil.rmtree(run.parent)
    return len(tried), wrong


def undisturbed_and_forked(gate: Gate) -> Path:
    """Folder of a run that is forked from the zygote and disturbed by nobody."""
    ended = _train(gate, ForkedExecutor(gate.home, gate.folder / "z"), "whole", 1, None)
    assert ended.state == "ended" and ended.result and ended.result["state"] == "succeeded", ended
    return gate.folder / "points" / "whole" / "run"


def _train(gate: Gate, executor: Executor, name: str, number: int, fault: dict[str, Any] | None) -> Status:
    home = gate.folder / "points" / name
    attempt = Attempt("job", number, home / "jobs" / "job" / f"attempt-{number}")
    payload = {"type": "train", "run_dir": str(home / "run"), "recipe": recipe(gate.model, gate.rows)}
    write_json(attempt.folder / "job.json", {"id": "job", "attempt": number, "payload": payload})
    write_json(attempt.folder.parent / "current.json", {"attempt": number})
    (home / "faults.json").unlink(missing_ok=True)
    if fault is not None:
        write_json(home / "faults.json", {"folder": str(home), **fault})
    executor.start(attempt, {"OMP_NUM_THREADS": "1", "DANLU_HOME": str(home)})
    while (status := executor.poll(attempt)).state in ("starting", "running"):
        time.sleep(0.02)
    executor.clear(attempt)
    return status


# -- the worker


def worker_points(folder: Path, *, limit: int | None = None, seed: int = 0) -> tuple[int, list[str]]:
    """Number of faults tried, and what was wrong after them."""
    import hashlib

    chain = "begin"
    for step in range(CHAIN_STEPS):
        chain = hashlib.sha256(f"{chain} {step}".encode()).hexdigest()
    log = folder / "worker-points.log"
    job, _ = _work(folder / "worker-count", {"log": str(log)})
    assert job.state == "succeeded", job
    tried, wrong = chosen(faults.places(log), limit, seed), list[str]()
    for number, name, kind in [point for point in tried if point[2] == "KILL" or not point[1].startswith("commit")]:
        home = folder / f"worker-{number}-{kind}"
        job, doubles = _work(home, {"point": number, "kind": kind})
        if (job.state, job.result, job.attempts_without_progress) != ("succeeded", {"chain": chain}, 0):
            wrong.append(f"{kind} at {name}: {job.state} {job.error or job.result}")
        wrong += [f"{kind} at {name}: two processes at a time"] if doubles else []
        shutil.rmtree(home)
    return len(tried), wrong


def _work(home: Path, fault: dict[str, Any]) -> tuple[Job, bool]:
    platform = Platform.open(Settings(home=home))
    with platform.database.writing() as connection:
        project = PROJECTS.insert(connection, name="p", description="", created_by=None, is_archived=False).id
        payload = {"type": "test_steps", "path": str(home / "chain.json"), "num_steps": CHAIN_STEPS}
        id = jobs.submit(connection, project_id=project, kind="test_steps", payload=payload).id
    write_json(home / "worker-faults.json", {"folder": str(home), **fault})
    (home / "in-haste").touch()

    def look() -> Job:
        with platform.database.reading() as connection:
            return JOBS.get(connection, id)

    try:
        _until_over(home, look)
        marks = list(read_jsonl(home / "jobs" / id / "marks.jsonl"))
        return look(), any(mark.get("alive_beside") for mark in marks)
    finally:
        platform.close()


def _until_over(home: Path, look: Callable[[], Job]) -> None:
    """Start the worker, and again without faults when one has killed it."""
    environment = os.environ | {"DANLU_HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    end = time.monotonic() + 120
    while not look().is_over:
        with (home / "worker.log").open("ab") as log:
            worker = subprocess.Popen([sys.executable, str(HERE / "worker.py"), str(home)], env=environment, stdout=log, stderr=log, start_new_session=True)
        while worker.poll() is None and not look().is_over:
            assert time.monotonic() < end, (look(), read_json(home / "worker-faults.json") if (home / "worker-faults.json").exists() else None)
            time.sleep(0.05)
        worker.kill()
        worker.wait()
        (home / "worker-faults.json").unlink(missing_ok=True)
