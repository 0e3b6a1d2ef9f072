"""The process of a job in tests: `danlu.worker.child`, with the kinds of `job_kinds.py`, and faults where `faults.json` in the home asks for them.

It writes down when it begins and ends beside the job's attempts, and which earlier process of the same job was alive when it began.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import orjson


def main(folder: Path) -> int:
    from danlu.executors.processes import start_time
    from danlu.files import append

    marks = os.open(folder.parent / "marks.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    earlier = [orjson.loads(line) for line in (folder.parent / "marks.jsonl").read_bytes().splitlines()]
    me = {"pid": os.getpid(), "started": start_time(os.getpid())}
    others = [mark["pid"] for mark in earlier if mark["what"] == "begin" and mark["pid"] != me["pid"] and start_time(mark["pid"]) == mark["started"]]
    append(marks, orjson.dumps({"what": "begin", "folder": folder.name, "at": time.time(), "alive_beside": others, **me}) + b"\n")
    faults = folder.parents[2] / "faults.json"
    if faults.exists():
        from chaos.faults import install

        install(**orjson.loads(faults.read_bytes()))
    import job_kinds  # noqa: F401 - registers its kinds
    from danlu.worker import child

    code = child.main(folder)
    append(marks, orjson.dumps({"what": "end", "folder": folder.name, "at": time.time(), "code": code, **me}) + b"\n")
    return code


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(code)
