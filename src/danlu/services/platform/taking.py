"""Use case on several machines: let this one carry out a run that waits on another one.

A job stays with its home once it has begun: its checkpoints and its log are there. One that has not begun has no files, and what it
reads (datasets) lies in the common artifact store: so it may go elsewhere, with whatever it names found anew on this machine.
"""

from __future__ import annotations

from danlu.errors import ConflictError
from danlu.services.platform.inputs import find_inputs
from danlu.services.platform.operations import Call, operation
from danlu.services.platform.runs import carrier, check_starts
from danlu.store import jobs, workers
from danlu.store.runs import RUNS, Run


@operation("POST", "/runs/{run_id}/take", right="editor", status=200, own_transaction=True)
def take_run(call: Call, run_id: str) -> Run:
    """Let the machine of this server carry out a run that another machine of the same database has not begun.

    Raises:
        ConflictError: it has begun, or goes on from files that lie elsewhere, or is to be carried out here already.
        StorageError: this machine does not reach the data.
    """
    platform, home = call.platform, workers.home_id(call.platform.database, call.platform.home)
    with platform.database.reading() as connection:
        run, job = RUNS.get(connection, run_id), carrier(connection, run_id)
        jobs.check_may_go(job, home)
        if job.kind == "merge":
            raise ConflictError(f"run {run_id} is a merge", why="it reads the folders of the runs it is made of", fix="ask the server of that machine")
        found = find_inputs(platform, connection, call.actor, run.project_id, run.recipe)
        check_starts(connection, found)
    found.fetch(platform)
    own = {"run_dir": str(platform.run_folder(run_id)), "paths": found.paths, "artifacts": found.artifacts}
    with platform.database.writing() as connection:
        jobs.go_to(connection, job.id, home=home, payload=job.payload | own)
        taken = RUNS.get(connection, run_id)
        call.settle(connection, taken)
        return taken
