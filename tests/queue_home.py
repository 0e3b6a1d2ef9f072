"""A home folder with a queue whose supervisor is driven by hand."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import job_kinds
from danlu.executors.local import LocalExecutor
from danlu.files import read_json
from danlu.store import jobs
from danlu.store.engine import Database
from danlu.store.jobs import JOBS, Job
from danlu.store.projects import PROJECTS
from danlu.worker.supervisor import Supervisor

COMMAND = (sys.executable, str(Path(job_kinds.__file__).with_name("job_child.py")))
CHAIN = 40
HELD_AT = 8
"""A link behind the first save and before the second."""


class Home:
    """A home folder; `restart` gives a supervisor that remembers nothing, as after `kill -9`."""

    def __init__(self, folder: Path, database: Database, *, haste: float = 1.0) -> None:
        self.folder, self.database, self.haste = folder, database, haste
        folder.mkdir(exist_ok=True)
        with database.writing() as connection:
            known = PROJECTS.find(connection, name="p")
            self.project = (known or PROJECTS.insert(connection, name="p", description="", created_by=None, is_archived=False)).id
        self.ids: list[str] = []
        self.executors: list[LocalExecutor] = []
        self.supervisor = self.restart()

    def restart(self, *, num_slots: int = 1) -> Supervisor:
        self.executors.append(executor := LocalExecutor(self.folder, command=COMMAND))
        monotonic = (lambda: time.monotonic() * self.haste) if self.haste != 1.0 else time.monotonic
        self.supervisor = Supervisor(self.database, self.folder, executor, num_slots=num_slots, monotonic=monotonic)
        return self.supervisor

    def add(self, payload: dict[str, Any], **values: Any) -> str:
        with self.database.writing() as connection:
            id = jobs.submit(connection, project_id=self.project, kind=payload["type"], payload=payload, **values).id
        self.ids.append(id)
        return id

    def steps(self, name: str = "chain", *, num_steps: int = CHAIN, step_seconds: float = 0.02, is_held: bool = False, **values: Any) -> str:
        """Add a chain; one that is held stays in the middle of its work until it is let go, or told to stop."""
        payload = {"type": "test_steps", "path": str(self.folder / f"{name}.json"), "num_steps": num_steps, "step_seconds": step_seconds}
        return self.add(payload | ({"held_at": HELD_AT} if is_held else {}), **values)

    def let_go(self, name: str = "chain") -> None:
        (self.folder / f"{name}.json.go").touch()

    def odd(self, what: str, **values: Any) -> str:
        return self.add({"type": "test_odd", "what": what}, **values)

    def job(self, id: str) -> Job:
        with self.database.reading() as connection:
            return JOBS.get(connection, id)

    def call(self, function: Any, *arguments: Any, **values: Any) -> Any:
        with self.database.writing() as connection:
            return function(connection, *arguments, **values)

    def tick_until(self, done: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"it took too long: {[(job.kind, job.state, job.error) for job in map(self.job, self.ids)]}"
            self.supervisor.tick()
            time.sleep(0.03)

    def finish(self, id: str) -> Job:
        self.tick_until(lambda: self.job(id).is_over)
        return self.job(id)

    def running_pid(self, id: str, attempt: int = 1) -> int:
        self.tick_until(lambda: self.job(id).pid is not None and self.job(id).attempt == attempt)
        return int(self.job(id).pid or 0)

    def reached(self, name: str, step: int) -> Callable[[], bool]:
        path = self.folder / f"{name}.json"
        return lambda: path.exists() and read_json(path)["step"] >= step

    def attempt(self, id: str, number: int = 1) -> Path:
        return self.folder / "jobs" / id / f"attempt-{number}"

    def clean(self) -> None:
        for id in self.ids:
            for executor in self.executors:
                executor.clear(self.supervisor.attempt_of(self.job(id)))
