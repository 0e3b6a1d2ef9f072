"""The fast path against the own reference path on the same packed batches, by tokens per batch: `python -m bench.batches`.

All examples are equally long and fill their batches, so that nothing is padded: what is left are the kernels.
"""

import argparse
from statistics import median

from danlu.services.bench import RANK, SHAPES, measure_in_process


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="108M")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 2048], help="tokens per batch")
    asked = parser.parse_args()
    found: dict[tuple[int, str], list[dict[str, float]]] = {}
    for _ in range(asked.rounds):
        for tokens in asked.tokens:
            for system in ("fast", "reference"):
                task = {"device": "cpu", "rank": RANK, "micro_batch_tokens": tokens, "num_tokens": 4 * tokens, "seconds": 10.0}
                result = measure_in_process({**task, "shape": SHAPES[asked.shape], "system": system, "lengths": "equal"}, asked.threads)
                found.setdefault((tokens, system), []).append(result)
    print(f"{asked.shape}, {asked.threads} threads, medians of {asked.rounds} interleaved rounds")
    print("| tokens per batch | fast, tokens/s | reference, tokens/s | faster by | fast, MB | reference, MB | memory |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for tokens in asked.tokens:
        speeds = [median(r["tokens_per_second"] for r in found[tokens, system]) for system in ("fast", "reference")]
        peaks = [median(r["peak_memory_bytes"] for r in found[tokens, system]) / 1e6 for system in ("fast", "reference")]
        print(f"| {tokens} | {speeds[0]:.0f} | {speeds[1]:.0f} | {speeds[0] / speeds[1]:.2f}x | {peaks[0]:.0f} | {peaks[1]:.0f} | {peaks[0] / peaks[1]:.2f}x |")


if __name__ == "__main__":
    main()
