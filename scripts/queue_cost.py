"""What the queue costs: an idle worker's processor time, a tick beside many finished jobs, and the time from submitting a job to its first line.

python scripts/queue_cost.py [--finished 10000] [--seconds 20]
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from sqlalchemy import insert  # noqa: E402 - needs the path

import job_kinds  # noqa: E402
from danlu.executors.local import LocalExecutor  # noqa: E402
from danlu.services.platform.platform import Platform  # noqa: E402
from danlu.settings import Settings  # noqa: E402
from danlu.store import jobs, tables  # noqa: E402
from danlu.store.jobs import JOBS  # noqa: E402
from danlu.store.projects import PROJECTS  # noqa: E402
from danlu.worker.supervisor import Supervisor  # noqa: E402

COMMAND = (sys.executable, str(Path(job_kinds.__file__).with_name("job_child.py")))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--finished", type=int, default=10_000, help="jobs that are over")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to watch the idle worker")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="danlu-queue-"))
    platform = Platform.open(Settings(home=folder))
    with platform.database.writing() as connection:
        project = PROJECTS.insert(connection, name="p", description="", created_by=None, is_archived=False).id
    supervisor = Supervisor(platform.database, folder, LocalExecutor(folder, command=COMMAND), num_slots=1)
    for number in (0, given.finished):
        _fill(platform, project, number)
        supervisor.tick()
        print(f"a tick beside {number} finished jobs: {_tick_ms(supervisor):.2f} ms")
    print(f"an idle worker: {_idle_share(supervisor, given.seconds):.2%} of a processor")
    waits = [_start_seconds(platform, supervisor, project, folder, number) for number in range(3)]
    print(f"from submitting a job to its own first step, with a new Python: {statistics.median(waits):.2f} s (median of {len(waits)})")
    platform.close()
    shutil.rmtree(folder)


def _fill(platform: Platform, project: str, number: int) -> None:
    now = time.time()
    row: dict[str, object] = dict.fromkeys(tables.jobs.columns.keys())
    row |= {"project_id": project, "kind": "test_steps", "payload": {}, "state": "succeeded", "priority": "standard", "num_slots": 1, "attempt": 1}
    row |= {"progress": 0.0, "attempts_without_progress": 0, "progress_at_start": 0.0, "is_paused_by_user": False, "home": "local"}
    row |= {"created_at": now, "updated_at": now, "finished_at": now, "version": 1}
    if number:
        with platform.database.writing() as connection:
            connection.execute(insert(tables.jobs), [row | {"id": f"job_{n:026d}", "position": float(n)} for n in range(number)])


def _tick_ms(supervisor: Supervisor) -> float:
    times = []
    for _ in range(50):
        began = time.process_time()
        supervisor.tick()
        times.append(time.process_time() - began)
    return 1000 * statistics.median(times)


def _idle_share(supervisor: Supervisor, seconds: float) -> float:
    end = threading.Event()
    began, wall = time.process_time(), time.monotonic()
    thread = threading.Thread(target=supervisor.run, args=(end.is_set,))
    thread.start()
    time.sleep(seconds)
    end.set()
    thread.join()
    return (time.process_time() - began) / (time.monotonic() - wall)


def _start_seconds(platform: Platform, supervisor: Supervisor, project: str, folder: Path, number: int) -> float:
    path = folder / f"{number}.json"
    payload = {"type": "test_steps", "path": str(path), "num_steps": 1, "step_seconds": 0.0}
    began = time.time()
    with platform.database.writing() as connection:
        id = jobs.submit(connection, project_id=project, kind="test_steps", payload=payload).id
    while True:
        supervisor.tick()
        with platform.database.reading() as connection:
            if JOBS.get(connection, id).is_over:
                return path.stat().st_mtime - began
        time.sleep(0.5)


if __name__ == "__main__":
    main()
