"""The worker of the gate: `python worker.py HOME [SOCKET]`; with a socket the zygote behind it forks the processes of jobs."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from chaos.zygote import ForkedExecutor
from danlu.executors.local import LocalExecutor
from danlu.services.platform.platform import Platform
from danlu.settings import Settings
from danlu.worker.supervisor import Supervisor

CHILD = (sys.executable, str(Path(__file__).parents[1] / "job_child.py"))

if __name__ == "__main__":
    home = Path(sys.argv[1])
    executor = ForkedExecutor(home, Path(sys.argv[2])) if len(sys.argv) > 2 else LocalExecutor(home, command=CHILD)
    platform = Platform.open(Settings(home=home, database=os.environ.get("DANLU_DATABASE_URL")))
    Supervisor(platform.database, home, executor, num_slots=2).run(lambda: False)
