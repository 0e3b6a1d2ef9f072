"""The training stage in several processes of this machine (`--processes N`), or as one of those that torchrun has started.

A process that dies ends the others at once: checkpoints are whole or not there, so the same command goes on from the newest.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson

from danlu.errors import TrainingError, error_from
from danlu.recipe.placement import Placement
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir

MEETING = timedelta(hours=24)
"""How long the processes of torchrun wait for process 0, which prepares the data first."""
EXIT_SECONDS = 60.0
"""How long a process may take to end after the others have finished."""


def launched_by_torchrun() -> tuple[int, int] | None:
    """(rank, processes) when torchrun (or another launcher) started several of us; None when we are alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    return (int(os.environ.get("RANK", "0")), size) if size > 1 else None


def train_in_processes(recipe: Recipe, run_dir: RunDir, reporter: Reporter, *, model_dir: Path, device: str, placement: Placement) -> str:
    """Carry out the training stage in `placement.processes` new processes; return its outcome.

    Raises:
        DanluError: what one of them raised.
        TrainingError: one of them crashed or was killed.
    """
    with tempfile.TemporaryDirectory(prefix="danlu-") as folder:
        arguments = [str(run_dir.path), str(model_dir), device, str(int(placement.is_sharded(recipe))), f"file://{folder}/rendezvous"]
        group = _Group(run_dir, arguments, placement.processes)
        with group.running():
            return group.wait(reporter)


def train_among_processes(recipe: Recipe, run_dir: RunDir, reporter: Reporter, *, model_dir: Path, device: str, placement: Placement) -> str:
    """Carry out the training stage as process 0 of those that torchrun has started; the others are in `follow`."""
    from danlu.training.parallel import joined
    from danlu.training.run import run

    is_sharded = placement.is_sharded(recipe)
    with joined(device, is_sharded=is_sharded, timeout=MEETING) as world:
        world.from_main((str(run_dir.path), str(model_dir), is_sharded))
        return run(recipe, run_dir, reporter, model_dir=model_dir, world=world)


def follow() -> RunDir:
    """Take part in the training stage of the run that process 0 has chosen; return its folder."""
    from danlu.files import read_json
    from danlu.models.device import device
    from danlu.recipe.load import validate
    from danlu.reporter import SilentReporter
    from danlu.training.parallel import joined
    from danlu.training.run import run

    with joined(device(), is_sharded=None, timeout=MEETING) as world:
        path, model_dir, world.is_sharded = world.from_main(("", "", False))
        run_dir = RunDir(Path(path))
        if not run_dir.recipe.exists():
            raise TrainingError(
                f"process {world.process_rank} does not see {run_dir.path}",
                why="every machine has to reach the run folder and the base model under the same path",
                fix="put DANLU_HOME (or --run-dir) and the base model on a shared file system",
            )
        recipe = validate(read_json(run_dir.recipe), source=str(run_dir.recipe))
        run(recipe, run_dir, SilentReporter(run_dir), model_dir=Path(model_dir), world=world)
    return run_dir


class _Group:
    """The processes and what they say."""

    def __init__(self, run_dir: RunDir, arguments: list[str], size: int) -> None:
        self.run_dir, self.arguments, self.size = run_dir, arguments, size
        self.processes: list[subprocess.Popen[bytes]] = []
        self.messages: queue.Queue[tuple[int, str, dict[str, Any]]] = queue.Queue()
        self.num_signals = 0

    def log(self, rank: int) -> Path:
        """Where process `rank` writes what is no message: warnings and tracebacks."""
        return self.run_dir.path / f"process-{rank}.log"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start the processes; none is left when the context ends. SIGTERM and Ctrl-C are passed on as SIGTERM."""
        previous = {}
        if threading.current_thread() is threading.main_thread():
            previous = {number: signal.signal(number, self._pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for rank in range(self.size):
                self._start(rank)
            yield
        finally:
            for process in self.processes:
                process.kill()
                process.wait()
                for stream in (process.stdin, process.stdout):
                    if stream is not None:
                        stream.close()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _start(self, rank: int) -> None:
        environment = os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(self.size)}
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.size)))
        with self.log(rank).open("wb") as log:
            command = [sys.executable, "-P", "-m", "danlu.training.worker", *self.arguments]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment)
        self.processes.append(process)
        threading.Thread(target=self._listen, args=(rank, process), daemon=True).start()

    def _listen(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with suppress(ValueError):  # the stream was closed with the group
            for line in process.stdout:
                kind, fields = orjson.loads(line)
                self.messages.put((rank, kind, fields))
        self.messages.put((rank, "end", {"code": process.wait()}))

    def _pass_on(self, number: int, frame: object) -> None:
        self.num_signals += 1
        if number == signal.SIGINT and self.num_signals > 1:
            raise KeyboardInterrupt
        for process in self.processes:
            process.send_signal(signal.SIGTERM)

    def wait(self, reporter: Reporter) -> str:
        """Pass on what the main process tells until all have ended; return the outcome."""
        outcome, ends = "", dict[int, int]()
        while len(ends) < self.size:
            rank, kind, fields = self.messages.get(timeout=EXIT_SECONDS if outcome else None)
            if kind == "error":
                raise error_from(fields)
            if kind == "end":
                ends[rank] = fields["code"]
                if self.num_signals and fields["code"] == -signal.SIGTERM:  # told to stop before (or after) it had anything to save
                    return "paused"
                if fields["code"]:
                    raise self._death(rank, fields["code"])
            elif kind == "outcome":
                outcome = fields["outcome"]
            elif rank == 0:
                reporter.relay(kind, fields)
        return outcome

    def _death(self, rank: int, code: int) -> TrainingError:
        """What to say when a process ended without saying why: a signal is the reason, a broken connection only follows from it."""
        others = [] if code < 0 else [(r, p.returncode) for r, p in enumerate(self.processes) if p.poll() is not None and p.returncode < 0]
        rank, code = others[0] if others else (rank, code)
        lines = self.log(rank).read_text("utf-8", errors="replace").strip().splitlines()
        why = f"it was ended by signal {-code} ({signal.Signals(-code).name})" if code < 0 else (lines[-1] if lines else f"exit code {code}")
        return TrainingError(
            f"training process {rank} of {self.size} died",
            why=why,
            fix=f"start the same command again: it goes on from the newest checkpoint; what the process wrote is in {self.log(rank)}",
        )
