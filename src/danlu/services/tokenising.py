"""Tokenising what was left for later, beside training: `python -m danlu.services.tokenising RUN_DIR MODEL_DIR`.

A process of its own, because the tokenizer would hold the interpreter's lock against the thousands of small products of a step. It ends with
the process that holds the run's lock, and nothing depends on it: what it has not finished is done when training is over.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from danlu.data.tokenise import forget_sample, has_sample, is_complete, tokenise
from danlu.files import read_json
from danlu.models import headroom
from danlu.recipe.load import validate
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir

NICENESS = 10
"""Training goes first where both want the same core."""


@contextmanager
def beside_training(recipe: Recipe, run_dir: RunDir, reporter: Reporter, model_dir: Path) -> Iterator[Callable[[], None]]:
    """Let a second process tokenise what was left for later; gives a function that waits until all of it is there and accounted for."""
    if not has_sample(run_dir):
        yield lambda: None
        return
    process = None if is_complete(run_dir) else _start(run_dir, model_dir)
    if process is not None:
        reporter.listen(_Watch(process, run_dir, reporter))

    def finish() -> None:
        if process is not None:
            _wait(process, reporter)
        if not is_complete(run_dir):  # it was killed, or met an error, which is met here again and told
            complete(recipe, run_dir, model_dir, lambda split, done: reporter.progress(f"tokenising {split}", done, None))
        forget_sample(run_dir)

    try:
        yield finish
    finally:
        if process is not None:
            _end(process)


class _Watch:
    """Tells, with the next step, that the second process was ended; training does not need it."""

    def __init__(self, process: subprocess.Popen[bytes], run_dir: RunDir, reporter: Reporter) -> None:
        self.process, self.run_dir, self.reporter = process, run_dir, reporter
        self.is_told = False

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        if kind != "metrics" or self.is_told or self.process.poll() in (None, 0):
            return
        self.is_told = True
        if self.process.returncode == -signal.SIGKILL:  # the kernel takes it first where memory runs out: no reason for training to need less
            headroom.pardon(self.run_dir.path / headroom.MARK)
        how = f"by signal {-self.process.returncode}" if self.process.returncode < 0 else f"with code {self.process.returncode}"
        message = f"the process that tokenises beside training was ended {how}: what it leaves is tokenised when training is over"
        self.reporter.event("tokenising_ended", message, code=self.process.returncode)


def _start(run_dir: RunDir, model_dir: Path) -> subprocess.Popen[bytes]:
    # Threads of the tokenizer and of torch would take the cores from the steps that run beside it.
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "danlu.services.tokenising", str(run_dir.path), str(model_dir)]
    with (run_dir.path / "tokenising.log").open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)


def _wait(process: subprocess.Popen[bytes], reporter: Reporter) -> None:
    while True:
        reporter.progress("tokenising train", 0, None)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1.0)
            return


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def complete(recipe: Recipe, run_dir: RunDir, model_dir: Path, progress: Callable[[str, int], None] = lambda split, done: None) -> None:
    """Tokenise what was left for later, unless that is done."""
    from danlu.data.chat import ChatRenderer
    from danlu.models.load import load_tokenizer
    from danlu.models.new_tokens import add_new_tokens

    with (run_dir.data / ".tokenising.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the process of an attempt that was just killed may have some milliseconds left
        if is_complete(run_dir):
            return
        tokenizer = load_tokenizer(model_dir)
        add_new_tokens(tokenizer, recipe.data.new_tokens)
        renderer = ChatRenderer(tokenizer)
        tokenise(recipe, run_dir, renderer, splits=("test",), progress=progress)
        tokenise(recipe, run_dir, renderer, splits=("train",), keeps_places=True, progress=progress)


def main(run_dir: str, model_dir: str) -> None:
    """Tokenise what was left for later in `run_dir`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C reaches the whole group; the parent answers it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(NICENESS)
    with suppress(OSError):  # where memory runs out, training is to stay
        Path("/proc/self/oom_score_adj").write_text("1000")
    found = RunDir(Path(run_dir))
    complete(validate(read_json(found.recipe), source=str(found.recipe)), found, Path(model_dir))


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing is ever written to it; not through sys.stdin, whose lock this thread would hold at the end
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
