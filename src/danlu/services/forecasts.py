"""Use cases before a run: forecast what it will take, recommend a recipe. Neither trains; neither needs torch unless a probe is asked for."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.errors import DataError, OutOfMemoryError, TooFewExamplesError
from danlu.models.forecast import Forecast, Lengths, can_quantise, forecast
from danlu.models.headroom import available_memory_bytes, budget_bytes
from danlu.models.memory import peak_memory
from danlu.models.shape import ModelShape
from danlu.models.trained import trained_by
from danlu.recipe.recipe import Recipe
from danlu.recipe.recommend import Facts, Goal, Reason, recommend_all, resolve

if TYPE_CHECKING:
    from danlu.models.catalogue import BaseModel

SAMPLE = 2000
"""Examples that are tokenised; the others are counted."""
REFUSED_FACTOR = 1.2
"""A run is refused before anything is loaded only when the least it can do with is that much above all memory there is."""
DEVICE_SECONDS = 5
"""For so long nobody asks again what the machine has free."""
KEPT_BITS = 6
"""Free memory is rounded down to so many binary digits (by 3 % at most), so that what was computed serves again."""


@dataclass(frozen=True)
class Device:
    """What would train."""

    kind: str
    """`cpu` or `cuda`."""
    available_bytes: int


@dataclass(frozen=True)
class Prospect:
    """A resolved recipe with its forecast and the reasons for what was `auto`."""

    recipe: Recipe
    reasons: list[Reason]
    forecast: Forecast
    device: Device
    split: dict[str, int]
    """Examples for `validation` and `test`, before duplicates are dropped, and those `mixed_in` from elsewhere."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "recipe": self.recipe.to_dict(),
            "reasons": [asdict(reason) for reason in self.reasons],
            "forecast": self.forecast.to_dict(),
            "device": asdict(self.device),
            "split": self.split,
        }


def forecast_run(written: Recipe, *, price_per_hour: float | None = None, memory_bytes: int | None = None, with_probe: bool = False) -> Prospect:
    """Forecast a recipe on this machine, or on one with `memory_bytes` free; `with_probe` measures the speed with the model itself.

    Raises:
        DataError: there is no such data file.
        UnknownNameError: there is no such base model.
        ModelError: its config.json does not tell its sizes.
    """
    return _prospect(written, resolve, price_per_hour=price_per_hour, memory_bytes=memory_bytes, with_probe=with_probe)


def recommend_run(written: Recipe, *, goal: Goal = "task", price_per_hour: float | None = None, memory_bytes: int | None = None) -> Prospect:
    """Choose everything for a data set and a base model: method, sizes, rates, lengths, each with a reason.

    Raises:
        DataError: there is no such data file.
        UnknownNameError: there is no such base model.
    """
    return _prospect(written, recommend_all, goal=goal, price_per_hour=price_per_hour, memory_bytes=memory_bytes)


def refuse_what_cannot_fit(
    recipe: Recipe, config: dict[str, Any], lengths: Lengths, device: Device, *, num_processes: int = 1, is_sharded: bool = False
) -> Forecast | None:
    """Return the forecast of a resolved recipe, or None where config.json does not tell the model's sizes.

    Of several processes it is that of one; on the processor each can have its part of the memory.

    Raises:
        OutOfMemoryError: not even one example at a time would fit, by far; told before anything is loaded.
    """
    from danlu.errors import ModelError

    try:
        shape = ModelShape.from_config(config)
    except ModelError:
        return None
    available = device.available_bytes // (num_processes if device.kind == "cpu" else 1)
    among: dict[str, Any] = {"num_processes": num_processes, "is_sharded": is_sharded, "device": device.kind}
    found = forecast(shape, recipe, lengths, available_bytes=available, **among)
    if found.fit != "too_big":
        return found
    least = recipe.model_copy(update={"optim": recipe.optim.model_copy(update={"micro_batch_tokens": 16})})
    needed = peak_memory(shape, least, lengths.tokens, lengths.labels, **among).peak_bytes
    if needed <= REFUSED_FACTOR * available:
        return found
    options = [" ".join(f"{path}={value}" for path, value in option.changes.items()) for option in found.alternatives[:2]]
    raise OutOfMemoryError(
        f"this run would need at least {_size(needed)} of memory" + (f" in each of {num_processes} processes" if num_processes > 1 else ""),
        why=f"there are {_size(available)}; {_size(found.memory.weights_bytes)} are the base model's weights alone",
        fix="set " + ", or ".join(options) if options else "use a smaller base model, or a machine with more memory",
    )


