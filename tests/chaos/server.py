"""The server of the gate: it submits, holds and cancels jobs through operations, and acknowledges each on disk after it has returned.

`python server.py HOME PLAN ACKNOWLEDGED`: killed and started again, it goes on with the first action that is not acknowledged.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import orjson

from danlu.errors import ConflictError, DatabaseError
from danlu.files import append, read_json, read_jsonl
from danlu.services.platform.access import Actor
from danlu.services.platform.jobs import cancel_job, get_job, pause_job, resume_job
from danlu.services.platform.platform import Platform
from danlu.services.platform.runs import NewRun, list_run_jobs, submit_run
from danlu.settings import Settings
from danlu.store import jobs as queue

ME = Actor.local()


def main(plan: Path, acknowledged: Path) -> None:
    """Carry out the plan."""
    platform = Platform.open(Settings.from_environment())
    descriptor = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    actions = read_json(plan)
    done = list(read_jsonl(acknowledged))
    tell(descriptor, {"what": "ready", "pid": os.getpid()})
    jobs = {line["name"]: line["job"] for line in done if line["what"] == "submit"}
    for action in actions[sum(line["what"] != "ready" for line in done) :]:
        time.sleep(action["pause"])
        while not carry_out(platform, action, jobs, descriptor):
            time.sleep(0.2)
    while True:
        time.sleep(60)


def carry_out(platform: Platform, action: dict[str, object], jobs: dict[str, str], descriptor: int) -> bool:
    """Do it and acknowledge it; False while the database is away."""
    name, what = str(action["name"]), str(action["do"])
    try:
        if what == "submit" and "chain" in action:
            payload = action["chain"]
            assert isinstance(payload, dict)
            with platform.database.writing() as connection:
                place = str(action["project"])
                jobs[name] = queue.submit(connection, project_id=place, kind="test_steps", payload=payload, priority=str(action["priority"])).id
            tell(descriptor, {"what": what, "name": name, "job": jobs[name]})
            return True
        if what == "submit":
            made = submit_run(platform, ME, str(action["project"]), NewRun.model_validate(action["body"]))
            jobs[name] = list_run_jobs(platform, ME, made.id)[0].id
            tell(descriptor, {"what": what, "name": name, "run": made.id, "job": jobs[name]})
            return True
        operation = {"cancel": cancel_job, "pause": pause_job, "resume": resume_job}[what]
        try:
            state = operation(platform, ME, jobs[name]).state
        except ConflictError as error:  # it is over, or not where it could be held or let go
            if what == "resume" and get_job(platform, ME, jobs[name]).state == "pausing":
                return False
            tell(descriptor, {"what": f"refused {what}", "name": name, "job": jobs[name], "why": error.what})
            return True
        tell(descriptor, {"what": what, "name": name, "job": jobs[name], "state": state})
    except DatabaseError:
        return False
    return True


def tell(descriptor: int, line: dict[str, object]) -> None:
    append(descriptor, orjson.dumps({"at": time.time(), **line}) + b"\n")
    os.fsync(descriptor)


if __name__ == "__main__":
    main(*map(Path, sys.argv[2:4]))
