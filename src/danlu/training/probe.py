"""The forecast of a run, corrected by a short measurement before its first step: one wide micro batch and one usual step.

Nothing it does changes what is learnt: gradients are cleared, every micro batch seeds its own dropout.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from danlu.data.on_demand import OnDemand
from danlu.data.pack import TokenFile, divide, pack, step_batches
from danlu.errors import ModelError, is_out_of_memory
from danlu.models.forecast import Forecast, Lengths, cost, forecast
from danlu.models.headroom import budget_bytes, status_bytes
from danlu.models.memory import SIMULATED_STEPS, MemoryParts, computes_stock, fit, kernels_bytes, micro_batches
from danlu.models.shape import ModelShape
from danlu.training.forward import unwrap

if TYPE_CHECKING:
    from danlu.training.groups import Group
    from danlu.training.loop import Loop

MAX_SECONDS = 20.0
"""A usual step is measured only while the wide micro batch was quicker than that."""
MIN_TOKENS = 16
"""Fewest tokens of a micro batch."""
MAX_SCRATCH = 4 * 2**20
"""Elements of the matrix that the optimiser is tried on."""


def lengths_of(tokens: TokenFile | OnDemand, group_size: int, *, num_validation: int = 0) -> Lengths:
    """Tokens and label tokens of every example of a training set, or of its sample."""
    totals, labels = tokens.sample.lengths.reshape(-1, group_size).sum(1), tokens.sample.label_counts().reshape(-1, group_size).sum(1)
    return Lengths(totals.tolist(), labels.tolist(), len(tokens) // group_size, num_validation)


def formula(loop: Loop, *, process_bytes: int | None = None) -> Forecast | None:
    """The forecast without a measurement; None for a model whose configuration does not tell its sizes."""
    try:
        shape = ModelShape.from_config(unwrap(loop.model).config.to_dict())
    except ModelError:
        return None
    size = loop.objective.group_size
    found = lengths_of(loop.train_set, size, num_validation=len(loop.validation_set) // size)
    limit = max(found.tokens) if loop.recipe.data.max_seq_len == "auto" else loop.recipe.data.max_seq_len
    changed = {
        "optim": loop.recipe.optim.model_copy(update={"micro_batch_tokens": loop.state.micro_batch_tokens}),
        "data": loop.recipe.data.model_copy(update={"max_seq_len": limit}),
    }
    recipe = loop.recipe.model_copy(update=changed)
    count = loop.world.num_processes
    return forecast(
        shape,
        recipe,
        found,
        available_bytes=_available(loop.device, count),
        device=loop.device.type,
        process_bytes=process_bytes,
        num_processes=count,
        is_sharded=loop.world.is_sharded,
    )


def _available(device: torch.device, num_processes: int) -> int:
    """What one process can have."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device))
    return budget_bytes() // num_processes


def measured(loop: Loop, *, process_bytes: int | None = None, price_per_hour: float | None = None) -> dict[str, Any]:
    """Run the measurement and return the corrected forecast; a memory that does not suffice leaves it uncorrected.

    The first step will then make the micro batch smaller, and say so.
    """
    before = peak_memory_bytes(loop.device)
    expected = formula(loop, process_bytes=process_bytes)
    counts = _step_tokens(loop)
    told = ("trained_parameters", "model_parameters", "peak_memory_bytes", "memory", "available_bytes", "fit")
    found: dict[str, Any] = {key: expected.to_dict()[key] for key in told} if expected is not None else {}
    tokens = float(loop.train_set.sample.lengths.sum()) * (len(loop.train_set) / len(loop.train_set.sample))
    found |= {"num_steps": loop.num_steps, "num_tokens": round(tokens * loop.num_steps / loop.steps_per_epoch)}
    try:
        _reset_peak()
        wide = _widest(loop)
        # Gradients of the micro batches before it are there only in a step of several.
        is_accumulated = any(tokens > loop.state.micro_batch_tokens * loop.world.num_processes for _, tokens in counts)
        seconds_per_token, peak = _time(loop, wide, is_accumulated=is_accumulated)
        usual = _usual(loop, counts)
        if loop.world.from_main(seconds_per_token * num_tokens(wide) < MAX_SECONDS):
            seconds_per_token, peak = _time(loop, usual, is_accumulated=is_accumulated)
        per_step = _optimizer_seconds(loop)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return found
    finally:
        loop.optimizer.zero_grad()
    seconds = round(found["num_tokens"] * seconds_per_token / loop.world.num_processes + loop.num_steps * per_step, 3)
    found |= {"training_seconds": seconds, "cost": cost(seconds, price_per_hour)}
    if expected is None:
        return found | {"peak_memory_bytes": max(before, peak + 8 * _num_trained(loop))}
    parts = corrected(expected.memory, max(before, peak + expected.memory.optimizer_bytes + _kernels_to_come(loop, [*wide, *usual])))
    return found | {"memory": parts.to_dict(), "peak_memory_bytes": parts.peak_bytes, "fit": fit(parts.peak_bytes, expected.available_bytes)}


