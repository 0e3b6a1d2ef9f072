"""Faults at the calls that save and commit: the n-th of them kills the process, or fails as on a full or broken disk.

The functions are replaced in a process made for it, before it works; nothing of the product knows of this.
"""

import builtins
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MET = "fault.met"
"""A file that says, in the folder whose calls are counted, that the fault happened."""
KINDS = ("KILL", "ENOSPC", "EIO")
CALLS = ("fsync", "mkdir", "rename", "replace", "write")


def install(*, folder: str, point: int | None = None, kind: str = "", log: str | None = None) -> Callable[[str, Any], None]:
    """Let the call number `point` below `folder` fail once; with `log`, write down all of them instead.

    Returns:
        What counts a call that is made elsewhere (a commit of the database).
    """
    real = {name: getattr(os, name) for name in CALLS} | {"open": os.open, "io": io.open}
    count = [0]

    def path_of(value: Any) -> str:
        if isinstance(value, int):
            try:
                return os.readlink(f"/proc/self/fd/{value}")
            except OSError:
                return ""
        return os.fsdecode(value) if isinstance(value, str | bytes | os.PathLike) else ""

    def met(name: str, target: Any) -> None:
        path = path_of(target)
        if not path.startswith(folder) or path.endswith(("log.txt", "marks.jsonl")):
            return
        count[0] += 1
        if log is not None:
            place = sys._getframe(2)
            line = f"{count[0]}\t{name}\t{path}\t{place.f_code.co_filename}:{place.f_lineno}\n"
            descriptor = real["open"](log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            real["write"](descriptor, line.encode())
            os.close(descriptor)
        elif count[0] == point:
            os.close(real["open"](f"{folder}/{MET}", os.O_WRONLY | os.O_CREAT))
            if kind == "KILL":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(getattr(errno, kind), os.strerror(getattr(errno, kind)), path)

    def faulty(name: str) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any, **options: Any) -> Any:
            met(name, target)
            return real[name](target, *arguments, **options)

        return call

    def faulty_open(target: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if set(mode) & set("wax+"):
            met("open", target)
        return real["io"](target, mode, *arguments, **options)

    for name in CALLS:
        setattr(os, name, faulty(name))
    io.open = builtins.open = faulty_open  # type: ignore[assignment]
    return met


def places(log: Path) -> dict[int, str]:
    """One number for each place in the code that saves a file of some name: the last time it does."""
    last: dict[tuple[str, str, str], int] = {}
    for line in log.read_text().splitlines():
        number, name, path, place = line.split("\t")
        last[name, re.sub(r"\d+", "N", Path(path).name), place.rpartition("/")[2]] = int(number)
    return {number: " ".join(key) for key, number in sorted(last.items(), key=lambda item: item[1])}
