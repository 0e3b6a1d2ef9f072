"""Log-likelihoods under the reference model: the model before training, asked once about every sequence.

They are computed from the base model before the method touches it, and kept in the token folder: a run that goes on
finds them there, and where they are missing the weights it loads first are the base model's again.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

from danlu.data.pack import REFERENCE, EncodedExample, TokenFile
from danlu.errors import OutOfMemoryError, TrainingError, is_out_of_memory
from danlu.files import fsync_dir, storage_errors
from danlu.reporter import Reporter
from danlu.run_dir import RunDir
from danlu.training.batch import PackedBatch
from danlu.training.forward import example_nll
from danlu.training.objective import NllFunction
from danlu.training.parallel import World


@torch.no_grad()
def add_references(
    run_dir: RunDir, reporter: Reporter, model: nn.Module, nll: NllFunction, *, micro_batch_tokens: int, device: torch.device, world: World | None = None
) -> None:
    """Write reference.npy (nats of each sequence, float64) beside the tokens of training and validation, where it is missing.

    The processes of `world` divide the work; the numbers do not depend on how many they are.

    Raises:
        TrainingError: the model gives a likelihood that is not a number.
    """
    world = world or World(device)
    missing = world.from_main([name for name in ("train", "validation") if not (run_dir.data / f"{name}.tokens" / REFERENCE).exists()])
    model.eval()
    for name in missing:
        folder = run_dir.data / f"{name}.tokens"
        tokens = TokenFile(folder)
        nats = np.zeros(len(tokens))
        while True:
            reasons = world.gather(_fill(nats, tokens, f"reference likelihoods, {name}", reporter, model, nll, micro_batch_tokens, device, world))
            reason = next((reason for reason in reasons if reason), None)
            if reason is None:
                break
            if micro_batch_tokens <= max(tokens.lengths):
                raise OutOfMemoryError(
                    f"an example of {max(tokens.lengths)} tokens does not fit in memory by itself",
                    why=reason,
                    fix=f"set data.max_seq_len below {max(tokens.lengths)}, or use a smaller base model",
                )
            micro_batch_tokens = max(int(max(tokens.lengths)), micro_batch_tokens // 2)
            reporter.event("out_of_memory", f"out of memory: going on with {micro_batch_tokens} tokens per forward pass; the loss does not change", step=0)
        nats = np.sum(world.gather(nats), axis=0)  # zero where it was another process's turn
        if not np.isfinite(nats).all():
            raise TrainingError(
                f"the base model gives no finite likelihood for example {int(np.flatnonzero(~np.isfinite(nats))[0])} of the {name} split",
                why="its weights are broken",
                fix="check or copy the base model again",
            )
        if world.is_main:
            _write(folder / REFERENCE, nats)
    world.from_main(None)  # nobody reads what is not there yet


def _fill(
    nats: np.ndarray,
    tokens: TokenFile,
    what: str,
    reporter: Reporter,
    model: nn.Module,
    nll: NllFunction,
    micro_batch_tokens: int,
    device: torch.device,
    world: World,
) -> str | None:
    """Compute the nats of this process's part of the sequences; return why memory did not suffice, or None."""
    nats[:] = 0.0
    try:
        for members in _consecutive(tokens.lengths, micro_batch_tokens)[world.process_rank :: world.num_processes]:
            sequences: list[EncodedExample] = [tokens[i] for i in members]
            batch = PackedBatch.from_examples(sequences, device)
            if batch.num_label_tokens:
                nats[members.start : members.stop] = example_nll(nll(model, batch), batch)[0].cpu().numpy()
            reporter.progress(what, members.stop, len(tokens))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None


def _consecutive(lengths: np.ndarray, micro_batch_tokens: int) -> list[range]:
    """Stretches of sequences of at most so many tokens each (at least one sequence)."""
    stretches: list[range] = []
    start = total = 0
    for position, length in enumerate(lengths):
        if position > start and total + int(length) > micro_batch_tokens:
            stretches.append(range(start, position))
            start, total = position, 0
        total += int(length)
    return [*stretches, range(start, len(lengths))] if len(lengths) else []


def _write(path: Path, values: np.ndarray) -> None:
    """Write the array so that it is there whole or not at all."""
    staging = path.with_name(f".{path.name}.tmp")
    with storage_errors(path):
        with staging.open("wb") as file:
            np.save(file, values)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staging, path)
        fsync_dir(path.parent)
