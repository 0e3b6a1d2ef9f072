"""How fast and how small training is on this machine: `danlu bench`.

Every measurement is a process of its own (danlu.training.benchmark), one after another, so that neither time nor memory
of one is counted to another. Knows nothing of other tools: those are compared by `make bench` in the repository.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from danlu.errors import InternalError

Measure = Callable[[Mapping[str, Any], int], dict[str, Any]]
"""Makes one measurement, given what and with how many threads."""
RANK = 16
MICRO_BATCH_TOKENS = 2048
SHAPES: dict[str, dict[str, Any]] = {
    "30M": {
        "vocab_size": 16384,
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
    },
    "108M": {
        "vocab_size": 32768,
        "hidden_size": 768,
        "intermediate_size": 2304,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
    },
}
"""Qwen3 models by name."""


@dataclass(frozen=True)
class Row:
    """One system on one shape."""

    shape: str
    system: str
    """`fast`, `reference` (stock Transformers and PEFT) or `int8`."""
    lengths: str
    """`lognormal`, or `equal`: nothing to pad, so both paths compute the same tokens."""
    num_threads: int
    tokens_per_second: float
    peak_memory_bytes: int
    gflops: float
    """Executed in matrix products, per second, in billions."""
    share_of_peak: float
    """`gflops` over the best rate of plain products measured on this machine with as many threads."""


@dataclass(frozen=True)
class Bench:
    """What `danlu bench` found."""

    device: str
    num_tokens: int
    """Tokens of one measured pass."""
    rounds: int
    seconds: float
    peaks: dict[str, dict[str, float]]
    """GFLOP/s of plain products by number of threads, then by library."""
    rows: list[Row]

    def ratio(self, shape: str) -> tuple[float, float]:
        """How many times faster the fast path is than the reference on equal batches without padding, and its share of the memory."""
        fast, reference = (next(r for r in self.rows if (r.shape, r.system, r.lengths) == (shape, s, "equal")) for s in ("fast", "reference"))
        return fast.tokens_per_second / reference.tokens_per_second, fast.peak_memory_bytes / reference.peak_memory_bytes

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        ratios = {row.shape: dict(zip(("speed", "memory"), self.ratio(row.shape), strict=True)) for row in self.rows}
        return asdict(self) | {"fast_over_reference": ratios}


def bench(
    *,
    quick: bool,
    device: str,
    threads: int | None = None,
    shapes: Mapping[str, Mapping[str, Any]] = SHAPES,
    num_tokens: int = 1024,
    seconds: float = 2.0,
    tell: Callable[[str], None] = lambda line: None,
    measure: Measure | None = None,
) -> Bench:
    """Measure every system once (`quick`) or three times, interleaved, and return medians.

    One thread and `threads` (all of them when None) are measured on a CPU. `measure` is how one measurement is made: in
    a process of its own when None.

    Raises:
        InternalError: a measurement failed.
    """
    start = time.monotonic()
    rounds = 1 if quick else 3
    counts = sorted({1, threads or os.cpu_count() or 1}) if device == "cpu" else [1]
    common = {"device": device, "rank": RANK, "micro_batch_tokens": MICRO_BATCH_TOKENS, "num_tokens": num_tokens, "seconds": seconds}
    measure = measure or measure_in_process
    found: dict[tuple[str, str, str, int], list[dict[str, Any]]] = {}
    for number in range(rounds):
        for name, shape in shapes.items():
            for system, lengths, num_threads in _systems(device, counts):
                result = measure({**common, "shape": shape, "system": system, "lengths": lengths}, num_threads)
                found.setdefault((name, system, lengths, num_threads), []).append(result)
                tell(f"{number + 1}/{rounds} {name} {system} ({lengths}), threads {num_threads}: {result['tokens_per_second']:.0f} tokens/s")
    peaks = {str(n): measure({"system": "peak", "device": device, "repeats": 5}, n) for n in counts}
    rows = []
    for key, results in found.items():
        middle = {field: median(result[field] for result in results) for field in ("tokens_per_second", "peak_memory_bytes", "gflops")}
        best = max(rate for library, rate in peaks[str(key[3])].items() if library != "int8")
        rows.append(Row(*key, middle["tokens_per_second"], int(middle["peak_memory_bytes"]), middle["gflops"], middle["gflops"] / best))
    return Bench(device, num_tokens, rounds, round(time.monotonic() - start, 1), peaks, rows)


def _systems(device: str, counts: list[int]) -> list[tuple[str, str, int]]:
    """(system, lengths, threads) of each measurement."""
    most = counts[-1]
    systems = [("fast", "lognormal", n) for n in counts] + [("fast", "equal", most), ("reference", "equal", most)]
    return systems + ([("int8", "lognormal", most)] if device == "cpu" else [])


def measure_in_process(task: Mapping[str, Any], num_threads: int) -> dict[str, Any]:
    """Make one measurement in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": str(num_threads), "MKL_NUM_THREADS": str(num_threads), "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run([sys.executable, "-P", "-m", "danlu.training.benchmark", json.dumps(task)], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise InternalError(
            f"the measurement of {task['system']} ended with {done.returncode}",
            why=(done.stderr.strip().splitlines() or ["it said nothing"])[-1],
            fix="close other programs when memory is short, and run the same command again",
        )
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
