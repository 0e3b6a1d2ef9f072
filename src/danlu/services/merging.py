"""Use case: make one adapter of several finished runs over the same base model, checked, and proved like any run.

The result is a run folder: its held-out rows are those of all its runs that none of them was trained on, so that
`danlu report`, `chat` and `export` work on it as on any other.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from danlu.errors import ModelError, NoEffectError, VerificationError
from danlu.files import atomic_open, read_json, read_jsonl, write_json
from danlu.recipe.load import validate
from danlu.recipe.recipe import Recipe
from danlu.reporter import Listener
from danlu.run_dir import RunDir
from danlu.services import pipeline, runs
from danlu.services.rounds import find_run

NUM_PROMPTS = 4


def merge(
    names: Sequence[str],
    out: Path,
    *,
    how: str = "linear",
    weights: Sequence[float] | None = None,
    rank: int | None = None,
    density: float = 0.5,
    listeners: Iterable[Listener] = (),
) -> runs.RunResult:
    """Merge the adapters of finished runs into the run folder `out`, and prove the result.

    `weights` are all 1 / n by default. `rank` and `density` are for what has them (not `linear`).

    Raises:
        NoEffectError: a setting without effect, adapters that cannot be combined, or a folder that is in use.
        ModelError: the runs have different base models.
        VerificationError: what was written does not behave as the formula says.
    """
    found = [find_run(name) for name in names]
    weights = list(weights) if weights is not None else [1 / len(found)] * len(found)
    _check(found, weights, how, rank, density, out)
    recipes = [pipeline.resolved(run_dir) for run_dir in found]
    base_dir = pipeline.base_folder(found[0])
    run_dir = RunDir.create(out)
    with run_dir.lock():
        shape = _write_adapter(recipes[0], found, weights, run_dir, base_dir, how=how, rank=rank, density=density)
        recipe = _recipe(recipes, shape)
        _gather_rows(found, run_dir)
        settings = {"runs": [one.id for one in found], "weights": weights, "how": how, **shape, "density": density if how not in ("linear", "svd") else None}
        write_json(run_dir.recipe, recipe.to_dict())
        write_json(run_dir.path / "training.json", {"outcome": "merged", **settings})
        record = found[0].read_record()
        write_json(
            run_dir.record,
            {"written": recipe.to_dict(), "paths": {}, "created": time.time(), "state": "merged", "base_model": record["base_model"], "merge": settings},
        )
    return runs.resume(str(run_dir.path), listeners)


def _check(found: Sequence[RunDir], weights: Sequence[float], how: str, rank: int | None, density: float, out: Path) -> None:
    from danlu.models.merge import HOW

    if how not in HOW:
        raise NoEffectError(f"--how {how} is not known", why="adapters are combined by a formula", fix=f"use one of {', '.join(HOW)}")
    if len(found) < 2 or len({one.path for one in found}) < len(found):
        raise NoEffectError("a merge needs at least two different runs", why=f"given: {', '.join(one.id for one in found)}", fix="name the runs")
    if len(weights) != len(found) or not all(math.isfinite(weight) for weight in weights):
        raise NoEffectError(f"{len(weights)} weights were given for {len(found)} runs", why="each run has one weight", fix="give as many numbers as runs")
    if rank is not None and how == "linear":
        raise NoEffectError("--rank has no effect with --how linear", why="its rank is the sum of all ranks, so that nothing is lost", fix="use --how svd")
    if not 0 < density <= 1:
        raise NoEffectError(f"--density {density} is not between 0 and 1", why="it is the share of the changes that is kept", fix="use 0.5")
    if out.exists() and any(out.iterdir()):
        raise NoEffectError(f"{out} is not an empty folder", why="a merge never overwrites what it did not write", fix="give a new folder with --out")
    first = found[0].read_record()["base_model"]
    for one in found[1:]:
        base = one.read_record()["base_model"]
        if base["sha256"] != first["sha256"]:
            raise ModelError(
                f"runs {found[0].id} and {one.id} have different base models",
                why=f"{first['name']} and {base['name']} have different weights: changes of one mean nothing in the other",
                fix="merge runs over the same base model",
            )
    for one in found:
        if not one.adapter.exists():
            raise NoEffectError(f"run {one.id} has no adapter", why="its method changed the whole model", fix="merge runs of method lora or qlora")


def _write_adapter(
    recipe: Recipe, found: Sequence[RunDir], weights: Sequence[float], run_dir: RunDir, base_dir: Path, *, how: str, rank: int | None, density: float
) -> dict[str, Any]:
    """Write adapter/ and verify it: loaded again by stock PEFT it is what was computed, and for `linear` what stacking gives."""
    from danlu.export.verify import compare
    from danlu.models.device import device
    from danlu.models.load import load_model
    from danlu.models.merge import merge_adapters, save_merged, stacked
    from danlu.models.pair import load_adapter

    def base() -> Any:
        return load_model(base_dir, device=device()).float()

    folders = [one.adapter for one in found]
    merged, shape = merge_adapters(base(), folders, weights, how=how, rank=rank, density=density, seed=recipe.seed)
    staging = run_dir.path / ".adapter.tmp"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    save_merged(merged, staging)
    for file in folders[0].iterdir():  # tokenizer, chat template, and which base model it is for
        if not file.name.startswith("adapter_") and file.is_file() and not (staging / file.name).exists():
            shutil.copy(file, staging / file.name)
    prompts = _prompts(found[0], staging)
    expected = stacked(base(), folders, weights) if how == "linear" else merged
    result = compare(expected, load_adapter(base(), staging), prompts, dtype="float32")
    if not result.passed:
        shutil.rmtree(staging, ignore_errors=True)
        raise VerificationError(
            "the merged adapter does not behave as the formula says and was removed",
            why=f"largest logit difference {result.max_difference:.1e} (bound {result.bound:.0e})",
            fix="try --how svd, or report this with the recipes of the runs",
        )
    shutil.rmtree(run_dir.adapter, ignore_errors=True)
    staging.rename(run_dir.adapter)
    write_json(run_dir.path / "verification.json", asdict(result) | {"passed": True})
    return shape


def _prompts(run_dir: RunDir, adapter: Path) -> list[list[int]]:
    """Tokens of some held-out (else trained) examples."""
    from danlu.models.load import load_tokenizer

    tokenizer = load_tokenizer(adapter)
    rows = [row for split in ("test", "validation", "train") for row in islice(read_jsonl(run_dir.data / f"{split}.jsonl"), NUM_PROMPTS)][:NUM_PROMPTS]
    texts = [row["text"] if "text" in row else row["messages"][0]["content"] for row in rows]
    return [ids[:64] for text in texts if (ids := tokenizer(text, add_special_tokens=False)["input_ids"])]


def _recipe(recipes: Sequence[Recipe], shape: dict[str, Any]) -> Recipe:
    """The first run's recipe, as far as it says something of the result: base model, evaluation, shape of the adapter."""
    values = recipes[0].to_dict()
    plain = {"rank": shape["rank"], "alpha": float(shape["rank"]), "target_modules": shape["target_modules"], "rank_pattern": {}, "alpha_pattern": {}}
    values["method"] = {**values["method"], **plain, "use_rslora": False, "dropout": 0.0, "init": "default", "layers": None}
    if values["method"]["type"] != "lora":
        del values["method"]["init"]
    values["data"] = {**values["data"], "replay": None, "mix": {}, "max_seq_len": max(int(recipe.data.max_seq_len) for recipe in recipes)}
    suites = [suite for suite in values["evaluation"]["suites"] if suite["type"] != "rounds"]
    return validate(values | {"start_from": None, "export": [], "evaluation": {**values["evaluation"], "suites": suites}}, source="the merged runs")


def _gather_rows(found: Sequence[RunDir], run_dir: RunDir) -> None:
    """Union of the runs' splits; a row that any of them was trained on is no held-out row."""
    trained: set[bytes] = set()
    for split in ("train", "validation", "test"):
        with atomic_open(run_dir.data / f"{split}.jsonl") as file:
            seen: set[bytes] = set()
            for one in found:
                for row in read_jsonl(one.data / f"{split}.jsonl"):
                    key = orjson.dumps({name: value for name, value in row.items() if name not in ("line", "source")})
                    if key not in seen and key not in trained:
                        seen.add(key)
                        file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            if split == "train":
                trained = seen
    encoded = [read_json(one.data / "encoded.json") for one in found]
    write_json(run_dir.data / "merged_from.json", {one.id: part for one, part in zip(found, encoded, strict=True)})
