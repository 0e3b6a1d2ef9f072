"""Every kind of job, by the real supervisor in a process of its own: it does its work after a kill in the middle of it, and ends when it is cancelled.

The processes are forked from one that has imported torch; apart from that they are those of the product (tests/chaos/zygote.py).
"""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from chaos import zygote as program
from chaos.zygote import ForkedExecutor
from danlu.executors.processes import start_time
from danlu.files import read_json
from danlu.recipe.load import load_recipe
from danlu.services.engine import READY
from danlu.store import jobs
from danlu.store.engine import Database
from danlu.store.jobs import Job
from danlu.worker.kinds.base import KINDS
from models import recipe_values
from queue_home import Home


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Socket of the process that forks those of jobs."""
    path = tmp_path_factory.mktemp("z") / "z"
    process = subprocess.Popen([sys.executable, str(program.__file__), str(path)], env=os.environ | {"OMP_NUM_THREADS": "1"})
    end = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, "the zygote did not start"
        time.sleep(0.05)
    yield path
    process.kill()
    process.wait()


class Kinds:
    """A home in which one job of every kind can be started."""

    def __init__(self, home: Home, model: Path, rows: Path, finished: Path) -> None:
        self.home, self.model, self.rows, self.finished = home, model, rows, finished
        few: dict[str, Any] = {"evaluation": {"suites": ["heldout"], "metrics": []}, "training": {"checkpoint_every_steps": 2}}
        self.recipe = load_recipe(values=recipe_values(model, rows, **few)).to_dict()

    def run(self, name: str) -> Path:
        return self.home.folder / "runs" / name

    def finished_run(self, name: str) -> str:
        return str(shutil.copytree(self.finished, self.run(name)))

    def payload(self, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(self.rows.read_bytes()).hexdigest()
        return {
            "chat": lambda: {"base_model": "small", "path": str(self.model), "dtype": "float32"},
            "export": lambda: {"run_dir": self.finished_run("export"), "to": "merged"},
            "inspect": lambda: {"path": str(self.rows)},
            "merge": lambda: {"run_dir": str(self.run("merge")), "recipe": self.recipe, "folders": [self.finished_run("a"), self.finished_run("b")]},
            "show_example": lambda: {"path": str(self.rows), "digest": digest, "number": 8, "base_model": str(self.model)},
            "sweep": lambda: {"run_dir": str(self.run("sweep")), "recipe": self.recipe, "sweep": {"set": {"optim.learning_rate": [1e-4, 0.01]}}},
            "train": lambda: {"run_dir": str(self.run("train")), "recipe": self.recipe},
        }[kind]() | {"type": kind}

    def begin(self, kind: str) -> str:
        return self.home.add(self.payload(kind), num_slots=int(kind != "chat"))

    @contextmanager
    def held_back(self, *ids: str) -> Iterator[None]:
        """While this lasts, processes of these jobs live and do not work: another attempt seems to be at it."""
        with ExitStack() as locks:
            for id in ids:
                folder = self.home.folder / "jobs" / id
                folder.mkdir(parents=True)
                fcntl.flock(locks.enter_context((folder / "lock").open("a")), fcntl.LOCK_EX)
            yield


MIDDLE: dict[str, Callable[[Kinds, str], Any]] = {
    "chat": lambda kinds, id: (kinds.home.attempt(id) / READY).exists(),
    "export": lambda kinds, id: (kinds.run("export") / ".lock").exists(),
    "inspect": lambda kinds, id: True,
    "merge": lambda kinds, id: (kinds.run("merge") / "run.json").exists(),
    "show_example": lambda kinds, id: True,
    "sweep": lambda kinds, id: next(kinds.run("sweep").glob("sweep/runs/*/checkpoints/step-*"), None),
    "train": lambda kinds, id: next(kinds.run("train").glob("checkpoints/step-*"), None),
}
"""What shows that a job is in the middle of its work."""
WORK: dict[str, Callable[[Kinds, Job], bool]] = {
    "chat": lambda kinds, job: job.result == {"num_answers": 0},
    "export": lambda kinds, job: bool(read_json(kinds.run("export") / "exports" / "merged" / "verification.json")["passed"]),
    "inspect": lambda kinds, job: (job.result or {})["report"]["format"] == "alpaca",
    "merge": lambda kinds, job: (kinds.run("merge") / "adapter" / "adapter_model.safetensors").exists() and bool((job.result or {})["verdict"]),
    "show_example": lambda kinds, job: "Which" in "".join((job.result or {})["blocks"][0]["tokens"]),
    "sweep": lambda kinds, job: (kinds.run("sweep") / "report.html").exists() and bool((job.result or {})["best"]),
    "train": lambda kinds, job: (kinds.run("train") / "report.html").exists() and bool((job.result or {})["verdict"]),
}
"""What shows that it was done."""
INSTANT = ("inspect", "show_example")
"""Kinds whose work is done before anybody sees the process: theirs is held back."""


@pytest.fixture
def kinds(tmp_path: Path, sqlite_template: Path, zygote: Path, small_model: Path, rows_file: Path, finished_run: Path) -> Iterator[Kinds]:
    (tmp_path / "home").mkdir()
    shutil.copyfile(sqlite_template, tmp_path / "home" / "danlu.sqlite")
    database = Database(f"sqlite:///{tmp_path / 'home' / 'danlu.sqlite'}")
    home = Home(tmp_path / "home", database)
    home.restart(num_slots=len(MIDDLE)).executor = ForkedExecutor(home.folder, zygote)
    yield Kinds(home, small_model, rows_file, finished_run)
    for id in home.ids:
        home.supervisor.executor.stop(home.supervisor.attempt_of(home.job(id)), kill=True)
    database.close()


def test_every_kind_is_tried_here() -> None:
    assert sorted(name for name in KINDS if not name.startswith("test_")) == sorted(MIDDLE) == sorted(WORK)


@pytest.mark.parametrize("kind", MIDDLE)
def test_a_job_that_is_killed_in_the_middle_does_its_work_all_the_same(kinds: Kinds, kind: str) -> None:
    home, id = kinds.home, kinds.begin(kind)
    with kinds.held_back(*([id] if kind in INSTANT else [])):
        pid = home.running_pid(id)
        home.tick_until(lambda: home.job(id).is_over or MIDDLE[kind](kinds, id))
        os.kill(pid, signal.SIGKILL)

    if kind == "chat":  # it would go on for ten minutes
        home.tick_until((home.attempt(id, 2) / READY).exists)
        home.supervisor.executor.stop(home.supervisor.attempt_of(home.job(id)))
    job = home.finish(id)

    assert (job.state, job.attempt, job.error) == ("succeeded", 2, None) and WORK[kind](kinds, job)


def test_a_job_of_any_kind_that_is_cancelled_ends_soon_and_leaves_no_process(kinds: Kinds) -> None:
    """The goal is ten seconds on an idle machine; the bound leaves room for a busy one. The figure is printed."""
    home, ids = kinds.home, {kind: kinds.begin(kind) for kind in MIDDLE}
    with kinds.held_back(*(ids[kind] for kind in INSTANT)):
        pids = [home.running_pid(id) for id in ids.values()]
        begun = time.monotonic()
        for id in home.ids:
            home.call(jobs.cancel, id)

        home.tick_until(lambda: all(home.job(id).is_over for id in home.ids))

    print(f"cancelled in {time.monotonic() - begun:.1f} s")
    assert {kind: home.job(id).state for kind, id in ids.items()} == dict.fromkeys(MIDDLE, "cancelled")
    assert time.monotonic() - begun < 30 and all(start_time(pid) is None for pid in pids)
