"""One measurement of training speed and memory, as a program: one JSON argument in, one JSON line out.

A process of its own per measurement, so that peak memory belongs to what was measured. The model has random weights
and the tokens are random too: neither changes how long a step takes.

Shapes: M rows, K summed over, N columns.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from danlu.data.pack import EncodedExample, pack
from danlu.training.batch import PackedBatch
from danlu.training.flops import executed_flops
from danlu.training.forward import fast_nll, reference_nll
from danlu.training.kernels import gemm, int8
from danlu.training.kernels.attention import BLOCK_ROWS
from danlu.training.kernels.attention import NAME as PACKED_ATTENTION

LABEL_SHARE = 0.4
EQUAL_LENGTH = 256
"""Tokens of every example where the padded path must have nothing to pad."""
PEAK_PRODUCTS = ((2048, 768, 2304), (2048, 2304, 768), (2048, 2048, 2048))
GPU_PEAK_PRODUCTS = ((8192, 8192, 8192), (4096, 8192, 8192))


def lengths_of(spread: str, num_tokens: int, longest: int) -> list[int]:
    """Lengths of examples that sum to `num_tokens`.

    `lognormal`: the logarithm has mean 5.3 and deviation 0.6 (median 200), cut to 32 .. `longest`; `long`: mean 6.2 and
    deviation 0.8 (median 490), cut to 40 .. `longest`; `equal`: EQUAL_LENGTH.
    """
    generator = np.random.default_rng(0)
    mean, deviation, shortest = (6.2, 0.8, 40) if spread == "long" else (5.3, 0.6, 32)
    lengths: list[int] = []
    while (left := num_tokens - sum(lengths)) > 0:
        wanted = EQUAL_LENGTH if spread == "equal" else int(np.clip(generator.lognormal(mean, deviation), shortest, longest))
        lengths.append(min(wanted, left))
    return lengths


def examples_of(lengths: list[int], vocabulary: int) -> list[EncodedExample]:
    """Examples of random tokens; the last 40 % of each is trained on."""
    generator = np.random.default_rng(1)
    return [
        EncodedExample(generator.integers(0, vocabulary, length).astype(np.uint32), np.arange(length) >= round(length * (1 - LABEL_SHARE)))
        for length in lengths
    ]


def make_model(shape: Mapping[str, Any], *, system: str, rank: int, device: str, dtype: torch.dtype) -> nn.Module:
    """A model of random weights (Qwen3, or `model_type`) with a LoRA adapter on every linear layer, made for `system`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from danlu.training.methods.lora import LoRA

    torch.manual_seed(0)
    is_fast = system != "reference"
    config = AutoConfig.for_model(**{"model_type": "qwen3"} | dict(shape))
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=PACKED_ATTENTION if is_fast else "sdpa")
    adapted = LoRA(rank=rank, alpha=2.0 * rank).apply(model, fused=is_fast)
    if system == "int8":
        int8.convert(adapted)
    return adapted.train()


def measure_training(task: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens per second, peak memory and executed operations of forward, backward and nothing else."""
    device, system = task["device"], task["system"]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = make_model(task["shape"], system=system, rank=task["rank"], device=device, dtype=dtype)
    lengths = lengths_of(task["lengths"], task["num_tokens"], task["shape"]["max_position_embeddings"])
    examples = examples_of(lengths, task["shape"]["vocab_size"])
    nll = reference_nll if system == "reference" else fast_nll
    batches = [PackedBatch.from_examples([examples[i] for i in group], device) for group in pack(lengths, task["micro_batch_tokens"])]
    _pass(model, nll, [PackedBatch.from_examples(examples[:1], device)])  # the first pass of a process pays for what is made once
    start, num_passes = time.perf_counter(), 0
    while not num_passes or time.perf_counter() - start < task["seconds"]:
        loss = _pass(model, nll, batches)
        num_passes += 1
    seconds = time.perf_counter() - start
    num_labels = sum(batch.num_label_tokens for batch in batches)
    is_fused = device == "cpu"
    flops = executed_flops(
        task["shape"], lengths, num_labels, adapter_rank=task["rank"], block_rows=BLOCK_ROWS if is_fused else 1, is_fused=is_fused and system != "reference"
    )
    return {
        "tokens_per_second": num_passes * sum(lengths) / seconds,
        "peak_memory_bytes": peak_memory_bytes(device),
        "gflops": num_passes * flops / seconds / 1e9,
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "loss": loss,
    }


def _pass(model: nn.Module, nll: Callable[..., Any], batches: list[PackedBatch]) -> float:
    total, count = 0.0, sum(batch.num_label_tokens for batch in batches)
    for batch in batches:
        loss = nll(model, batch).sum() / count
        loss.backward()
        total += float(loss.detach())
    model.zero_grad()
    return total


def measure_peak(task: Mapping[str, Any]) -> dict[str, Any]:
    """The best rate of plain products in GFLOP/s that any of PyTorch's libraries reaches here, and that of 8-bit integers."""
    best = {"mkl": 0.0, "onednn": 0.0, "int8": 0.0} if task["device"] == "cpu" else {"cuda": 0.0}
    for m, k, n in PEAK_PRODUCTS if task["device"] == "cpu" else GPU_PEAK_PRODUCTS:
        for name, call in _products(m, k, n, task["device"]).items():
            call()
            for _ in range(task["repeats"]):
                start = time.perf_counter()
                call()
                if task["device"] == "cuda":
                    torch.cuda.synchronize()
                best[name] = max(best[name], 2 * m * k * n / (time.perf_counter() - start) / 1e9)
    return best


def _products(m: int, k: int, n: int, device: str) -> dict[str, Callable[[], Any]]:
    if device == "cuda":
        x, w = (torch.randn(size, device=device, dtype=torch.bfloat16) for size in ((m, k), (n, k)))
        return {"cuda": lambda: x @ w.T}
    x, w, out = torch.randn(m, k), torch.randn(n, k), torch.empty(m, n)
    qx, qw = int8.quantise_rows(x).values_TK, int8.quantise_rows(w).values_TK
    calls: dict[str, Callable[[], Any]] = {"mkl": lambda: torch.mm(x, w.T, out=out)}
    if gemm.has_onednn():
        calls["onednn"] = lambda: torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")
    if int8.is_fast():
        calls["int8"] = lambda: torch._int_mm(qx, qw.T)
    return calls


def peak_memory_bytes(device: str) -> int:
    """Most memory this process ever held, or the GPU for it."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists():  # unlike getrusage's number it does not begin with what the parent process held
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Read the task, measure, print."""
    task = json.loads(sys.argv[1])
    result = measure_peak(task) if task["system"] == "peak" else measure_training(task)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
