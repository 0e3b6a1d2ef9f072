"""Samples while training: fixed prompts, and how evaluation answers them. Training decides when to ask."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.files import read_jsonl

if TYPE_CHECKING:
    from danlu.data.chat import ChatRenderer
    from danlu.recipe.recipe import Recipe
    from danlu.run_dir import RunDir

NUM_PROMPTS = 3
TEXT_PROMPT_TOKENS = 16
"""Beginning of a plain text that is to be gone on with."""


def answerer(recipe: Recipe, run_dir: RunDir, base_dir: Path) -> Callable[[Any], list[dict[str, Any]]]:
    """Return a function of the model that answers the run's fixed prompts greedily; nothing is loaded before it is called."""

    @lru_cache(maxsize=1)
    def prepared() -> tuple[ChatRenderer, list[dict[str, Any]]]:
        from danlu.data.chat import ChatRenderer
        from danlu.models.load import load_tokenizer
        from danlu.models.new_tokens import add_new_tokens

        tokenizer = load_tokenizer(base_dir)
        add_new_tokens(tokenizer, recipe.data.new_tokens)
        renderer = ChatRenderer(tokenizer)
        return renderer, find_prompts(recipe, run_dir, renderer)

    def answer(model: Any) -> list[dict[str, Any]]:
        from danlu.models.generate import generate, max_positions

        if not getattr(model, "can_generate", lambda: False)():  # a reward model scores, it does not write
            return []
        renderer, prompts = prepared()
        limit, longest = max_positions(model), recipe.training.sample_max_new_tokens
        asked = [p for p in prompts if not limit or len(p["ids"]) + longest <= limit]
        found: dict[int, Any] = {}
        for batch in generate(model, renderer, [p["ids"] for p in asked], max_new_tokens=longest):
            found |= batch
        return [
            {"prompt": p["prompt"], "reference": p["reference"], "text": found[i].text, "num_tokens": found[i].num_tokens, "is_cut": found[i].is_cut}
            for i, p in enumerate(asked)
        ]

    return answer


def find_prompts(recipe: Recipe, run_dir: RunDir, renderer: ChatRenderer) -> list[dict[str, Any]]:
    """The prompts of the recipe, else of the first validation rows: `{prompt, reference, ids}`."""
    is_text = recipe.objective.needs == "text"
    if recipe.training.sample_prompts:
        return [_written(prompt, renderer, is_text) for prompt in recipe.training.sample_prompts]
    found: list[dict[str, Any]] = []
    for row in read_jsonl(run_dir.data / "validation.jsonl"):
        if len(found) == NUM_PROMPTS:
            break
        prompt = _of_text(row["text"], renderer) if is_text else _of_chat(row, renderer)
        if prompt is not None:
            found.append(prompt)
    return found


def _written(prompt: str, renderer: ChatRenderer, is_text: bool) -> dict[str, Any]:
    if is_text:
        return {"prompt": prompt, "reference": None, "ids": list(renderer.tokenizer(prompt, add_special_tokens=False)["input_ids"])}
    return {"prompt": prompt, "reference": None, "ids": renderer.prompt_ids([{"role": "user", "content": prompt}])}


def _of_text(text: str, renderer: ChatRenderer) -> dict[str, Any] | None:
    ids = list(renderer.tokenizer(text, add_special_tokens=False)["input_ids"])
    if len(ids) <= TEXT_PROMPT_TOKENS:
        return None
    parts = [renderer.tokenizer.decode(part) for part in (ids[:TEXT_PROMPT_TOKENS], ids[TEXT_PROMPT_TOKENS : 5 * TEXT_PROMPT_TOKENS])]
    return {"prompt": str(parts[0]), "reference": str(parts[1]), "ids": ids[:TEXT_PROMPT_TOKENS]}


def _of_chat(row: dict[str, Any], renderer: ChatRenderer) -> dict[str, Any] | None:
    from danlu.evaluation.suites.heldout import split_last_answer

    split = (row["messages"], row["chosen"][-1]["content"]) if "chosen" in row else split_last_answer(row)
    if split is None:
        return None
    messages, reference = split
    return {"prompt": str(messages[-1].get("content") or ""), "reference": reference, "ids": renderer.prompt_ids(messages, row.get("tools"))}
