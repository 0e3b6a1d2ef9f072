"""How much memory there is, how much this process holds, and whether the kernel ended the process before. No torch.

A process that the kernel kills for lack of memory cannot say so. It leaves its mark behind instead: while it works, a run folder holds
alive.json with the kernel's own count of such kills. Who finds the mark and a higher count knows what happened.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from danlu.errors import StorageError
from danlu.files import read_json, write_json

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
MARK = "alive.json"
"""The mark's name in a run folder."""
UNLIMITED = 1 << 60
"""Limits of a control group above it mean none."""


def available_memory_bytes() -> int:
    """Memory that this process can still take without swapping: what the machine has free, its control group and its limits allow."""
    candidates = [_machine_available()]
    for limit, usage in _control_groups():
        candidates.append(max(0, limit - usage))
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        candidates.append(max(0, soft - status_bytes("VmSize")))
    return min(candidates)


def budget_bytes() -> int:
    """Memory that a run in this process can hold in all: what it holds already and what it can still take."""
    return resident_bytes() + available_memory_bytes()


def resident_bytes() -> int:
    """Memory this process holds now."""
    return status_bytes("VmRSS") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _machine_available() -> int:
    for line in _lines(PROC / "meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _control_groups() -> Iterator[tuple[int, int]]:
    """(limit, usage) of the control groups this process is in, version 2 or 1."""
    for folder in _group_folders():
        for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            values = [" ".join(_lines(folder / name)).strip() for name in (limit, usage)]
            if all(value.isdigit() for value in values) and int(values[0]) < UNLIMITED:
                yield int(values[0]), int(values[1])


def _group_folders() -> list[Path]:
    """Folders of the control groups this process is in, as far as they can be seen from inside, and of those above them."""
    found: dict[Path, None] = {}
    for line in _lines(PROC / "self" / "cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        root = CGROUP if number == "0" and not controllers else CGROUP / "memory" if "memory" in controllers.split(",") else None
        if root is not None:
            own = root / path.strip("/")
            found |= dict.fromkeys([own, *(parent for parent in own.parents if parent.is_relative_to(root))])
    return list(found)


def status_bytes(name: str) -> int:
    """A size in /proc/self/status (VmRSS, VmSize, VmHWM); 0 where the system does not tell."""
    for line in _lines(PROC / "self" / "status"):
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except OSError:
        return []


def num_memory_kills() -> int | None:
    """Kills for lack of memory that the kernel tells of, in this process's control groups and on the machine; only its growth means something."""
    counts = []
    files = [folder / name for folder in _group_folders() for name in ("memory.events", "memory.oom_control")]
    for path in (*files, PROC / "vmstat"):
        for line in _lines(path):
            name, _, value = line.partition(" ")
            if name == "oom_kill" and value.strip().isdigit():
                counts.append(int(value))
    return sum(counts) if counts else None


def boot_id() -> str:
    """Which start of the machine this is; counts of another one say nothing."""
    return " ".join(_lines(PROC / "sys" / "kernel" / "random" / "boot_id")).strip()


@contextmanager
def alive(mark: Path, micro_batch_tokens: int) -> Iterator[None]:
    """Hold the mark while the block runs. It goes with every ordinary end, also with an error, and stays only after a kill."""
    renew(mark, micro_batch_tokens)
    try:
        yield
    finally:
        with suppress(OSError):
            mark.unlink(missing_ok=True)


def renew(mark: Path, micro_batch_tokens: int) -> None:
    """Write the mark as it should be found after a kill from now on."""
    with suppress(StorageError):  # on a full disk a run goes on without its mark
        write_json(mark, {"boot_id": boot_id(), "memory_kills": num_memory_kills(), "micro_batch_tokens": micro_batch_tokens})


def pardon(mark: Path) -> None:
    """Count from now on: the kill that was just seen hit another process, which the one that holds the mark outlived."""
    if mark.exists():
        renew(mark, int(read_json(mark)["micro_batch_tokens"]))


def killed_at(mark: Path) -> int | None:
    """Tokens per forward pass of the process that left `mark`, when the kernel has killed for lack of memory since; else None."""
    if not mark.exists():
        return None
    try:
        found: dict[str, Any] = read_json(mark)
    except StorageError:
        return None
    before, now = found.get("memory_kills"), num_memory_kills()
    if before is None or now is None or found.get("boot_id") != boot_id() or now <= before:
        return None
    return int(found["micro_batch_tokens"])
