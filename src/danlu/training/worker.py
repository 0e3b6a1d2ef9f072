"""One of the processes that train a run together: `python -m danlu.training.worker RUN_DIR MODEL_DIR DEVICE SHARDED RENDEZVOUS`.

It is started by services/processes.py with RANK and WORLD_SIZE in its environment, tells events, outcome or error as JSON
lines on stdout, and ends when its standard input is closed: it never outlives the process that holds the run's lock.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import orjson

from danlu.errors import DanluError, OutOfMemoryError, is_out_of_memory


def main(run_dir: str, model_dir: str, device: str, is_sharded: str, rendezvous: str) -> int:
    """Take part in the training stage of `run_dir`; return the exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C reaches the whole group; the parent answers it with one SIGTERM
    lines = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints is no message

    def tell(kind: str, fields: dict[str, Any]) -> None:
        lines.write(orjson.dumps([kind, fields], option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")

    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        tell("outcome", {"outcome": _train(Path(run_dir), Path(model_dir), device, is_sharded == "1", rendezvous, tell)})
    except (DanluError, MemoryError, RuntimeError) as error:
        if not isinstance(error, DanluError):
            if not is_out_of_memory(error):
                raise
            fix = "lower optim.micro_batch_tokens or data.max_seq_len, or use fewer processes on this machine; then start the same command again"
            error = OutOfMemoryError("a training process ran out of memory", why=str(error).splitlines()[0] if str(error) else "no memory left", fix=fix)
        tell("error", {"code": error.code, "what": error.what, "why": error.why, "fix": error.fix})
        return 1
    return 0


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _train(run_dir: Path, model_dir: Path, device: str, is_sharded: bool, rendezvous: str, tell: Any) -> str:
    from danlu.files import read_json
    from danlu.recipe.load import validate
    from danlu.reporter import Reporter, SilentReporter
    from danlu.run_dir import RunDir
    from danlu.training.parallel import joined
    from danlu.training.run import run

    found = RunDir(run_dir)
    recipe = validate(read_json(found.recipe), source=str(found.recipe))
    with joined(device, is_sharded=is_sharded, rendezvous=rendezvous) as world:
        reporter = Reporter(found, tell) if world.is_main else SilentReporter(found)
        return run(recipe, found, reporter, model_dir=model_dir, world=world)


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # nothing is left to write; threads of the communication library may not hold up the end
