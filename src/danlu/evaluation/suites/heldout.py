"""The held-out split: likelihood of its answers, and answers generated for its prompts, before and after."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from danlu.recipe.base import SUITES, MetricConfig, SuiteConfig

if TYPE_CHECKING:
    from danlu.evaluation.run import Evaluation
    from danlu.recipe.recipe import Recipe

MODELS = ("base", "tuned")


@SUITES.register
class Heldout(SuiteConfig):
    """Rows of the dataset that were kept away from training."""

    type: Literal["heldout"] = "heldout"
    version: ClassVar[str] = "1"
    kinds: ClassVar[frozenset[str]] = frozenset({"messages", "text", "preference", "labelled"})

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """What the numbers depend on besides data and weights; a change makes them be computed again."""
        return recipe.evaluation.model_dump(mode="json", include={"metrics", "max_new_tokens", "max_generations"})

    def measure(self, evaluation: Evaluation) -> dict[str, Any]:
        """Nats, tokens and bytes of each example and, for conversations, metric scores of generated answers.

        Of preferences the chosen answer is measured, of marked answers the wanted ones.
        """
        from danlu.evaluation import likelihood
        from danlu.files import read_jsonl
        from danlu.recipe.base import OBJECTIVES

        recipe, pair = evaluation.recipe, evaluation.pair
        positions, examples = _answered(list(read_jsonl(evaluation.run_dir.data / "test.jsonl")))
        objective = recipe.objective if recipe.objective.needs in ("messages", "text") else OBJECTIVES.parse("sft")
        encoded = likelihood.encode_set(examples, objective, pair.renderer, max_seq_len=int(recipe.data.max_seq_len), truncation=recipe.data.truncation)
        lines = [examples[i].get("line") for i in encoded.index]
        tasks = _tasks(evaluation, examples, positions) if recipe.evaluation.metrics else []
        for metric in recipe.evaluation.metrics if tasks else []:
            metric.score("a", "a")  # type: ignore[attr-defined]  # a missing package must show now, not after an hour of generation
        answers = Answers(evaluation, self, recipe.evaluation.max_new_tokens)
        nats: dict[str, list[float]] = {}
        tokens: list[int] = []
        for name in MODELS:
            with getattr(pair, name)() as model:
                nats[name], tokens = likelihood.measure(evaluation, model, encoded, f"heldout: likelihood, {name}")
                answers.generate(model, name, tasks)
        return {
            "num_examples": len(encoded.index),
            "index": [positions[i] for i in encoded.index],
            "lines": lines,
            "label_tokens": tokens,
            "bytes": encoded.num_bytes,
            "nats": nats,
            "dropped": encoded.account.dropped,
            "truncated": encoded.account.truncated,
            "generation": answers.result(tasks, metrics=recipe.evaluation.metrics),
        }


def _answered(rows: list[dict[str, Any]]) -> tuple[list[int], list[dict[str, Any]]]:
    """Rows that are texts or conversations with a good answer, made so where they are not, and their positions."""
    from danlu.data.clean import as_kind

    kept = [(i, row) for i, row in enumerate(rows) if row.get("label") is not False]
    return [i for i, _ in kept], [as_kind(row, "messages") for _, row in kept]


def _tasks(evaluation: Evaluation, examples: list[dict[str, Any]], positions: list[int]) -> list[dict[str, Any]]:
    """Prompt, reference and prompt ids of the first examples that have an answer to compare with."""
    tasks: list[dict[str, Any]] = []
    for index, example in zip(positions, examples, strict=True):
        split = split_last_answer(example)
        if split is not None and len(tasks) < evaluation.recipe.evaluation.max_generations:
            prompt, reference = split
            ids = evaluation.pair.renderer.prompt_ids(prompt, example.get("tools"))
            tasks.append({"example": index, "line": example.get("line"), "reference": reference, "ids": ids})
    return tasks


def split_last_answer(example: dict[str, Any]) -> tuple[list[dict[str, Any]], str] | None:
    """(messages before the last trained answer, that answer), or None when there is none in plain text."""
    messages = example.get("messages") or []
    flags = example.get("train_on") or [True] * len(messages)
    for position in reversed(range(1, len(messages))):
        content = messages[position].get("content")
        if messages[position]["role"] == "assistant" and flags[position] and isinstance(content, str) and content.strip():
            return messages[:position], content
    return None


class Answers:
    """Generated answers of one suite, stored batch by batch in generations.jsonl and reused from there."""

    def __init__(self, evaluation: Evaluation, suite: SuiteConfig, max_new_tokens: int) -> None:
        self.evaluation, self.suite, self.max_new_tokens = evaluation, suite, max_new_tokens
        self.path = evaluation.run_dir.evaluation / "generations.jsonl"
        self.skipped: dict[int, str] = {}

    def stored(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Rows by (model, example)."""
        from danlu.files import read_jsonl

        rows = (row for row in read_jsonl(self.path) if row["suite"] == self.suite.type and row["max_new_tokens"] == self.max_new_tokens)
        return {(row["model"], row["example"]): row for row in rows}

    def generate(self, model: Any, name: str, tasks: list[dict[str, Any]]) -> None:
        """Answer what is not answered yet. A batch is made as a whole or not at all, so resumed runs see the same batches."""
        from danlu.models import generate

        limit = generate.max_positions(model)
        self.skipped = {
            t["example"]: "the prompt leaves no room for an answer in the model's context"
            for t in tasks
            if limit and len(t["ids"]) + self.max_new_tokens > limit
        }
        tasks = [t for t in tasks if t["example"] not in self.skipped]
        have = {example for stored_name, example in self.stored() if stored_name == name}

        def is_done(batch: Any) -> bool:
            return all(tasks[i]["example"] in have for i in batch)

        done = 0
        with _appending(self.path) as append:
            prompts = [t["ids"] for t in tasks]
            for batch in generate.generate(
                model, self.evaluation.pair.renderer, prompts, max_new_tokens=self.max_new_tokens, skip=is_done, on_smaller=self._tell_smaller
            ):
                append([self._row(tasks[i], name, completion) for i, completion in sorted(batch.items())])
                done += len(batch)
                self.evaluation.reporter.progress(f"{self.suite.type}: answers, {name}", done, len(tasks) - len(have))

    def _tell_smaller(self, num_rows: int) -> None:
        self.evaluation.reporter.event("out_of_memory", f"out of memory: answers are generated {num_rows} at a time; they do not change")

    def _row(self, task: dict[str, Any], name: str, completion: Any) -> dict[str, Any]:
        return {
            "suite": self.suite.type,
            "version": self.suite.version,
            "model": name,
            "example": task["example"],
            "line": task["line"],
            "reference": task["reference"],
            "prediction": completion.text,
            "num_tokens": completion.num_tokens,
            "is_cut": completion.is_cut,
            "max_new_tokens": self.max_new_tokens,
        }

    def result(self, tasks: list[dict[str, Any]], *, metrics: Sequence[MetricConfig]) -> dict[str, Any] | None:
        """Scores of each metric by example, or None when nothing was generated."""
        tasks = [t for t in tasks if t["example"] not in self.skipped]
        if not tasks:
            return None
        from danlu.data.words import has_loop

        rows = self.stored()
        scores: dict[str, Any] = {}
        for metric in metrics:
            both = {name: [metric.score(rows[name, t["example"]]["prediction"], t["reference"]) for t in tasks] for name in MODELS}  # type: ignore[attr-defined]
            scores[metric.type] = {"version": metric.version, "unit": metric.unit, "higher_is_better": metric.higher_is_better, **both}
        return {
            "max_new_tokens": self.max_new_tokens,
            "examples": [t["example"] for t in tasks],
            "skipped": [{"example": example, "reason": reason} for example, reason in sorted(self.skipped.items())],
            "num_cut": {name: sum(rows[name, t["example"]]["is_cut"] for t in tasks) for name in MODELS},
            "num_loops": {name: sum(has_loop(rows[name, t["example"]]["prediction"]) and not has_loop(t["reference"]) for t in tasks) for name in MODELS},
            "scores": scores,
        }


@contextmanager
def _appending(path: Any) -> Iterator[Any]:
    """A function that appends rows with one write; what a crash left unfinished is cut off first."""
    import orjson

    from danlu.evaluation.run import open_lines
    from danlu.files import append, storage_errors

    descriptor = open_lines(path)

    def append_rows(rows: list[dict[str, Any]]) -> None:
        with storage_errors(path):
            append(descriptor, b"".join(orjson.dumps(row) + b"\n" for row in rows))

    try:
        yield append_rows
    finally:
        os.close(descriptor)
