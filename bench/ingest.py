"""What it costs to bring measured points into the database: `python -m bench.ingest [--database URL]`.

Writes the metrics.jsonl of a run and reads it as the worker does, batch by batch. Tells points a second, and the processor seconds for
1,000 points: of this process, and of PostgreSQL's process for its connection where there is one on this machine. With `--live` a few
points come at a time, as from a training that runs. The database should be an empty one; the project that is made is deleted again.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from danlu.run_dir import RunDir
from danlu.services.platform.platform import Platform
from danlu.settings import Settings
from danlu.store import jobs, queue, workers
from danlu.store.projects import PROJECTS
from danlu.store.runs import RUNS
from danlu.worker import ingest

LINE = {"loss": 2.0, "learning_rate": 1e-4, "grad_norm": 0.5, "num_tokens": 512_000, "tokens_per_second": 9000.0, "peak_memory_bytes": 10**9, "time": 1.7e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", help="URL of a PostgreSQL database; SQLite in a temporary folder when left out")
    parser.add_argument("--points", type=int, default=50_000, help="how many")
    parser.add_argument("--live", type=int, default=0, metavar="N", help="give them to it N at a time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, run_at_work(Path(home), arguments.database) as (platform, run_dir):
        load, backend = os.getloadavg()[0], backend_pid(platform)
        here, there, begun, reading = os.times(), cpu_seconds(backend), time.perf_counter(), 0.0
        for number in range(0, arguments.points, arguments.live or arguments.points):
            many = min(arguments.live or arguments.points, arguments.points - number)
            with run_dir.metrics.open("ab") as file:
                file.writelines(orjson.dumps({"step": number + at, **LINE}) + b"\n" for at in range(many))
            now = time.perf_counter()
            while ingest._read_batch(platform.database, run_dir):
                pass
            reading += time.perf_counter() - now
        after = os.times()
        used = after.user + after.system - here.user - here.system
        print(f"{arguments.points / reading:,.0f} points a second ({time.perf_counter() - begun:.1f} s, {load:.1f} programs wanted a processor before)")
        print(f"processor seconds for 1,000 points: {used * 1000 / arguments.points:.4f} here", end="")
        print(f", {(cpu_seconds(backend) - there) * 1000 / arguments.points:.4f} in PostgreSQL" if backend else "")


@contextmanager
def run_at_work(home: Path, url: str | None) -> Iterator[tuple[Platform, RunDir]]:
    """A run that has begun."""
    platform = Platform.open(Settings(home=home, database=url))
    with platform.database.writing() as connection:
        project = PROJECTS.insert(connection, name="bench.ingest", description="", created_by=None, is_archived=False).id
        run = RUNS.insert(connection, project_id=project, name="r", state="queued", recipe={}, base_model="b").id
        jobs.submit(connection, project_id=project, kind="train", payload={"type": "train"}, run_id=run)
        jobs.claim(connection, worker_id="w", home=workers.home_id(platform.database, home), total_slots=1)
    try:
        yield platform, RunDir.create(home / "runs" / run)
    finally:
        with platform.database.writing() as connection:
            for job in queue.held(connection, workers.home_id(platform.database, home)):
                jobs.finish(connection, job.id, job.attempt, "cancelled")
            PROJECTS.delete(connection, project)
        platform.close()


def backend_pid(platform: Platform) -> int | None:
    """The process of PostgreSQL that serves this one: one, since there is one connection at a time."""
    if platform.database.is_sqlite:
        return None
    with platform.database.reading() as connection:
        pid = int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() or 0)
    return pid if Path(f"/proc/{pid}/stat").exists() else None


def cpu_seconds(pid: int | None) -> float:
    """Processor time of a process."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
