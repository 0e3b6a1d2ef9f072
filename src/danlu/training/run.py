"""The training stage as a program: token files and a resolved recipe in, trained weights and training.json out."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from danlu.data.chat import ChatRenderer
from danlu.files import fsync_dir, storage_errors, write_json
from danlu.models.load import load_model, load_tokenizer
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir
from danlu.training.checkpoint import restore_weights, trained_weights
from danlu.training.forward import fast_nll, reference_nll
from danlu.training.kernels.attention import NAME as PACKED_ATTENTION
from danlu.training.loop import Loop, peak_memory_bytes
from danlu.training.objective import NllFunction
from danlu.training.parallel import World, shard


def run(recipe: Recipe, run_dir: RunDir, reporter: Reporter, *, model_dir: Path, device: str = "cpu", world: World | None = None) -> str:
    """Train, or go on training; return `finished`, `stopped_early` or `paused`.

    Does nothing when training.json says that it is done. Every process of a `world` calls it with a device of its own.
    """
    world = world or World(torch.device(device))
    result_path = run_dir.path / "training.json"
    if world.from_main(result_path.exists()):
        return "finished"
    reporter.stage("training")
    is_fast = recipe.training.path == "fast"
    model = prepared_model(recipe, model_dir, "cpu" if world.is_sharded else world.device)
    nll: NllFunction = fast_nll if is_fast else reference_nll
    if world.is_sharded:
        nll = shard(model, nll, world)
    loop = Loop(recipe, run_dir, reporter, model, nll, world.device, world)
    outcome = loop.run()
    if outcome == "paused":
        return outcome
    best_step = loop.restore_best()
    if best_step is not None:
        reporter.event("best", f"the weights of step {best_step} are kept: its validation loss was the lowest", step=best_step)
    weights = trained_weights(model)
    if not world.is_main:
        return outcome
    if world.is_sharded:  # what saving writes has to be whole
        model = prepared_model(recipe, model_dir, "cpu")
        restore_weights(model, weights)
    _save_result(recipe, run_dir, model, model_dir)
    write_json(
        result_path,
        {
            "outcome": outcome,
            "num_steps": loop.num_steps,
            "kept_step": best_step or loop.state.step,
            "peak_memory_bytes": peak_memory_bytes(world.device),
            **asdict(loop.state),
        },
    )
    return outcome


def prepared_model(recipe: Recipe, model_dir: Path, device: str | torch.device) -> Any:
    """The model as it is before the first step: loaded (or made at random from the seed), with the method applied."""
    is_fast = recipe.training.path == "fast"
    torch.manual_seed(recipe.seed)
    random_weights = getattr(recipe.method, "init", "pretrained") == "random"
    model = load_model(
        model_dir, dtype=getattr(torch, str(recipe.training.dtype)), attention=PACKED_ATTENTION if is_fast else None, random_weights=random_weights
    )
    return recipe.method.apply(model.to(device), fused=is_fast)  # type: ignore[attr-defined]


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
