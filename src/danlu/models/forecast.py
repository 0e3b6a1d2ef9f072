"""What a run will take, told before it starts: memory by part, time, disk, tokens, money; and what would fit instead.

Torch-free. Time is known only where a speed was measured (a probe, or an earlier run); a number that was not measured is null.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from danlu.models.memory import GPU_HOST_BYTES, Fit, MemoryParts, as_trained, fit, num_answers, peak_memory
from danlu.models.memory import Plan as _Plan
from danlu.models.shape import ModelShape
from danlu.models.trained import trained_by
from danlu.plugins import Registry
from danlu.recipe.base import METHODS
from danlu.recipe.recipe import Recipe

KEPT_CHECKPOINTS = 2
"""Step checkpoints that rotation keeps (training/checkpoint.py); the best one comes on top."""
SMALL_SHARE = 0.05
"""A shorter max_seq_len that shortens no more examples than this costs less than a weaker method."""
MIN_MICRO_BATCH_TOKENS = 16


@dataclass(frozen=True)
class Lengths:
    """Tokens of each training example, and how many of them are trained on; a sample stands for all `num_examples`."""

    tokens: Sequence[int]
    labels: Sequence[int]
    num_examples: int
    num_validation: int = 0
    dataset_bytes: int = 0
    num_test: int = 0

    def cut(self, max_seq_len: int) -> Lengths:
        """The same examples, none longer than `max_seq_len`."""
        tokens = [min(int(n), max_seq_len) for n in self.tokens]
        return replace(self, tokens=tokens, labels=[min(int(n), t) for n, t in zip(self.labels, tokens, strict=True)])

    def share_longer(self, max_seq_len: int) -> float:
        """Share of the examples that are longer."""
        return sum(int(n) > max_seq_len for n in self.tokens) / max(1, len(self.tokens))

    @property
    def mean(self) -> float:
        """Mean tokens per example."""
        return sum(int(n) for n in self.tokens) / max(1, len(self.tokens))


@dataclass(frozen=True)
class Alternative:
    """Changes of the recipe with which it fits, and what they cost."""

    changes: dict[str, Any]
    peak_bytes: int
    fit: Fit
    en: str
    zh: str


@dataclass(frozen=True)
class Forecast:
    """Everything that is told before the start."""

    num_examples: int
    num_steps: int
    num_tokens: int
    truncated_share: float
    trained_parameters: int
    model_parameters: int
    memory: MemoryParts
    available_bytes: int
    fit: Fit
    disk: dict[str, int]
    host_bytes: int
    """Memory of the machine itself: that of the process, or what stands behind a GPU."""
    training_seconds: float | None = None
    """Optimizer steps alone; null without a measured speed."""
    cost: float | None = None
    """`training_seconds` at the price per hour that was given."""
    alternatives: list[Alternative] = field(default_factory=list)

    @property
    def disk_bytes(self) -> int:
        """What the run folder holds at the end."""
        return sum(self.disk.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "num_examples": self.num_examples,
            "num_steps": self.num_steps,
            "num_tokens": self.num_tokens,
            "truncated_share": round(self.truncated_share, 4),
            "trained_parameters": self.trained_parameters,
            "model_parameters": self.model_parameters,
            "peak_memory_bytes": self.memory.peak_bytes,
            "memory": self.memory.to_dict(),
            "host_bytes": self.host_bytes,
            "available_bytes": self.available_bytes,
            "fit": self.fit,
            "disk_bytes": self.disk_bytes,
            "disk": self.disk,
            "training_seconds": self.training_seconds,
            "cost": self.cost,
            "alternatives": [vars(alternative) for alternative in self.alternatives],
        }


def forecast(
    shape: ModelShape,
    recipe: Recipe,
    lengths: Lengths,
    *,
    available_bytes: int,
    device: str = "cpu",
    process_bytes: int | None = None,
    stored_bytes_per_weight: float | None = None,
    tokens_per_second: float | None = None,
    price_per_hour: float | None = None,
    num_processes: int = 1,
    is_sharded: bool = False,
) -> Forecast:
    """Forecast a resolved recipe; `price_per_hour` in any currency, `tokens_per_second` as measured on this machine.

    With several processes memory is that of one of them, and `available_bytes` what one of them can have.
    """
    max_seq_len = int(recipe.data.max_seq_len)
    cut = lengths.cut(max_seq_len)
    parts = peak_memory(
        shape,
        recipe,
        cut.tokens,
        cut.labels,
        device=device,
        process_bytes=process_bytes,
        stored_bytes_per_weight=stored_bytes_per_weight,
        num_processes=num_processes,
        is_sharded=is_sharded,
    )
    num_steps, epochs = steps_and_epochs(recipe, lengths.num_examples)
    trained_on = as_trained(recipe, cut.tokens, cut.labels)[0]
    mean = sum(int(n) for n in trained_on) / max(1, len(trained_on))
    num_tokens = round(mean * lengths.num_examples * epochs * num_answers(recipe) * recipe.objective.num_repeats)
    seconds = None if not tokens_per_second else round(num_tokens / tokens_per_second, 1)
    trained = trained_by(recipe, shape)
    found = fit(parts.peak_bytes, available_bytes)
    return Forecast(
        num_examples=lengths.num_examples,
        num_steps=num_steps,
        num_tokens=num_tokens,
        truncated_share=lengths.share_longer(max_seq_len),
        trained_parameters=trained.num_parameters,
        model_parameters=shape.num_parameters,
        memory=parts,
        available_bytes=available_bytes,
        fit=found,
        disk=disk_parts(shape, recipe, cut),
        host_bytes=parts.peak_bytes if device == "cpu" else GPU_HOST_BYTES + parts.weights_bytes,
        training_seconds=seconds,
        cost=cost(seconds, price_per_hour),
        alternatives=[] if found == "fits" else alternatives(shape, recipe, lengths, available_bytes=available_bytes, device=device),
    )


def steps_and_epochs(recipe: Recipe, num_examples: int) -> tuple[int, float]:
    """(optimizer steps, passes over the examples), as the loop counts them."""
    per_epoch = max(1, math.ceil(num_examples / int(recipe.optim.global_batch_size))) * recipe.objective.num_repeats
    steps = recipe.optim.max_steps or max(1, math.ceil(float(recipe.optim.num_epochs) * per_epoch))
    return steps, steps / per_epoch


def cost(seconds: float | None, price_per_hour: float | None) -> float | None:
    """Money for so much time."""
    return None if seconds is None or price_per_hour is None else round(seconds / 3600 * price_per_hour, 4)


def disk_parts(shape: ModelShape, recipe: Recipe, lengths: Lengths) -> dict[str, int]:
    """What the run folder will hold at the end: the data and its token cache, checkpoints, the result, exports."""
    trained = trained_by(recipe, shape)
    plan = _Plan(shape, recipe, None, trained, False, "cpu")  # type: ignore[arg-type]  # no micro batch is looked at here
    weights = 4 * trained.num_parameters
    has_best = recipe.training.keep_best and lengths.num_validation > 0
    result = 4 * trained.num_added if recipe.method.makes_adapter else 4 * shape.num_parameters
    whole = (4 if recipe.training.dtype != "bfloat16" else 2) * shape.num_parameters
    exports = sum(result if exporter.type == "adapter" else whole for exporter in recipe.export)
    tokens = round(lengths.mean * (lengths.num_examples + 2 * lengths.num_validation))
    return {
        "data_bytes": lengths.dataset_bytes + 5 * tokens + 8 * lengths.num_examples,
        "checkpoints_bytes": KEPT_CHECKPOINTS * (weights + plan.optimizer_bytes()) + (weights if has_best else 0),
        "result_bytes": result,
        "exports_bytes": exports,
    }


def alternatives(shape: ModelShape, recipe: Recipe, lengths: Lengths, *, available_bytes: int, device: str = "cpu") -> list[Alternative]:
    """Recipes that fit, the one that costs least quality first; each keeps the milder changes that did not suffice alone but helped."""
    found: list[Alternative] = []
    kept: dict[str, Any] = {}
    least = peak_memory(shape, recipe, lengths.cut(int(recipe.data.max_seq_len)).tokens, lengths.labels, device=device).peak_bytes
    for group in _candidates(shape, recipe, lengths):
        tried: dict[str, Any] = {}
        for changes, en, zh in group:
            changed = _changed(recipe, {**kept, **changes})
            if changed is None:
                continue
            cut = lengths.cut(int(changed.data.max_seq_len))
            peak = peak_memory(shape, changed, cut.tokens, cut.labels, device=device).peak_bytes
            if fit(peak, available_bytes) != "too_big":
                found.append(Alternative({**kept, **changes}, peak, fit(peak, available_bytes), en, zh))
                tried = {}
                break
            if peak < least:
                tried, least = {**kept, **changes}, peak
        kept = tried or kept
    return found


_Candidate = tuple[dict[str, Any], str, str]


def _candidates(shape: ModelShape, recipe: Recipe, lengths: Lengths) -> Iterator[list[_Candidate]]:
    """Groups of changes, each from mild to strong; groups in the order of what they cost."""
    longest = min(max(int(n) for n in lengths.tokens), int(recipe.data.max_seq_len))
    tokens = int(recipe.optim.micro_batch_tokens)
    sizes = [2**power for power in range(30, 3, -1) if max(MIN_MICRO_BATCH_TOKENS, min(longest, tokens)) <= 2**power < tokens]
    yield [_micro_batch(size) for size in [*sizes, max(MIN_MICRO_BATCH_TOKENS, longest)] if size < tokens]
    cuts = [2**power for power in range(20, 5, -1) if 2**power < longest]
    yield [_shorter(size, lengths.share_longer(size)) for size in cuts if lengths.share_longer(size) <= SMALL_SHARE]
    if not recipe.method.makes_adapter:
        en, zh = "train an adapter instead of every weight: learns a little less, forgets less", "改为训练适配器而非全部权重：学得略少，遗忘也少"
        yield [({"method": {"type": "lora"}}, en, zh)]
    if recipe.method.type in ("lora", "full") and can_quantise():
        shared = {key: getattr(recipe.method, key) for key in ("rank", "alpha") if hasattr(recipe.method, key)}
        yield [({"method": {"type": "qlora", **shared}}, "hold the frozen weights in 4 bits: slightly less exact", "冻结的权重以 4 位存放：精度略低")]
    rank = getattr(recipe.method, "rank", None)
    if isinstance(rank, int):
        ranks = [2**power for power in range(30, 2, -1) if 2**power < min(rank, shape.smallest_matrix + 1)]
        yield [({"method.rank": size}, f"rank {size}: the adapter can learn less", f"秩 {size}：适配器能学的更少") for size in ranks]
    yield [_shorter(size, lengths.share_longer(size)) for size in cuts if lengths.share_longer(size) > SMALL_SHARE]


def _micro_batch(size: int) -> _Candidate:
    en, zh = f"{size} tokens per forward pass: the same result, somewhat slower", f"每次前向 {size} 个词元：结果相同，略慢"
    return {"optim.micro_batch_tokens": size}, en, zh


def _shorter(size: int, share: float) -> _Candidate:
    en, zh = f"examples of at most {size} tokens: {share:.0%} of them are shortened", f"样例最长 {size} 个词元：{share:.0%} 的样例被截短"
    return {"data.max_seq_len": size, "optim.micro_batch_tokens": max(MIN_MICRO_BATCH_TOKENS, size)}, en, zh


def _changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe | None:
    """The recipe with dotted paths replaced; None where the changes do not go together."""
    content = recipe.to_dict()
    for path, value in changes.items():
        *sections, name = path.split(".")
        target = content
        for section in sections:
            target = target[section]
        if sections == ["method"] and name not in target:
            return None
        target[name] = value
    if content["method"]["type"] != "full" and content["optim"]["optimizer"] == "muon":
        content["optim"]["optimizer"] = "adamw"
    return Recipe.model_validate(content)


def can_quantise() -> bool:
    """Whether 4-bit weights can be had here: the method is installed with its library."""
    return is_registered(METHODS, "qlora") and find_spec("bitsandbytes") is not None


def is_registered(registry: Registry[Any], name: str) -> bool:
    """Whether a plugin of that name is installed."""
    return name in list(registry)
