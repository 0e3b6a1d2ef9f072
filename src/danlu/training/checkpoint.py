"""Checkpoints that exist whole or not at all, and resume that takes the newest one that verifies.

staging folder -> files -> manifest (size + sha256) -> fsync files and folder -> rename -> fsync parent.
A folder without a manifest that verifies does not exist as far as resume is concerned. No pickle anywhere.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from danlu.errors import CheckpointError, StorageError
from danlu.files import fsync_dir, storage_errors
from danlu.training.parallel import part_like, whole

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """What is needed to go on exactly: trained weights, optimizer state, and the loop's own numbers."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def step_dir(checkpoints: Path, step: int) -> Path:
    """Folder of the checkpoint after `step` optimizer steps."""
    return checkpoints / f"step-{step:06d}"


def save(folder: Path, checkpoint: Checkpoint, *, tries: int = 1) -> None:
    """Write `checkpoint` as `folder`, atomically and durably.

    Raises:
        StorageError: disk full or I/O error, `tries` times; nothing is left behind and older checkpoints are untouched.
    """
    for _ in range(tries - 1):
        with suppress(StorageError):
            return _save(folder, checkpoint)
    _save(folder, checkpoint)


def _save(folder: Path, checkpoint: Checkpoint) -> None:
    staging, before = folder.with_name(f".{folder.name}.tmp"), folder.with_name(f".{folder.name}.old.tmp")
    with storage_errors(folder):
        for left_over in (staging, before):
            shutil.rmtree(left_over, ignore_errors=True)
        try:
            staging.mkdir(parents=True)
            save_file({k: v.detach().contiguous() for k, v in checkpoint.weights.items()}, staging / "weights.safetensors")
            save_file({k: v.detach().contiguous() for k, v in checkpoint.optimizer.items()}, staging / "optimizer.safetensors")
            (staging / "state.json").write_bytes(orjson.dumps(checkpoint.state))
            seal(staging)
            if folder.exists():
                os.replace(folder, before)
            os.replace(staging, folder)
            fsync_dir(folder.parent)
        except BaseException:
            if before.exists() and not folder.exists():
                before.rename(folder)
            shutil.rmtree(staging, ignore_errors=True)
            raise
        shutil.rmtree(before, ignore_errors=True)


def seal(folder: Path) -> None:
    """Write the manifest of every file in `folder` and make all of it durable."""
    entries = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        entries[str(file.relative_to(folder))] = {"size": file.stat().st_size, "sha256": sha256(file)}
        _fsync(file)
    (folder / MANIFEST).write_bytes(orjson.dumps({"files": entries}, option=orjson.OPT_INDENT_2))
    _fsync(folder / MANIFEST)
    fsync_dir(folder)


def problem(folder: Path) -> str | None:
    """Why `folder` is not a whole checkpoint, or None when it verifies."""
    try:
        entries = orjson.loads((folder / MANIFEST).read_bytes())["files"]
        for name, entry in entries.items():
            file = folder / name
            if not file.is_file() or file.stat().st_size != entry["size"]:
                return f"{name} is missing or has the wrong size"
            if sha256(file) != entry["sha256"]:
                return f"{name} does not match its checksum"
    except (OSError, ValueError, KeyError) as error:
        return f"no valid manifest ({type(error).__name__})"
    return None


def load(folder: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: it does not verify.
    """
    reason = problem(folder)
    if reason:
        raise CheckpointError(
            f"checkpoint {folder} does not verify", why=reason, fix="remove the checkpoints folder of the run and start the same command again: it trains anew"
        )
    return Checkpoint(
        load_file(folder / "weights.safetensors"), load_file(folder / "optimizer.safetensors"), orjson.loads((folder / "state.json").read_bytes())
    )


def newest_valid(checkpoints: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest step checkpoint that verifies, and the newer ones that do not with the reason."""
    rejected: list[tuple[Path, str]] = []
    for folder in sorted(checkpoints.glob("step-*"), reverse=True):
        reason = problem(folder)
        if reason is None:
            return folder, rejected
        rejected.append((folder, reason))
    return None, rejected


def rotate(checkpoints: Path, *, keep: int = 2) -> None:
    """Remove all but the newest `keep` step checkpoints, and staging folders of a killed process."""
    for folder in sorted(checkpoints.glob("step-*"), reverse=True)[keep:]:
        shutil.rmtree(folder, ignore_errors=True)
    for staging in checkpoints.glob(".step-*.tmp"):
        shutil.rmtree(staging, ignore_errors=True)


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights training changes, by parameter name."""
    return {name: whole(p.detach()) for name, p in model.named_parameters() if p.requires_grad}


def restore_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy `weights` into the trained parameters of `model`."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if parameters.keys() != weights.keys():
        odd = sorted(parameters.keys() ^ weights.keys())
        raise CheckpointError("the checkpoint belongs to another model or method", why=f"{len(odd)} weights differ, first: {odd[0]}", fix="start a new run")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(part_like(weights[name], parameter))


def sha256(file: Path) -> str:
    """Hex SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _fsync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
