"""Kinds of jobs that tests put into the queue: small, real work that can be checked afterwards. `job_child.py` makes them known to a job's process."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar, Literal

from danlu.files import append, read_json, storage_errors, write_json
from danlu.worker.kinds.base import KINDS, JobKind, Outcome


@KINDS.register
class Steps(JobKind):
    """A chain of hashes, saved every few links: like a training, it goes on from what it has saved."""

    type: Literal["test_steps"] = "test_steps"
    can_pause: ClassVar[bool] = True
    path: str
    """Where it saves."""
    num_steps: int = 40
    """Links of the chain."""
    step_seconds: float = 0.02
    """How long each takes."""
    save_every: int = 5
    """Links between two saves."""
    held_at: int | None = None
    """Here it waits until somebody makes the file `<path>.go`: what happens in the middle happens there, however busy the machine is."""

    def work(self, folder: Path) -> Outcome:
        """Go on with the chain."""
        told: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
        state = read_json(Path(self.path)) if Path(self.path).exists() else {"step": 0, "chain": "begin"}
        descriptor = os.open(f"{self.path}.steps", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        while state["step"] < self.num_steps:
            time.sleep(self.step_seconds)
            if state["step"] == self.held_at and not told and not Path(f"{self.path}.go").exists():
                continue
            state = {"step": state["step"] + 1, "chain": hashlib.sha256(f"{state['chain']} {state['step']}".encode()).hexdigest()}
            append(descriptor, b"%d\n" % state["step"])
            if told or state["step"] % self.save_every == 0 or state["step"] == self.num_steps:
                write_json(Path(self.path), state)
            if told:
                return "paused", {}
        return "succeeded", {"chain": state["chain"]}

    def progress(self) -> float:
        """Saved links."""
        return float(read_json(Path(self.path))["step"]) if Path(self.path).exists() else 0.0


@KINDS.register
class Odd(JobKind):
    """A job that does what jobs should not."""

    type: Literal["test_odd"] = "test_odd"
    what: str
    """What it does."""

    def work(self, folder: Path) -> Outcome:
        """Do it."""
        if self.what == "exit":
            os._exit(3)
        if self.what == "deaf":  # heeds no SIGTERM, and has a child that leaves its session
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            runaway = subprocess.Popen(["sleep", "600"], start_new_session=True)
            write_json(folder / "runaway.json", runaway.pid)
            time.sleep(600)
        if self.what == "sleep":
            write_json(folder / "asleep.json", True)
            time.sleep(600)
        if self.what == "full disk":
            with storage_errors(folder):
                raise OSError(28, "No space left on device")
        if self.what == "full log":  # no file grows beyond this: a disk on which a small result still fits, and no line of the log
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            for number in range(200):
                print(f"line {number:05} {'.' * 50}", flush=True)
                print(f"line {number:05} {'.' * 50}", file=sys.stderr)
        if self.what == "nul":
            return "succeeded", {"text": "a\0b \\u0000"}
        if self.what == "no json":
            return "succeeded", {"text": object()}
        return "succeeded", self._look()

    def _look(self) -> dict[str, object]:
        mask = os.umask(0o077)
        return {
            "environment": dict(os.environ),
            "umask": mask,
            "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
            "num_tasks": resource.getrlimit(resource.RLIMIT_NPROC)[0],
            "is_session_leader": os.getsid(0) == os.getpid(),
            "folder": os.getcwd(),
            "path": sys.path,
            "database_modules": sorted({"sqlalchemy", "sqlite3", "psycopg", "fastapi", "torch"} & sys.modules.keys()),
        }
