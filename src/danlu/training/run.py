"""The training stage as a program: token files and a resolved recipe in, trained weights and training.json out."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from danlu.data.chat import ChatRenderer
from danlu.data.on_demand import OnDemand
from danlu.data.pack import TokenFile
from danlu.data.tokenise import is_complete
from danlu.errors import NoEffectError
from danlu.files import fsync_dir, storage_errors, write_json
from danlu.models.adapters import ORIGIN, load_start
from danlu.models.headroom import resident_bytes
from danlu.models.load import load_model, load_tokenizer
from danlu.models.new_tokens import add_new_tokens, make_rows
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir
from danlu.training.checkpoint import restore_weights, trained_weights
from danlu.training.forward import fast_nll, reference_nll
from danlu.training.heap import give_back_freed_memory, keep_freed_memory
from danlu.training.kernels import int8
from danlu.training.kernels.attention import NAME as PACKED_ATTENTION
from danlu.training.loop import Loop
from danlu.training.noise import with_embedding_noise
from danlu.training.objective import NllFunction
from danlu.training.parallel import World, shard
from danlu.training.probe import measured, peak_memory_bytes
from danlu.training.reference import add_references
from danlu.training.reward_model import fast_rewards, reference_rewards
from danlu.training.rollout import Rollouts

RESULT = "training.json"
"""It is there when training is done."""


def run(
    recipe: Recipe,
    run_dir: RunDir,
    reporter: Reporter,
    *,
    model_dir: Path,
    device: str = "cpu",
    world: World | None = None,
    after_step: Callable[[Loop], None] | None = None,
    until: int | None = None,
    score: Callable[[Any], float] | None = None,
) -> str:
    """Train, or go on training; return `finished`, `stopped_early` or `paused`.

    Does nothing when training.json says that it is done. Every process of a `world` calls it with a device of its own.
    `after_step` may look at the model between steps (samples). `until` pauses after that step. `score` is the metric that
    `training.best_by` names, where that is one of generated text.
    """
    world = world or World(torch.device(device))
    if world.from_main((run_dir.path / RESULT).exists()):
        return "finished"
    if world.is_sharded and recipe.objective.makes_reward_model:
        raise NoEffectError(
            f"objective {recipe.objective.type} cannot be trained sharded", why="its head is new and is not divided", fix="start the run without sharding"
        )
    if world.is_sharded and recipe.objective.is_online:
        raise NoEffectError(
            f"objective {recipe.objective.type} cannot be trained sharded",
            why="each process writes answers of its own, and needs the whole model for it",
            fix="start the run without sharding",
        )
    assert score is not None or not recipe.scores_answers, "who trains by a metric of generated text has to bring it"
    reporter.stage("training")
    if world.device.type == "cpu":
        keep_freed_memory()
    nll = likelihood(recipe)
    process_bytes = resident_bytes() if world.device.type == "cpu" else None
    start = start_folder(run_dir)
    base, new_ids = base_model(recipe, model_dir, "cpu" if world.is_sharded else world.device, start)
    starts_from_adapter = start is not None and recipe.method.makes_adapter
    if recipe.objective.has_reference and not starts_from_adapter:
        _add_references(recipe, run_dir, reporter, base, nll, world)
    model = with_method(recipe, base, new_ids)
    if start is not None and starts_from_adapter:
        load_start(model, start)
        if recipe.objective.has_reference:  # the reference is the model before this training: the round before
            _add_references(recipe, run_dir, reporter, model, nll, world)
    if recipe.training.compute == "int8":
        _compute_in_int8(recipe, model, reporter, world)
    if world.is_sharded:
        nll = shard(model, nll, world)
    loop = Loop(recipe, run_dir, reporter, model, nll, world.device, world, _train_set(recipe, run_dir, model_dir))
    loop.process_bytes = process_bytes
    if recipe.objective.is_online:
        loop.rollouts = _rollouts(recipe, run_dir, reporter, nll, model_dir, world, start)
    if after_step is not None:
        loop.after_step = after_step
    loop.until, loop.score = until, score
    return complete(loop, loop.run(), model_dir)


def _train_set(recipe: Recipe, run_dir: RunDir, model_dir: Path) -> TokenFile | OnDemand:
    """The tokens of the training split; made as they are asked for where that was left for later."""
    if is_complete(run_dir):
        return TokenFile(run_dir.data / "train.tokens")
    tokenizer = load_tokenizer(model_dir)
    add_new_tokens(tokenizer, recipe.data.new_tokens)
    return OnDemand(recipe, run_dir, ChatRenderer(tokenizer))


def _rollouts(recipe: Recipe, run_dir: RunDir, reporter: Reporter, nll: NllFunction, model_dir: Path, world: World, start: Path | None) -> Rollouts:
    """Who lets the model answer; with a second model as reference where an adapter that is switched off does not leave the model before training."""
    tokenizer = load_tokenizer(model_dir)
    add_new_tokens(tokenizer, recipe.data.new_tokens)
    renderer, reference = ChatRenderer(tokenizer), None
    if recipe.holds_reference_model:
        reference, new_ids = base_model(recipe, model_dir, world.device, start)
        if start is not None and recipe.method.makes_adapter:
            reference = with_method(recipe, reference, new_ids)
            load_start(reference, start)
        reference.requires_grad_(False).eval()
    return Rollouts(recipe, run_dir, reporter, renderer, nll, reference, world)


def complete(loop: Loop, outcome: str, model_dir: Path) -> str:
    """Write what a loop that has come to its end leaves: the weights that are kept, and training.json."""
    give_back_freed_memory()
    if outcome == "paused":
        return outcome
    best_step = loop.restore_best()
    if best_step is not None:
        name = loop.recipe.training.best_by
        loop.reporter.event("best", f"the weights of step {best_step} are kept: its validation {name} was the best", step=best_step)
    model = loop.model
    weights = trained_weights(model)
    if not loop.world.is_main:
        return outcome
    if loop.world.is_sharded:  # what saving writes has to be whole
        model = with_method(loop.recipe, *base_model(loop.recipe, model_dir, "cpu"))
        restore_weights(model, weights)
    _save_result(loop.recipe, loop.run_dir, model, model_dir)
    write_json(
        loop.run_dir.path / RESULT,
        {
            "outcome": outcome,
            "num_steps": loop.num_steps,
            "kept_step": best_step or loop.state.step,
            "peak_memory_bytes": peak_memory_bytes(loop.world.device),
            **asdict(loop.state),
        },
    )
    return outcome


def probe_speed(recipe: Recipe, run_dir: RunDir, reporter: Reporter, *, model_dir: Path, device: str = "cpu") -> float | None:
    """Tokens per second of a recipe on this machine, from the measurement that precedes a run; None when memory does not suffice for it."""
    base, new_ids = base_model(recipe, model_dir, device)
    loop = Loop(recipe, run_dir, reporter, with_method(recipe, base, new_ids), likelihood(recipe), torch.device(device))
    loop.model.train()
    found = measured(loop)
    seconds = found.get("training_seconds")
    return None if not seconds else float(found["num_tokens"] / seconds)


def _compute_in_int8(recipe: Recipe, model: Any, reporter: Reporter, world: World) -> None:
    """Round the frozen weights of `model`; say so when this processor gains nothing by it."""
    is_possible = world.device.type == "cpu" and not world.is_sharded and recipe.training.dtype == "float32"
    if not is_possible or not int8.convert(model):
        why = f"the device is {world.device} and training.dtype is {recipe.training.dtype}" if not is_possible else "no frozen linear layer is in float32"
        fix = "remove training.compute; it is for adapters in float32 on the CPU of one machine"
        raise NoEffectError("training.compute int8 has nothing to work on", why=why, fix=fix)
    if not int8.is_fast():
        zh = "这台处理器没有整数点积指令（VNNI）：training.compute int8 在此比 exact 更慢"
        en = "this processor has no integer dot products (VNNI): training.compute int8 is slower here than exact"
        reporter.event("warning", en, name="slow_int8", en=en, zh=zh)


def likelihood(recipe: Recipe) -> NllFunction:
    """The way through the model that the recipe asks for."""
    if recipe.objective.makes_reward_model:
        return fast_rewards if recipe.training.path == "fast" else reference_rewards
    nll: NllFunction = functools.partial(fast_nll, weighs_rows=recipe.objective.weighs_rows) if recipe.training.path == "fast" else reference_nll
    return nll if recipe.optim.neftune_alpha is None else with_embedding_noise(nll, recipe.optim.neftune_alpha)


def _add_references(recipe: Recipe, run_dir: RunDir, reporter: Reporter, model: Any, nll: NllFunction, world: World) -> None:
    tokens, device = int(recipe.optim.micro_batch_tokens), next(model.parameters()).device
    add_references(run_dir, reporter, model, nll, micro_batch_tokens=tokens, device=device, world=world)


def start_folder(run_dir: RunDir) -> Path | None:
    """Folder of the weights that training starts from, where it is not the base model's."""
    start = run_dir.read_record().get("start")
    return Path(start["folder"]) if start else None


