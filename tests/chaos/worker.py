"""The worker of the gate: `python worker.py HOME [SOCKET]`; with a socket the zygote behind it forks the processes of jobs.

With `worker-faults.json` in the home, the calls that save and commit fail as it says; with `in-haste` it waits a fiftieth of the time.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sqlalchemy import event

import job_kinds  # noqa: F401 - registers its kinds
from chaos.faults import install
from chaos.zygote import ForkedExecutor
from danlu.executors.local import LocalExecutor
from danlu.files import read_json
from danlu.services.platform.platform import Platform
from danlu.settings import Settings
from danlu.worker.supervisor import Supervisor

CHILD = (sys.executable, str(Path(__file__).parents[1] / "job_child.py"))


def main(home: Path, *more: str) -> None:
    executor = ForkedExecutor(home, Path(more[0])) if more else LocalExecutor(home, command=CHILD)
    platform = Platform.open(Settings.from_environment())
    monotonic = time.monotonic
    if (home / "worker-faults.json").exists():
        asked = read_json(home / "worker-faults.json")
        met = install(**asked)
        if asked.get("kind") in (None, "KILL"):  # what a full disk does to SQLite is tested with SQLite's own limit
            event.listen(platform.database.engine, "commit", lambda connection: met("commit", str(home / "danlu.sqlite")))
    if more == () and (home / "in-haste").exists():
        monotonic = lambda: time.monotonic() * 50  # noqa: E731
    Supervisor(platform.database, home, executor, num_slots=2, monotonic=monotonic).run(lambda: False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
