"""A process that has imported torch and forks the processes of jobs: so the gate spends its time on faults and not on imports.

Apart from that they begin like those of `LocalExecutor`: a session of their own, the locked log as output, the scrubbed environment.
"""

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).parents[1]))

from danlu.executors.base import Attempt
from danlu.executors.local import LocalExecutor


class ForkedExecutor(LocalExecutor):
    """Asks the zygote at `socket_path` for each process."""

    def __init__(self, home: Path, socket_path: Path) -> None:
        super().__init__(home)
        self.socket_path = socket_path

    def _spawn(self, attempt: Attempt, log: IO[bytes], environment: dict[str, str]) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.socket_path))
            message = json.dumps({"folder": str(attempt.folder), "environment": environment}).encode()
            socket.send_fds(connection, [message], [log.fileno()])
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)


def main(socket_path: str) -> None:
    """Serve until killed."""
    import peft

    import danlu.evaluation.run
    import danlu.training.run
    import job_child
    import job_kinds

    assert all((danlu, peft, job_child, job_kinds))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel takes the dead away
    server = socket.socket(socket.AF_UNIX)
    server.bind(f"{socket_path}.new")
    server.listen(64)
    os.rename(f"{socket_path}.new", socket_path)
    while True:
        connection, _ = server.accept()
        message, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 1)
        if message and descriptors and os.fork() == 0:
            server.close()
            connection.close()
            _be(json.loads(message), descriptors[0])
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            connection.send(b".")
        connection.close()


def _be(asked: dict[str, object], log: int) -> None:
    import job_child

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    folder = Path(str(asked["folder"]))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(asked["environment"])  # type: ignore[call-overload]
    code = 1
    try:
        code = job_child.main(folder)
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
