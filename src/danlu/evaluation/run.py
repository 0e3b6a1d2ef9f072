"""The evaluation stage as a program: splits, a recipe and a pair of models in; `<suite>.json`, generations and a scorecard out.

It can be killed at any instant and started again: a finished suite is not computed again, and generated answers
are kept batch by batch. Knows nothing of training; how likelihoods are computed is given by the caller.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from danlu.evaluation import memorised, scorecard
from danlu.files import read_json, storage_errors, write_json

if TYPE_CHECKING:
    import numpy as np

    from danlu.data.chat import ChatRenderer
    from danlu.data.pack import EncodedExample
    from danlu.recipe.recipe import Recipe
    from danlu.reporter import Reporter
    from danlu.run_dir import RunDir

    Score = Callable[[Any, Sequence[EncodedExample]], tuple[np.ndarray, np.ndarray]]
    """(model, examples) -> nats and label tokens of each example."""


class Pair(Protocol):
    """The model before and after tuning. For an adapter both are one module with the adapter off and on."""

    tokenizer: Any
    renderer: ChatRenderer

    def base(self) -> AbstractContextManager[Any]:
        """The base model in eval mode, while the context lasts."""

    def previous(self) -> AbstractContextManager[Any]:
        """The model of the round before, for runs that started from one (suite `rounds`)."""

    def tuned(self) -> AbstractContextManager[Any]:
        """The tuned model in eval mode, while the context lasts."""


@dataclass(frozen=True)
class Evaluation:
    """What a suite gets to work with."""

    recipe: Recipe
    run_dir: RunDir
    reporter: Reporter
    pair: Pair
    score: Score


def run(recipe: Recipe, run_dir: RunDir, reporter: Reporter, *, pair: Pair, score: Score, device: str = "cpu") -> dict[str, Any]:
    """Measure every suite of the recipe on base and tuned, and return the scorecard (also evaluation/scorecard.json).

    `device` is recorded; the pair decides where its models are.
    """
    reporter.stage("evaluation")
    with storage_errors(run_dir.evaluation):
        run_dir.evaluation.mkdir(parents=True, exist_ok=True)
    evaluation = Evaluation(recipe, run_dir, reporter, pair, score)
    for suite in recipe.evaluation.suites:
        _run_suite(suite, evaluation, device)
    if not (run_dir.evaluation / "memorised.json").exists():
        started = time.monotonic()
        found = memorised.find(run_dir.data / "test.jsonl", run_dir.data / "train.jsonl")
        write_json(run_dir.evaluation / "memorised.json", found | {"seconds": round(time.monotonic() - started, 2)})
    card = scorecard.build(recipe, run_dir)
    write_json(run_dir.evaluation / "scorecard.json", card)
    return card


def _run_suite(suite: Any, evaluation: Evaluation, device: str) -> None:
    path = evaluation.run_dir.evaluation / f"{suite.type}.json"
    settings = {"suite": suite.model_dump(mode="json"), "version": suite.version, "evaluation": suite.settings(evaluation.recipe)}
    if path.exists() and read_json(path)["settings"] == settings:
        return
    started = time.monotonic()
    result = suite.measure(evaluation)
    write_json(path, {"settings": settings, "device": device, "seconds": round(time.monotonic() - started, 2), **result})


def open_lines(path: Path) -> int:
    """Open a file of lines for appending, after cutting off a last line that a crash left unfinished."""
    with storage_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(descriptor).st_size
        keep = size
        while keep and os.pread(descriptor, 1, keep - 1) != b"\n":
            step = min(keep, 65536)
            chunk = os.pread(descriptor, step, keep - step)
            keep = keep - step + chunk.rfind(b"\n") + 1
        if keep != size:
            os.ftruncate(descriptor, keep)
        return descriptor