def device(memory_bytes: int | None = None) -> Device:
    """What would train here, told without torch: a GPU that its driver names, else the processor."""
    gpu_bytes = _gpu_available()
    kind = "cpu" if gpu_bytes is None else "cuda"
    return Device(kind, memory_bytes or gpu_bytes or budget_bytes())


def free_device() -> Device:
    """What would train here, with the memory that a run of its own could take now: of the GPU, else of the machine within its limits.

    The studio tells and uses this number everywhere. Limits of the process that asks, and what it holds itself, are not the run's.
    """
    return _free_device(int(time.monotonic() // DEVICE_SECONDS))


@lru_cache(maxsize=1)
def _free_device(moment: int) -> Device:
    """The same; `moment` is a number that changes every few seconds."""
    found = device()
    free = available_memory_bytes() if found.kind == "cpu" else found.available_bytes
    step = 1 << max(0, free.bit_length() - KEPT_BITS)
    return replace(found, available_bytes=free // step * step)


def _gpu_available() -> int | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    done = subprocess.run([program, "--query-gpu=memory.free", "--format=csv,noheader,nounits"], capture_output=True, text=True)
    free = [int(line) * 2**20 for line in done.stdout.split() if line.isdigit()]
    return max(free, default=None) if done.returncode == 0 else None


def _prospect(
    written: Recipe,
    choose: Callable[[Recipe, Facts], tuple[Recipe, list[Reason]]],
    *,
    goal: Goal = "task",
    price_per_hour: float | None,
    memory_bytes: int | None,
    with_probe: bool = False,
) -> Prospect:
    from danlu.models.catalogue import find_base_model
    from danlu.models.load import check_model_dir
    from danlu.services.datasets import find_dataset

    dataset = find_dataset(written.dataset)
    base = find_base_model(written.base_model, needs_weights=with_probe)
    config = check_model_dir(base.folder, needs_weights=with_probe)
    shape = ModelShape.from_config(config)
    lengths, detected = count_lengths(written, dataset, base)
    place = device(memory_bytes)
    facts = facts_of(written, shape, with_mixed(lengths, written), detected, place, goal=goal)
    recipe, reasons = choose(written, facts)
    all_lengths = with_mixed(lengths, recipe)
    speed = _probed_speed(recipe, dataset, base, place) if with_probe else None
    found = forecast(
        shape,
        recipe,
        all_lengths,
        available_bytes=place.available_bytes,
        device=place.kind,
        tokens_per_second=speed,
        price_per_hour=price_per_hour,
    )
    split = {"validation": lengths.num_validation, "test": lengths.num_test, "mixed_in": all_lengths.num_examples - lengths.num_examples}
    return Prospect(recipe, reasons, found, place, split)


def with_mixed(lengths: Lengths, recipe: Recipe) -> Lengths:
    """The examples with those that are added from other datasets and from an earlier run, taken to be as long."""
    shares = [*recipe.data.mix.values()] + ([recipe.data.replay.share] if recipe.data.replay is not None else [])
    return replace(lengths, num_examples=lengths.num_examples + sum(round(share * lengths.num_examples) for share in shares))


def count_lengths(written: Recipe, dataset: Path, base: BaseModel) -> tuple[Lengths, Any]:
    """Token counts of the first examples of the training split, the number of all, and the format."""
    from danlu.data.convert import open_dataset
    from danlu.data.count import TokenCounter
    from danlu.data.examples import RowError
    from danlu.data.json_rows import Unreadable

    counter = TokenCounter(base.folder)
    source = open_dataset(dataset, format=written.data.format, needs=written.objective.needs, system=written.data.system)  # type: ignore[arg-type]
    tokens: list[int] = []
    labels: list[int] = []
    total = 0
    for line, row, _ in source.entries:
        if isinstance(row, Unreadable):
            continue
        try:
            example = source.convert(line, row, [])
        except RowError:
            continue
        total += 1
        if len(tokens) < SAMPLE:
            count, trained = counter(example)
            tokens.append(count)
            labels.append(trained)
    if not tokens:
        raise TooFewExamplesError("no example can be trained on", why=f"none of the rows of {dataset} is one", fix=f"danlu data inspect {dataset}")
    split = written.data.split
    limit = split.max_examples or total
    num_validation, num_test = (min(limit, round(total * share)) for share in (split.validation, split.test))
    num_train = max(1, total - num_validation - num_test)
    try:
        size = dataset.stat().st_size
    except OSError as error:
        raise DataError(f"{dataset} cannot be read", why=str(error), fix="check the path") from error
    detected: dict[str, Any] = source.format.model_dump(mode="json")  # type: ignore[attr-defined]  # formats are pydantic models
    if written.objective.needs == "text":
        tokens, labels, num_train = _blocks(tokens, num_train, total)
    return Lengths(tokens, labels, num_train, num_validation, size, num_test), detected


def _blocks(tokens: list[int], num_train: int, total: int) -> tuple[list[int], list[int], int]:
    """Documents cut into blocks, as the objective `pretrain` does."""
    cut = [min(1024, count - start) for count in tokens for start in range(0, count, 1023)]
    return cut, [n - 1 for n in cut], max(1, round(num_train * len(cut) / len(tokens)))


def facts_of(written: Recipe, shape: ModelShape, lengths: Lengths, detected: Any, place: Device, *, goal: Goal = "task") -> Facts:
    """What the rules want to know."""
    tokens = np.asarray(lengths.tokens)
    rank = Recipe.model_validate({"base_model": "b", "dataset": "d", "method": {"type": "lora", "rank": 1}})
    return Facts(
        num_train=lengths.num_examples,
        length_p50=int(np.quantile(tokens, 0.5)),
        length_p995=int(np.quantile(tokens, 0.995)),
        length_max=int(tokens.max()),
        model_max_seq_len=shape.max_positions or 2048,
        hidden_size=shape.hidden,
        num_parameters=shape.num_parameters,
        available_memory_bytes=place.available_bytes,
        has_gpu=place.kind == "cuda",
        has_bfloat16=place.kind == "cuda",
        detected_format=detected,
        num_validation=lengths.num_validation,
        num_label_tokens=round(sum(lengths.labels) / len(lengths.labels) * lengths.num_examples),
        parameters_per_rank=trained_by(rank, shape).num_parameters,
        smallest_matrix=shape.smallest_matrix,
        goal=goal,
        can_quantise=can_quantise(),
        peak_bytes=partial(peak_of, shape, lengths, place),
    )


def peak_of(shape: ModelShape, lengths: Lengths, place: Device, recipe: Recipe) -> int:
    """Peak memory of a recipe, by the formula."""
    cut = lengths.cut(int(recipe.data.max_seq_len))
    return peak_memory(shape, recipe, cut.tokens, cut.labels, device=place.kind).peak_bytes


def _probed_speed(recipe: Recipe, dataset: Path, base: BaseModel, place: Device) -> float | None:
    """Tokens per second of the recipe on this machine, measured with the model on a few examples of the data."""
    import tempfile
    from itertools import islice

    from danlu.data.chat import ChatRenderer
    from danlu.data.convert import examples
    from danlu.data.encode import encode_to_file
    from danlu.models.load import load_tokenizer
    from danlu.reporter import Reporter
    from danlu.run_dir import RunDir
    from danlu.training.run import probe_speed

    renderer = ChatRenderer(load_tokenizer(base.folder))
    with tempfile.TemporaryDirectory() as folder:
        run_dir = RunDir.create(Path(folder))
        rows = list(islice(examples(dataset, needs=recipe.objective.needs), SAMPLE // 10))  # type: ignore[arg-type]
        for split, chosen in (("train", rows), ("validation", [])):
            encode_to_file(
                iter(chosen),
                run_dir.data / f"{split}.tokens",
                objective=recipe.objective,
                renderer=renderer,
                max_seq_len=int(recipe.data.max_seq_len),
                truncation=recipe.data.truncation,
                note=lambda entry: None,
            )
        return probe_speed(recipe, run_dir, Reporter(run_dir), model_dir=base.folder, device=place.kind)


def _size(num_bytes: int) -> str:
    for unit, scale in (("PiB", 2**50), ("TiB", 2**40), ("GiB", 2**30)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:,.1f} {unit}"
    return f"{num_bytes / 2**20:,.0f} MiB"
