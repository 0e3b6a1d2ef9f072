"""The training stage as a program: token files and a resolved recipe in, trained weights and training.json out."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from danlu.data.chat import ChatRenderer
from danlu.errors import NoEffectError
from danlu.files import fsync_dir, storage_errors, write_json
from danlu.models.load import load_model, load_tokenizer
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir
from danlu.training.forward import fast_nll, reference_nll
from danlu.training.kernels import int8
from danlu.training.kernels.attention import NAME as PACKED_ATTENTION
from danlu.training.loop import Loop, peak_memory_bytes


def run(recipe: Recipe, run_dir: RunDir, reporter: Reporter, *, model_dir: Path, device: str = "cpu") -> str:
    """Train, or go on training; return `finished`, `stopped_early` or `paused`.

    Does nothing when training.json says that it is done.
    """
    result_path = run_dir.path / "training.json"
    if result_path.exists():
        return "finished"
    reporter.stage("training")
    is_fast = recipe.training.path == "fast"
    torch.manual_seed(recipe.seed)
    random_weights = getattr(recipe.method, "init", "pretrained") == "random"
    model = load_model(
        model_dir, dtype=getattr(torch, str(recipe.training.dtype)), attention=PACKED_ATTENTION if is_fast else None, random_weights=random_weights
    )
    model = model.to(device)
    model = recipe.method.apply(model, fused=is_fast)  # type: ignore[attr-defined]
    if recipe.training.compute == "int8":
        _compute_in_int8(recipe, model, reporter, device)
    loop = Loop(recipe, run_dir, reporter, model, fast_nll if is_fast else reference_nll, torch.device(device))
    outcome = loop.run()
    if outcome == "paused":
        return outcome
    best_step = loop.restore_best()
    if best_step is not None:
        reporter.event("best", f"the weights of step {best_step} are kept: its validation loss was the lowest", step=best_step)
    _save_result(recipe, run_dir, model, model_dir)
    write_json(
        result_path,
        {
            "outcome": outcome,
            "num_steps": loop.num_steps,
            "kept_step": best_step or loop.state.step,
            "peak_memory_bytes": peak_memory_bytes(torch.device(device)),
            **asdict(loop.state),
        },
    )
    return outcome


def _compute_in_int8(recipe: Recipe, model: Any, reporter: Reporter, device: str) -> None:
    """Round the frozen weights of `model`; say so when this processor gains nothing by it."""
    is_possible = device == "cpu" and recipe.training.dtype == "float32"
    if not is_possible or not int8.convert(model):
        why = f"the device is {device} and training.dtype is {recipe.training.dtype}" if not is_possible else "no frozen linear layer is in float32"
        raise NoEffectError("training.compute int8 has nothing to work on", why=why, fix="remove training.compute; it is for adapters in float32 on a CPU")
    if not int8.is_fast():
        reporter.event("warning", "this processor has no integer dot products (VNNI): training.compute int8 is slower here than exact", name="slow_int8")


def _save_result(recipe: Recipe, run_dir: RunDir, model: Any, model_dir: Path) -> None:
    """Write adapter/ or model/ with the tokenizer (and so the chat template), atomically."""
    target = run_dir.adapter if recipe.method.makes_adapter else run_dir.model
    staging = target.with_name(f".{target.name}.tmp")
    with storage_errors(target):
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        recipe.method.save(model, staging)  # type: ignore[attr-defined]
        tokenizer = load_tokenizer(model_dir)
        ChatRenderer(tokenizer)  # gives a tokenizer without a chat template the documented default, which is stored with the result
        tokenizer.save_pretrained(staging)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(staging, target)
        fsync_dir(target.parent)
