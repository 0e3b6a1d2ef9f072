"""The held-out examples that gained most and least, with what both models wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from danlu.data.clean import as_kind
from danlu.evaluation.suites.heldout import split_last_answer
from danlu.files import read_jsonl

if TYPE_CHECKING:
    from danlu.run_dir import RunDir

NUM_CASES = 5
MAX_CHARS = 2_000


def best_and_worst(heldout: dict[str, Any], run_dir: RunDir) -> dict[str, list[dict[str, Any]]]:
    """Five examples each, by change of nats per token; among those with generated answers where there are any.

    No example is in both lists: with fewer than ten, the better half is `best`.
    """
    changes = changes_of(heldout)
    generation = heldout["generation"]
    candidates = [e for e in generation["examples"] if e in changes] if generation else []
    ranked = sorted(candidates or changes, key=lambda e: (changes[e][1] - changes[e][0], e))
    count = min(NUM_CASES, (len(ranked) + 1) // 2)
    best, worst = ranked[:count], ranked[::-1][: min(NUM_CASES, len(ranked) - count)]
    found = {case["example"]: case for case in cases_of(heldout, run_dir, [*best, *worst])}
    return {"best": [found[e] for e in best], "worst": [found[e] for e in worst]}


def changes_of(heldout: dict[str, Any]) -> dict[int, tuple[float, float]]:
    """Nats per token of base and tuned model by held-out example."""
    changes = {}
    for position, example in enumerate(heldout["index"]):
        tokens = max(1, heldout["label_tokens"][position])
        changes[example] = (heldout["nats"]["base"][position] / tokens, heldout["nats"]["tuned"][position] / tokens)
    return changes


def cases_of(heldout: dict[str, Any], run_dir: RunDir, examples: Sequence[int]) -> list[dict[str, Any]]:
    """These held-out examples with what both models wrote and how it scored."""
    changes, generation = changes_of(heldout), heldout["generation"]
    rows = _rows(run_dir, set(examples))
    answers = {(a["model"], a["example"]): a for a in read_jsonl(run_dir.evaluation / "generations.jsonl") if a["example"] in rows and a["suite"] == "heldout"}
    positions = {example: i for i, example in enumerate(generation["examples"])} if generation else {}

    def case(example: int) -> dict[str, Any]:
        prompt, reference = _texts(rows.get(example, {}))
        base, tuned = changes[example]
        scores = generation["scores"] if example in positions else {}
        return {
            "example": example,
            "line": rows.get(example, {}).get("line"),
            "prompt": prompt,
            "reference": reference,
            "nll_per_token": {"base": base, "tuned": tuned, "delta": tuned - base},
            "answers": {name: cut(answers[name, example]["prediction"]) if (name, example) in answers else None for name in ("base", "tuned")},
            "scores": {metric: {name: found[name][positions[example]] for name in ("base", "tuned")} for metric, found in scores.items()},
        }

    return [case(example) for example in examples]


def _rows(run_dir: RunDir, wanted: set[int]) -> dict[int, dict[str, Any]]:
    return {number: as_kind(row, "messages") for number, row in enumerate(read_jsonl(run_dir.data / "test.jsonl")) if number in wanted}


def _texts(row: dict[str, Any]) -> tuple[list[dict[str, str]], str | None]:
    """(messages of the prompt, reference), cut to MAX_CHARS; a plain text is its own reference."""
    if "text" in row:
        return [], cut(row["text"])
    split = split_last_answer(row)
    messages, reference = split if split else (row.get("messages", []), None)
    return [{"role": str(m.get("role")), "content": cut(str(m.get("content") or ""))} for m in messages], reference and cut(reference)


def cut(text: str) -> str:
    """At most MAX_CHARS characters of a text."""
    return text if len(text) <= MAX_CHARS else text[:MAX_CHARS] + " \u2026"
