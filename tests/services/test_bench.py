"""`danlu bench`: what it measures, on a model so small that it takes seconds."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from danlu.errors import InternalError
from danlu.services.bench import SHAPES, Bench, Row, bench
from danlu.training.benchmark import measure_training
from danlu.training.flops import executed_flops

TINY = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}


def in_this_process(task: Mapping[str, Any], num_threads: int) -> dict[str, Any]:
    if task["system"] == "peak":
        return {"mkl": 1e6, "onednn": 0.0, "int8": 2e6}
    return measure_training(task)


def test_every_system_is_measured_with_one_and_with_all_threads() -> None:
    told: list[str] = []

    found = bench(quick=True, device="cpu", threads=2, shapes={"tiny": TINY}, num_tokens=64, seconds=0.0, tell=told.append, measure=in_this_process)

    assert [(row.system, row.lengths, row.num_threads) for row in found.rows] == [
        ("fast", "lognormal", 1),
        ("fast", "lognormal", 2),
        ("fast", "equal", 2),
        ("reference", "equal", 2),
        ("int8", "lognormal", 2),
    ]
    assert all(row.tokens_per_second > 0 and row.peak_memory_bytes > 10**8 and 0 < row.share_of_peak < 1 for row in found.rows)
    assert len(told) == 5
    assert found.to_dict()["fast_over_reference"]["tiny"]["speed"] > 0


def test_both_paths_compute_the_same_loss_on_what_is_measured() -> None:
    task = {"shape": TINY, "device": "cpu", "rank": 4, "micro_batch_tokens": 64, "num_tokens": 96, "seconds": 0.0, "lengths": "lognormal"}

    losses = [measure_training({**task, "system": system})["loss"] for system in ("fast", "reference")]

    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_ratio_compares_equal_batches_only() -> None:
    rows = [
        Row("30M", "fast", "lognormal", 2, 900.0, 50, 1.0, 0.1),
        Row("30M", "fast", "equal", 2, 600.0, 100, 1.0, 0.1),
        Row("30M", "reference", "equal", 2, 200.0, 400, 1.0, 0.1),
    ]

    assert Bench("cpu", 64, 1, 1.0, {}, rows).ratio("30M") == (3.0, 0.25)


def test_a_measurement_that_fails_says_why() -> None:
    with pytest.raises(InternalError, match="measurement of"):
        bench(quick=True, device="cpu", threads=1, shapes={"tiny": {**TINY, "hidden_size": -1}}, num_tokens=8, seconds=0.0)


def test_a_device_that_is_not_there_is_refused() -> None:
    done = subprocess.run([sys.executable, "-m", "danlu", "bench", "--device", "tpu"], capture_output=True, text=True)

    assert done.returncode != 0
    assert "--device tpu cannot be measured" in done.stderr


def test_operations_of_one_layer_are_those_counted_by_hand() -> None:
    """One layer, 3 tokens, 1 label: no input gradient below q, k, v; o and the feed-forward at the label row only."""
    qkv = 3 * (2 * 32 * (32 + 16 + 16)) + 3 * 2 * 4 * (2 * 32 * 3 + 3 * (32 + 16 + 16))
    rest = 4 * (32 * 32 + 3 * 32 * 64) + 6 * 4 * ((32 + 32) + 3 * (32 + 64))
    attention = 14 * 2 * 16 * (1 + 2 + 3)
    head = 4 * 32 * 100

    assert executed_flops(TINY, [3], 1, adapter_rank=4) == qkv + rest + attention + head


def test_the_shapes_are_of_the_sizes_they_are_named_after() -> None:
    def parameters(shape: dict[str, int]) -> float:
        width, head = shape["hidden_size"], shape["head_dim"]
        attention = width * head * (2 * shape["num_attention_heads"] + 2 * shape["num_key_value_heads"])
        return shape["vocab_size"] * width + shape["num_hidden_layers"] * (attention + 3 * width * shape["intermediate_size"])

    assert {name: round(parameters(shape) / 1e6) for name, shape in SHAPES.items()} == {"30M": 27, "108M": 108}
