"""Processes of this machine, so named that a number given anew is never taken for an old process.

A pid alone may be another process after a restart, so a process is its pid, its start time (/proc/PID/stat, field 22) and the
boot of the machine. Linux only.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

MARK = "DANLU_JOB_FOLDER"
"""Environment variable of every process of a job: so those that left its session are found too."""
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)
MAX_ROUNDS = 50
"""How often to look for more processes of a job that starts new ones while it is killed."""


def start_time(pid: int) -> int | None:
    """Clock ticks between the machine's start and the process's; None when there is no such process (or only its zombie)."""
    stat = _stat(pid)
    return None if stat is None or stat[0] in ("Z", "X") else int(stat[19])


def boot_id() -> str:
    """Name of the time since the machine was last started."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def family(folder: Path, session: int | None = None) -> list[int]:
    """Living processes of a job: those marked with its folder, and those of the session that its process began."""
    mark = f"{MARK}={folder}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        stat = _stat(int(entry))
        if stat is None or stat[0] in ("Z", "X"):
            continue
        if (session is not None and int(stat[3]) == session) or _has(int(entry), mark):
            found.append(int(entry))
    return found


def kill_family(folder: Path, session: int | None = None) -> None:
    """Kill them all, also those that are born meanwhile."""
    for _ in range(MAX_ROUNDS):
        members = family(folder, session)
        if not members:
            return
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: what is stopped starts nothing new
            for pid in members:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        time.sleep(0.01)


def session_left_by(pid: int, started: int | None) -> int | None:
    """The session that a process (living or dead) began; None when its number belongs to another process now."""
    return pid if start_time(pid) in (started, None) else None


def _stat(pid: int) -> list[str] | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except _GONE:
        return None
    return stat.rpartition(")")[2].split()  # the name in brackets may hold anything


def _has(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
