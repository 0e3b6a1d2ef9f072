"""The conductor of the gate: it plans, kills, waits for the end, and compares what is there with what must be there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from danlu.errors import DatabaseError
from danlu.executors.processes import kill_family, start_time
from danlu.files import read_json, read_jsonl, write_json
from danlu.services.platform.platform import Platform
from danlu.settings import Settings
from danlu.store import workers
from danlu.store.jobs import JOBS, Job
from danlu.store.projects import PROJECTS
from models import recipe_values

HERE = Path(__file__).parent
SAVE_EVERY = 4
NUM_STEPS = 16
CLASSES = ("standard", "saver", "express")


def recipe(model: Path, rows: Path) -> dict[str, Any]:
    """A real training of a second."""
    return recipe_values(
        model,
        rows,
        method={"type": "lora", "rank": 4, "dropout": 0.1},
        optim={"max_steps": NUM_STEPS, "global_batch_size": 4, "micro_batch_tokens": 128, "learning_rate": 0.003},
        training={"checkpoint_every_steps": SAVE_EVERY, "validate_every_steps": 8, "early_stopping_patience": None},
        evaluation={"suites": ["heldout"], "metrics": []},
        export=[],
    )


@dataclass
class Figures:
    """What was measured, and what was wrong."""

    num_jobs: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    at_work: int = 0
    """Kills that found jobs running: the others try little."""
    ends: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    server_ready: list[float] = field(default_factory=list)
    adopted: list[float] = field(default_factory=list)
    settled: list[float] = field(default_factory=list)
    cancelled: list[float] = field(default_factory=list)
    steps_lost: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Everything that breaks the promise; empty when the gate holds."""

    def table(self) -> list[tuple[str, str]]:
        """Rows for people."""
        longest = [(name, max(values, default=0.0)) for name, values in self._times().items()]
        return [
            ("jobs", f"{self.num_jobs}: " + ", ".join(f"{number} {state}" for state, number in sorted(self.ends.items()))),
            ("kills", f"{self.kills.total()}: " + ", ".join(f"{number} {what}" for what, number in sorted(self.kills.items()))),
            ("kills while jobs ran", str(self.at_work)),
            ("attempts", str(self.attempts)),
            *((name, f"{value:.1f} s") for name, value in longest),
            ("most steps lost by a kill", f"{max(self.steps_lost, default=0)} of {SAVE_EVERY}"),
            ("broken promises", str(len(self.wrong))),
        ]

    def _times(self) -> dict[str, list[float]]:
        return {
            "server ready after restart": self.server_ready,
            "orphan adopted after restart": self.adopted,
            "end shown after it": self.settled,
            "cancel": self.cancelled,
        }


