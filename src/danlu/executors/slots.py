"""What a slot is on this machine: a share of its GPUs, or of its processor."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Slots:
    """The slots of a worker, and the devices behind them."""

    number: int
    devices: tuple[str, ...] = ()
    """GPUs as CUDA_VISIBLE_DEVICES names them."""
    num_threads: int = 1
    """Threads of a job on one slot."""
    is_threads_given: bool = False
    """OMP_NUM_THREADS was set by whoever started the worker, and stays."""

    @classmethod
    def of_machine(cls, number: int | None = None, environment: Mapping[str, str] = os.environ) -> Slots:
        """As many as asked for; by default one for each GPU, or one."""
        devices = gpus(environment)
        number = number or max(1, len(devices))
        given = environment.get("OMP_NUM_THREADS", "")
        return cls(number, devices, max(1, _num_processors() // number), given.isdigit())

    def environment(self, taken: Iterable[int]) -> dict[str, str]:
        """Variables of a job on the slots `taken`."""
        taken = sorted(taken)
        found: dict[str, str] = {}
        if self.devices:
            mine = [device for slot in taken for device in self._devices_of(slot)]
            found["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(mine))
        if not self.is_threads_given:
            found["OMP_NUM_THREADS"] = str(self.num_threads * max(1, len(taken)))
        return found

    def _devices_of(self, slot: int) -> Sequence[str]:
        """Fewer slots than GPUs: they are dealt out; more: some slots share one."""
        if self.number < len(self.devices):
            return self.devices[slot :: self.number]
        return [self.devices[slot % len(self.devices)]]


def gpus(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Names of the GPUs that this process may use, for CUDA_VISIBLE_DEVICES; asks the driver, not torch."""
    given = environment.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        usable = names[: names.index("-1")] if "-1" in names else names  # CUDA ignores what follows an invalid one
        return tuple(filter(None, usable))
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(str(number) for number, _ in enumerate(line for line in told.splitlines() if line.startswith("GPU ")))


def _num_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