def _kernels_to_come(loop: Loop, seen: Sequence[Group]) -> int:
    """Memory of the products that steps will compile and the measurement did not."""
    if loop.device.type != "cpu" or loop.recipe.training.path != "fast":
        return 0
    found = lengths_of(loop.train_set, loop.objective.group_size)
    batches = micro_batches(loop.recipe, found.tokens, found.labels, loop.state.micro_batch_tokens)
    shape = ModelShape.from_config(unwrap(loop.model).config.to_dict())
    is_stock = computes_stock(shape, loop.recipe, loop.device.type, loop.world.num_processes if loop.world.is_sharded else 1)
    lengths = loop.train_set.sample.lengths.tolist()
    whole = kernels_bytes(lengths, (batch.tokens for batch in batches), (batch.label_rows for batch in batches), is_stock=is_stock)
    return max(0, whole - kernels_bytes([len(sequence.ids) for group in seen for sequence in group], (16, 32), (16, 32), is_stock=is_stock))  # of two sizes


def corrected(parts: MemoryParts, peak_bytes: int) -> MemoryParts:
    """The same parts with the peak that was measured: what differs is put to activations and temporaries, as far as they go."""
    moving = parts.activations_bytes + parts.temporary_bytes
    wanted = max(0, peak_bytes - parts.fixed_bytes)
    activations = int(parts.activations_bytes * wanted / moving) if moving else 0
    process = parts.process_bytes + min(0, peak_bytes - parts.fixed_bytes)
    return replace(parts, process_bytes=process, activations_bytes=activations, temporary_bytes=wanted - activations)


def num_tokens(groups: Sequence[Group]) -> int:
    """Tokens of all sequences of all groups."""
    return sum(len(sequence.ids) for group in groups for sequence in group)


def _step_tokens(loop: Loop) -> list[tuple[list[int], int]]:
    """(examples, tokens) of the first steps, those of the sample where the training set has one; empty examples are left out."""
    lengths = loop.train_set.sample.lengths.reshape(-1, loop.objective.group_size).sum(1)
    batches = step_batches(
        len(lengths),
        global_batch_size=int(loop.recipe.optim.global_batch_size),
        seed=loop.recipe.seed,
        start_step=0,
        num_steps=min(loop.num_steps, SIMULATED_STEPS),
    )
    filled = ([int(i) for i in indices if lengths[i]] for indices in batches)
    return [(indices, int(lengths[indices].sum())) for indices in filled if indices]


def _widest(loop: Loop) -> list[Group]:
    """The micro batch with most tokens of the first steps."""
    lengths = loop.train_set.sample.lengths.reshape(-1, loop.objective.group_size).sum(1)
    best: list[int] = []
    for indices, _ in _step_tokens(loop):
        for share in divide([int(lengths[i]) for i in indices], loop.world.num_processes):
            own = [indices[i] for i in share]
            for members in pack([int(lengths[i]) for i in own], loop.state.micro_batch_tokens):
                chosen = [own[i] for i in members]
                if lengths[chosen].sum() > (lengths[best].sum() if best else 0):
                    best = chosen
    return [loop.train_set.sample.group(i, loop.objective.group_size) for i in best]


def _usual(loop: Loop, counts: Sequence[tuple[list[int], int]]) -> list[Group]:
    """The first examples of the step whose tokens are nearest to the mean, as many as two micro batches hold."""
    mean = float(np.mean([tokens for _, tokens in counts]))
    indices, _ = min(counts, key=lambda step: abs(step[1] - mean))
    chosen: list[Group] = []
    for index in indices:
        group = loop.train_set.sample.group(index, loop.objective.group_size)
        if chosen and num_tokens([*chosen, group]) > 2 * loop.state.micro_batch_tokens:
            break
        chosen.append(group)
    return chosen


def _time(loop: Loop, groups: list[Group], *, is_accumulated: bool) -> tuple[float, int]:
    """(seconds per token, peak memory) of forward and backward passes over `groups`; the first pass warms up."""
    trained, totals = loop.counted(groups, [sequence for group in groups for sequence in group])
    seconds = []
    for _ in range(2):
        if not is_accumulated:
            loop.optimizer.zero_grad()
        start = time.monotonic()
        loop.forward_backward(trained, totals)
        if loop.device.type == "cuda":
            torch.cuda.synchronize(loop.device)
        seconds.append(time.monotonic() - start)
    loop.optimizer.zero_grad()
    return min(seconds) / max(1, num_tokens(groups)), _peak(loop.device)


def _optimizer_seconds(loop: Loop) -> float:
    """Time of one optimizer step, from a step on a copy of one trained matrix."""
    matrices = [p for p in loop.optimizer.parameters.values() if p.ndim == 2 and p.numel() <= MAX_SCRATCH]
    if not matrices:
        return 0.0
    scratch = nn.Module()
    scratch.weight = nn.Parameter(max(matrices, key=lambda p: p.numel()).detach().clone())
    optimizer = loop.make_optimizer(scratch)
    seconds = []
    for _ in range(3):
        scratch.weight.grad = torch.full_like(scratch.weight, 1e-3)
        start = time.monotonic()
        optimizer.step(1e-9, 1.0)
        seconds.append(time.monotonic() - start)
    return min(seconds) * _num_trained(loop) / scratch.weight.numel()


def _num_trained(loop: Loop) -> int:
    return sum(p.numel() for p in loop.optimizer.parameters.values())


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held so far: of the GPU where there is one, else of this process."""
    import resource

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reset_peak() -> None:
    """Let the kernel's high-water mark start anew where it can be; ru_maxrss, which the report shows, is not touched by it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak(device: torch.device) -> int:
    """Peak since `_reset_peak`."""
    return peak_memory_bytes(device) if device.type == "cuda" else status_bytes("VmHWM") or peak_memory_bytes(device)