class Gate:
    """One home under fire."""

    def __init__(self, folder: Path, model: Path, rows: Path, *, seed: int, database_url: str | None = None, is_forked: bool = True) -> None:
        self.folder, self.model, self.rows, self.is_forked = folder, model, rows, is_forked
        self.home = folder / "home"
        self.settings = Settings(home=self.home, database=database_url)
        self.random = random.Random(seed)
        self.figures = Figures()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.zygote: subprocess.Popen[bytes] | None = None
        self.platform = Platform.open(self.settings)
        with self.platform.database.writing() as connection:
            self.project = PROJECTS.insert(connection, name="gate", description="", created_by=None, is_archived=False).id

    # -- what is to be done

    def plan(self, num_jobs: int, *, pause: float) -> None:
        """Trainings in three classes; every fifth is cancelled, every seventh held and let go again."""
        self.figures.num_jobs = num_jobs
        actions: list[dict[str, Any]] = []
        cancelled: set[str] = set()  # to resume one of them would start it again
        for number in range(num_jobs):
            name = f"job-{number}"
            actions.append({"do": "submit", "name": name, "project": self.project, **self.work(name, CLASSES[number % 3])})
            if number % 5 == 4:
                victim = f"job-{number - self.random.randint(0, 4)}"
                cancelled.add(victim)
                actions.append({"do": "cancel", "name": victim})
            held = f"job-{number - 6}"  # what is cancelled later is younger
            if number % 7 == 6 and held not in cancelled:
                actions += [{"do": "pause", "name": held}, {"do": "resume", "name": held}]
        write_json(self.folder / "plan.json", [{"pause": self.random.uniform(0, 2 * pause), **action} for action in actions])
        self.num_actions = len(actions)

    def work(self, name: str, priority: str) -> dict[str, Any]:
        """What one job is to do."""
        return {"body": {"recipe": recipe(self.model, self.rows), "name": name, "priority": priority}}

    def start_zygote(self) -> None:
        """The process from which those of jobs are forked."""
        self.zygote = subprocess.Popen([sys.executable, str(HERE / "zygote.py"), str(self.folder / "z")], env=self._environment())
        self._wait_for((self.folder / "z").exists, 120, "the zygote did not start")

    # -- processes

    def start(self, *names: str) -> None:
        """Start the server and the worker."""
        for name in names:
            arguments = {
                "server": [str(self.folder / "plan.json"), str(self.folder / "acknowledged.jsonl")],
                "worker": [str(self.folder / "z")] if self.is_forked else [],
            }[name]
            command = [sys.executable, str(HERE / f"{name}.py"), str(self.home), *arguments]
            with (self.folder / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(command, env=self._environment(), stdout=log, stderr=log, start_new_session=True)

    def kill(self, what: str) -> None:
        """`kill -9` of the server, the worker (also with its jobs), or both; then start them again and see how long they take."""
        self.figures.kills[what] += 1
        self.figures.at_work += bool(self.running())
        names = ["server", "worker"] if "both" in what else [what.split()[0]]
        self._check_alive()
        for name in names:
            self.processes[name].kill()
            self.processes[name].wait()
        if "jobs" in what:
            for job in self.running():
                self._kill_job(job)
        began, at = time.monotonic(), time.time()
        self.start(*names)
        if "server" in names:
            self._wait_for(lambda: any(line["what"] == "ready" and line["at"] >= at for line in self.acknowledged()), 60, "the server did not come back")
            self.figures.server_ready.append(time.monotonic() - began)
        if "worker" in names:
            self._wait_for(lambda: self._are_adopted(at), 60, "the worker did not come back")
            self.figures.adopted.append(time.monotonic() - began)

    def _kill_job(self, job: Job) -> None:
        if job.attempts_without_progress > 1 and job.progress <= job.progress_at_start:
            return  # a third death without getting further would rightly end it
        name = self.home / "jobs" / job.id / f"attempt-{job.attempt}" / "pid.json"
        if not name.exists():
            return
        found = read_json(name)
        if start_time(found["pid"]) != found["started"]:
            return
        os.kill(found["pid"], signal.SIGKILL)
        while start_time(found["pid"]) is not None:
            time.sleep(0.002)
        run = self.home / "runs" / str(job.run_id)
        if not (run / "training.json").exists():
            self.figures.steps_lost.append(max(0, last_step(run) - last_checkpoint(run)))

    def _are_adopted(self, at: float) -> bool:
        with self.platform.database.reading() as connection:
            mine = next((worker for worker in workers.all_workers(connection) if worker.started_at >= at), None)
        return mine is not None and all(job.worker_id == mine.id for job in self.running())

    def running(self) -> list[Job]:
        with self.platform.database.reading() as connection:
            return JOBS.all(connection, state=["running", "pausing", "cancelling"])

    # -- the whole

    def run(self, kills: Sequence[str], *, between: tuple[float, float], timeout: float = 1800, kill_seconds: float = float("inf")) -> Figures:
        """Kill in the given order at random instants, for `kill_seconds` at most, then let everything come to its end."""
        if self.is_forked and not (self.folder / "z").exists():
            self.start_zygote()
        try:
            self.start("server", "worker")
            end = time.monotonic() + kill_seconds
            for what in kills:
                if time.monotonic() > end:
                    break
                time.sleep(self.random.uniform(*between))
                self.look()
                self.kill(what)
            self._wait_for(self.is_over, timeout, "the queue did not come to its end")
            self.look()
            self.check()
        finally:
            self.stop()
        return self.figures

    def stop(self) -> None:
        """Leave no process behind."""
        for process in [*self.processes.values(), *filter(None, [self.zygote])]:
            process.kill()
            process.wait()
        for job in self.running():
            name = self.home / "jobs" / job.id / f"attempt-{job.attempt}" / "pid.json"
            kill_family(name.parents[1], read_json(name)["pid"] if name.exists() else None)
        self.platform.close()

    def _check_alive(self) -> None:
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise AssertionError(f"the {name} ended by itself: {(self.folder / f'{name}.log').read_text()[-2000:]}")

    def is_over(self) -> bool:
        self.look()
        self._check_alive()
        done = sum(line["what"] != "ready" for line in self.acknowledged())
        with self.platform.database.reading() as connection:
            return done >= self.num_actions and all(job.is_over for job in JOBS.all(connection))

    def look(self) -> None:
        """Look at the queue as a person would, and note what must never be seen."""
        cancelled = {line["job"]: line["at"] for line in self.acknowledged() if line["what"] == "cancel"}
        try:
            with self.platform.database.reading() as connection:
                seen = {job.id: job for job in JOBS.all(connection)}
        except DatabaseError:
            return
        for id in cancelled:
            if seen[id].state not in ("cancelling", "cancelled"):
                self.figures.wrong.append(f"{id} was cancelled and is shown as {seen[id].state}")

    def acknowledged(self) -> list[dict[str, Any]]:
        path = self.folder / "acknowledged.jsonl"
        return list(read_jsonl(path)) if path.exists() else []

    def check(self) -> None:
        """Compare the end with the promise."""
        with self.platform.database.reading() as connection:
            ended = {job.id: job for job in JOBS.all(connection)}
        submitted = {line["job"]: line for line in self.acknowledged() if line["what"] == "submit"}
        cancelled = {line["job"]: line["at"] for line in self.acknowledged() if line["what"] == "cancel"}
        asked = {line["job"] for line in self.acknowledged() if line["what"].endswith("cancel")}
        wrong = self.figures.wrong
        wrong += [f"{id} was acknowledged and is lost" for id in submitted if id not in ended]
        for job in ended.values():
            self.figures.ends[job.state] += 1
            self.figures.attempts += job.attempt
            if job.state == "failed" or (job.state == "cancelled" and job.id not in asked and job.id in submitted):
                wrong.append(f"{job.id} ended as {job.state} and nobody asked for it: {job.error}")
            wrong += self._double_runs(job)
            wrong += self.harm(job, self.home / "runs" / str(job.run_id))
            if job.state == "cancelled" and job.id in cancelled:
                self.figures.cancelled.append(max(0.0, (job.finished_at or 0) - cancelled[job.id]))
            result = self.home / "jobs" / job.id / f"attempt-{job.attempt}" / "result.json"
            if result.exists() and job.finished_at:
                self.figures.settled.append(max(0.0, job.finished_at - result.stat().st_mtime))

    def _double_runs(self, job: Job) -> list[str]:
        marks = self.home / "jobs" / job.id / "marks.jsonl"
        lines = list(read_jsonl(marks)) if marks.exists() else []
        return [f"{job.id}: {line['folder']} began beside {line['alive_beside']}" for line in lines if line.get("alive_beside")]

    def harm(self, job: Job, run: Path) -> list[str]:
        """What is damaged in a run's folder, or differs from an undisturbed run."""
        from danlu.training.checkpoint import problem

        found = [f"{folder}: {problem(folder)}" for folder in run.glob("checkpoints/step-*") if problem(folder)]
        if job.state != "succeeded":
            return found
        found += [f"{path} was left behind" for path in run.rglob("*.tmp")]
        whole = self.folder / "whole"
        for name in ("adapter/adapter_model.safetensors", "evaluation/heldout.json"):
            if not (run / name).exists() or (name.startswith("adapter") and (run / name).read_bytes() != (whole / name).read_bytes()):
                found.append(f"{run / name} differs from an undisturbed run")
        if read_json(run / "report.json")["verdict"] != read_json(whole / "report.json")["verdict"]:
            found.append(f"the verdict of {run} differs")
        return found

    def _environment(self) -> dict[str, str]:
        own = {"DANLU_HOME": str(self.home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        own["DANLU_ROOTS"] = os.pathsep.join(str(path.parent) for path in (self.model, self.rows))
        own |= {"DANLU_DATABASE_URL": self.settings.database} if self.settings.database else {}
        return {name: value for name, value in os.environ.items() if not name.startswith("DANLU_")} | own

    def _wait_for(self, is_so: Any, seconds: float, otherwise: str) -> None:
        end = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > end:
                with self.platform.database.reading() as connection:
                    states = Counter((job.state, job.attempt, str(job.error)[:200]) for job in JOBS.all(connection))
                raise AssertionError(f"{otherwise} within {seconds:.0f} s: {states}")
            time.sleep(0.05)


def undisturbed(folder: Path, model: Path, rows: Path) -> None:
    """Carry the recipe out once without any kill, into `folder`/whole."""
    code = "import sys, orjson; from pathlib import Path; from danlu.services.runs import run; from danlu.recipe.load import validate; " + (
        "run(validate(orjson.loads(sys.argv[2]), source='recipe'), run_dir=Path(sys.argv[1]))"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DANLU_HOME": str(folder / "reference-home"), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    values = orjson.dumps(recipe(model, rows)).decode()
    subprocess.run([sys.executable, "-c", code, str(folder / "whole"), values], check=True, env=environment, capture_output=True)


def last_step(run: Path) -> int:
    steps = [line["step"] for line in read_jsonl(run / "metrics.jsonl") if "step" in line]
    return max(steps, default=0)


def last_checkpoint(run: Path) -> int:
    return max((int(path.name[5:]) for path in run.glob("checkpoints/step-*") if path.name[5:].isdigit()), default=0)
