"""The best step by a metric of generated text: answers to the first validation rows, scored at every validation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from danlu.errors import NoEffectError
from danlu.files import read_jsonl
from danlu.recipe.base import METRICS

if TYPE_CHECKING:
    from danlu.data.chat import ChatRenderer
    from danlu.recipe.recipe import Recipe
    from danlu.run_dir import RunDir

MAX_ROWS = 32
"""Validation rows that are answered: enough to tell steps apart, few enough to be a small part of the run."""


def scorer(recipe: Recipe, run_dir: RunDir, base_dir: Path) -> Callable[[Any], float]:
    """Return a function of the model that answers greedily and gives the mean score of the metric in `training.best_by`.

    Raises:
        NoEffectError: no validation row has an answer in plain text that fits.
        MissingExtraError: the metric needs a package that is not installed.
    """
    from danlu.data.chat import ChatRenderer
    from danlu.models.generate import generate
    from danlu.models.load import load_tokenizer
    from danlu.models.new_tokens import add_new_tokens

    metric: Any = METRICS.parse(recipe.training.best_by)
    metric.score("a", "a")  # a missing package must show now, not after an hour
    tokenizer = load_tokenizer(base_dir)
    add_new_tokens(tokenizer, recipe.data.new_tokens)
    renderer = ChatRenderer(tokenizer)
    prompts, references = _tasks(recipe, run_dir, renderer)

    def score(model: Any) -> float:
        found: dict[int, Any] = {}
        for batch in generate(model, renderer, prompts, max_new_tokens=recipe.evaluation.max_new_tokens):
            found |= batch
        return fmean(metric.score(found[i].text, reference) for i, reference in enumerate(references))

    return score


def _tasks(recipe: Recipe, run_dir: RunDir, renderer: ChatRenderer) -> tuple[list[list[int]], list[str]]:
    """Prompts and reference answers of the first validation rows."""
    from danlu.evaluation.suites.heldout import split_last_answer

    prompts: list[list[int]] = []
    references: list[str] = []
    has_rows = False
    for row in read_jsonl(run_dir.data / "validation.jsonl"):
        has_rows = True
        split = split_last_answer(row)
        ids = renderer.prompt_ids(split[0], row.get("tools")) if split else []
        if split and len(ids) <= int(recipe.data.max_seq_len):
            prompts.append(ids)
            references.append(split[1])
        if len(prompts) == MAX_ROWS:
            break
    if has_rows and not prompts:
        raise NoEffectError(
            f"training.best_by {recipe.training.best_by} has nothing to score",
            why="no validation row ends with an answer in plain text whose prompt fits into data.max_seq_len",
            fix="set training.best_by to loss",
        )
    return prompts, references
