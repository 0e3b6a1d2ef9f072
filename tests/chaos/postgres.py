"""A PostgreSQL server of its own, on a socket in a temporary folder."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER_PROGRAMS = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]


def program(name: str) -> str | None:
    """Path of a server program, where there is one."""
    return shutil.which(name, path=os.pathsep.join([*SERVER_PROGRAMS, os.environ.get("PATH", "")]))


def as_server_user(*command: str) -> None:
    """Run a server program; PostgreSQL refuses to run as root."""
    call = list(command) if os.geteuid() else ["runuser", "-u", "postgres", "--", *command]
    subprocess.run(call, check=True, capture_output=True, timeout=120)


@contextmanager
def running_server() -> Iterator[str]:
    """URL of a database on a new server; writes are as durable as in earnest."""
    initdb, pg_ctl = program("initdb"), program("pg_ctl")
    assert initdb and pg_ctl, "no PostgreSQL server programs on this machine"
    folder = Path(tempfile.mkdtemp(prefix="danlu-pg-"))
    folder.chmod(0o777)
    data = str(folder / "data")
    as_server_user(initdb, "-D", data, "-A", "trust", "-U", "danlu")
    as_server_user(pg_ctl, "-D", data, "-o", f"-k {folder} -c listen_addresses=", "-w", "-l", str(folder / "log"), "start")
    try:
        yield f"postgresql+psycopg://danlu@/postgres?host={folder}"
    finally:
        as_server_user(pg_ctl, "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
