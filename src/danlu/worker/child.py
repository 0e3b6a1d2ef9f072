"""The process of one attempt of a job: `python -m danlu.worker.child FOLDER`.

It knows no database and no server: it reads job.json, works, and leaves result.json. Whoever wants to know finds it by pid.json,
which it writes before anything else. It works only while it holds the job's lock and is the newest attempt, so a job never runs
twice at a time, even when its starter died between starting it and remembering that.

These files are all that a process and the supervisor of another version share: keys are added to them, never changed.
"""

from __future__ import annotations

import fcntl
import io
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import IO, Any

from danlu.errors import ConflictError, DanluError, InternalError, RunBusyError, StorageError
from danlu.executors.processes import boot_id, start_time
from danlu.files import read_json, write_json

LOG_LINE = "danlu job %s, attempt %d: %s\n"
DYING_SECONDS = 5.0
"""How long an attempt waits for the one before it to let go of the job."""
NOT_ITS_TURN = 75
MAX_NEW_TASKS = 4096
"""Processes and threads that the user may have beyond those there are now: a fork bomb ends there (not for root)."""
WRITE_AGAIN_SECONDS = (1.0, 5.0, 15.0, 30.0)
"""Waits between tries to write the result to a full disk."""


class LogFile(io.FileIO):
    """The job's log. What does not fit on the disk is left out: the work is worth more than what it says."""

    def write(self, content: Any, /) -> int:
        """Write, or drop."""
        try:
            return super().write(content) or 0
        except OSError:
            return len(content)


class Stopped(BaseException):
    """SIGTERM or SIGHUP while nothing is there to make a checkpoint of."""


def main(folder: Path) -> int:
    """Carry out the attempt in `folder`; return the exit code."""
    sys.stdout = io.TextIOWrapper(LogFile(1, "w", closefd=False), encoding="utf-8", errors="backslashreplace", write_through=True)
    sys.stderr = io.TextIOWrapper(LogFile(2, "w", closefd=False), encoding="utf-8", errors="backslashreplace", write_through=True)
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _stop)
        write_json(folder / "pid.json", {"pid": os.getpid(), "started": start_time(os.getpid()), "boot": boot_id()})
        _confine()
        return _hold_and_work(folder)
    except Stopped:
        _leave(folder, {"state": "paused", "result": {}, "error": None})
        return 0


def _hold_and_work(folder: Path) -> int:
    with (folder.parent / "lock").open("a") as lock:
        if not _take(lock):
            print("another attempt of this job is still running")
            return NOT_ITS_TURN
        job = read_json(folder / "job.json")
        if read_json(folder.parent / "current.json")["attempt"] != job["attempt"]:
            print("a newer attempt of this job exists")
            return NOT_ITS_TURN
        print(LOG_LINE % (job["id"], job["attempt"], job["payload"]["type"]), end="", flush=True)
        result = _work(job, folder)
        _leave(folder, result)
    print(LOG_LINE % (job["id"], job["attempt"], result["state"]), end="", flush=True)
    return 0


def _take(lock: IO[str]) -> bool:
    """Take the job's lock; threads of a killed attempt may hold it for a moment after their process has ceased to be found."""
    until = time.monotonic() + DYING_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)


def _stop(number: int, frame: object) -> None:
    if number == signal.SIGHUP:
        signal.raise_signal(signal.SIGTERM)  # whoever makes a checkpoint listens to that one
        return
    raise Stopped


def _confine() -> None:
    """No core dumps, no files for others, no end of processes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    limit = _num_tasks() + MAX_NEW_TASKS
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))


def _num_tasks() -> int:
    """Threads of this user, which is what the limit counts."""
    found = 0
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                found += len(os.listdir(entry / "task"))
        except OSError:  # it ended meanwhile
            continue
    return found


def _work(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    from danlu.logs import quieten_libraries
    from danlu.worker.kinds.base import KINDS

    quieten_libraries()
    try:
        state, told = KINDS.parse(job["payload"]).work(folder)
        return {"state": state, "result": told, "error": None}
    except RunBusyError as error:  # a terminal holds the run: nothing is wrong with the disk
        return _failed(ConflictError(error.what, why=error.why, fix=error.fix))
    except StorageError as error:
        return _failed(error, is_worth_another_try=error.code == StorageError.code)
    except DanluError as error:
        return _failed(error)
    except Exception as error:  # noqa: BLE001 - a defect must end this job with a word, not without one
        import traceback

        traceback.print_exc()
        return _failed(InternalError(f"the job crashed: {type(error).__name__}", why="a defect in Danlu", fix="report the job's log"))


def _failed(error: DanluError, *, is_worth_another_try: bool = False) -> dict[str, Any]:
    print(error, file=sys.stderr)
    return {"state": "failed", "result": None, "error": error.to_dict(), "is_worth_another_try": is_worth_another_try}


def _leave(folder: Path, result: dict[str, Any]) -> None:
    """Write the result; wait for room where there is none. Who comes now to stop it comes too late."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for seconds in (*WRITE_AGAIN_SECONDS, None):
        try:
            write_json(folder / "result.json", result)
            return
        except TypeError as error:  # what JSON cannot hold
            defect = InternalError("the job's result cannot be stored", why=str(error), fix="report the job's log")
            result = _failed(defect)
        except StorageError as error:
            if seconds is None:
                raise
            print(error, file=sys.stderr)
            time.sleep(seconds)


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(code)