def base_model(recipe: Recipe, model_dir: Path, device: str | torch.device, start: Path | None = None) -> tuple[Any, list[int]]:
    """The model before the method is applied (loaded, or made at random from the seed), and the ids of the tokens that were added to it.

    A method that changes the model itself begins with the weights in `start`.
    """
    torch.manual_seed(recipe.seed)
    model = load_model(
        start if start is not None and not recipe.method.makes_adapter else model_dir,
        dtype=getattr(torch, str(recipe.training.dtype)),
        attention=PACKED_ATTENTION if recipe.training.path == "fast" else None,
        random_weights=recipe.method.starts_anew,
        quantisation=recipe.method.quantisation,
        device=str(device),
        is_reward_model=recipe.objective.makes_reward_model,
    )
    new_ids = add_new_tokens(load_tokenizer(model_dir), recipe.data.new_tokens) if recipe.data.new_tokens else []
    if start is None or recipe.method.makes_adapter:
        make_rows(model, new_ids)
    return model, new_ids


def with_method(recipe: Recipe, base: Any, new_ids: list[int]) -> Any:
    """The model as it is before the first step."""
    return recipe.method.apply(base, fused=recipe.training.path == "fast", new_token_ids=new_ids)  # type: ignore[attr-defined]


def _save_result(recipe: Recipe, run_dir: RunDir, model: Any, model_dir: Path) -> None:
    """Write adapter/ or model/ with the tokenizer (and so the chat template), atomically."""
    target = run_dir.adapter if recipe.method.makes_adapter else run_dir.model
    staging = target.with_name(f".{target.name}.tmp")
    with storage_errors(target):
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        recipe.method.save(model, staging)  # type: ignore[attr-defined]
        tokenizer = load_tokenizer(model_dir)
        add_new_tokens(tokenizer, recipe.data.new_tokens)
        ChatRenderer(tokenizer)  # gives a tokenizer without a chat template the documented default, which is stored with the result
        tokenizer.save_pretrained(staging)
        base = run_dir.read_record().get("base_model")
        if base and recipe.method.makes_adapter:
            write_json(staging / ORIGIN, {"name": base["name"], "revision": base.get("revision"), "sha256": base["sha256"]})
        shutil.rmtree(target, ignore_errors=True)
        os.replace(staging, target)
        fsync_dir(target.parent)
