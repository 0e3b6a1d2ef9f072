"""The process of one attempt of a job: `python -m danlu.worker.child FOLDER`.

It knows no database and no server: it reads job.json, works, and leaves result.json. Whoever wants to know finds it by pid.json,
which it writes before anything else. It works only while it holds the job's lock and is the newest attempt, so a job never runs
twice at a time, even when its starter died between starting it and remembering that.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path
from typing import Any

from danlu.errors import ConflictError, DanluError, InternalError, StorageError
from danlu.executors.local import start_time
from danlu.files import read_json, write_json

LOG_LINE = "danlu job %s, attempt %d: %s\n"


def main(folder: Path) -> int:
    """Carry out the attempt in `folder`; return the exit code."""
    write_json(folder / "pid.json", {"pid": os.getpid(), "started": start_time(os.getpid())})
    with (folder.parent / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another attempt of this job is still running")
            return 75
        job = read_json(folder / "job.json")
        if read_json(folder.parent / "current.json")["attempt"] != job["attempt"]:
            print("a newer attempt of this job exists")
            return 75
        print(LOG_LINE % (job["id"], job["attempt"], job["payload"]["type"]), end="", flush=True)
        result = _work(job, folder)
        write_json(folder / "result.json", result)
    print(LOG_LINE % (job["id"], job["attempt"], result["state"]), end="", flush=True)
    return 0


def _work(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    from danlu.worker.kinds.base import KINDS

    try:
        state, told = KINDS.parse(job["payload"]).work(folder)
        return {"state": state, "result": told, "error": None}
    except StorageError as error:
        if error.code == "DL702":  # the run is held by someone else (a terminal): not this job's fault, and not over
            return {"state": "failed", "result": None, "error": ConflictError(error.what, why=error.why, fix=error.fix).to_dict()}
        return {"state": "failed", "result": None, "error": error.to_dict()}
    except DanluError as error:
        print(error, file=sys.stderr)
        return {"state": "failed", "result": None, "error": error.to_dict()}
    except Exception as error:  # noqa: BLE001 - a defect must end this job with a word, not without one
        import traceback

        traceback.print_exc()
        defect = InternalError(f"the job crashed: {type(error).__name__}", why="a defect in Danlu", fix="report the job's log")
        return {"state": "failed", "result": None, "error": defect.to_dict()}


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(code)
