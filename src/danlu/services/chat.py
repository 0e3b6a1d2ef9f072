"""Use case: talk to the base or the tuned model of a run, answer by answer, streamed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.errors import ModelError, NoEffectError, RunNotFoundError, UnknownNameError
from danlu.run_dir import RunDir
from danlu.services import pipeline, runs
from danlu.services.rounds import find_run

if TYPE_CHECKING:
    from danlu.data.chat import ChatRenderer


@dataclass
class ChatOptions:
    """How answers are drawn."""

    model: str = "tuned"
    """`tuned` or `base`."""
    temperature: float = 0.7
    """0 always takes the likeliest token."""
    top_p: float = 0.9
    """Draw from the likeliest tokens that together have this probability."""
    max_new_tokens: int = 256
    seed: int | None = None
    """Draws the same answer again; None draws anew."""


class ChatSession:
    """One loaded run (or base model) and the conversation so far."""

    def __init__(self, name: str, *, system: str | None = None, stacked: Sequence[str] = ()) -> None:
        """`stacked` names more runs over the same base model, whose adapters are active beside that of `name`."""
        self.pair, self.has_tuned = _open(name, stacked)
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []

    def ask(self, text: str, options: ChatOptions) -> Iterator[str]:
        """Yield the answer piece by piece; both turns join the conversation when it is complete."""
        messages = [*self.messages, {"role": "user", "content": text}]
        pieces = []
        for piece in self._stream(messages, options):
            pieces.append(piece)
            yield piece
        self.messages = [*messages, {"role": "assistant", "content": "".join(pieces)}]

    def reset(self) -> None:
        """Forget the conversation but for the system message."""
        self.messages = [m for m in self.messages if m["role"] == "system"]

    def _stream(self, messages: list[dict[str, Any]], options: ChatOptions) -> Iterator[str]:
        from danlu.models.generate import max_positions, stop_ids
        from danlu.models.stream import stream_answer

        with self.pair.tuned() if options.model == "tuned" else self.pair.base() as model:
            prompt, room = fit(self.pair.renderer, messages, options.max_new_tokens, max_positions(model))
            yield from stream_answer(
                model,
                self.pair.tokenizer,
                prompt,
                temperature=options.temperature,
                top_p=options.top_p,
                max_new_tokens=room,
                stop_ids=stop_ids(self.pair.renderer, model),
                seed=options.seed,
            )


def fit(renderer: ChatRenderer, messages: Sequence[dict[str, Any]], max_new_tokens: int, limit: int | None) -> tuple[list[int], int]:
    """Prompt ids without the oldest turns that leave no room for an answer, and how many tokens the answer may have.

    Raises:
        ModelError: the last message alone leaves no room.
    """
    messages = list(messages)
    ids = renderer.prompt_ids(messages)
    if limit is None:
        return ids, max_new_tokens
    first = 1 if messages[0]["role"] == "system" else 0
    while len(ids) + min(max_new_tokens, limit // 2) > limit and len(messages) > first + 1:
        del messages[first : first + 2]
        ids = renderer.prompt_ids(messages)
    if len(ids) >= limit:
        raise ModelError(
            f"the message has {len(ids)} tokens and leaves no room for an answer", why=f"the model reads up to {limit} tokens", fix="ask a shorter question"
        )
    return ids, min(max_new_tokens, limit - len(ids))


def _open(name: str, stacked: Sequence[str] = ()) -> tuple[Any, bool]:
    try:
        run_dir = runs.open_run(name)
    except RunNotFoundError as no_run:
        from danlu.models.catalogue import find_base_model
        from danlu.models.device import device
        from danlu.models.pair import ModelPair

        if "/" not in name and not os.path.isdir(name):
            raise
        try:
            return ModelPair(find_base_model(name).folder, device=device()), False
        except UnknownNameError:
            raise no_run from None
    recipe = pipeline.resolved(run_dir)
    if recipe.objective.makes_reward_model:
        raise NoEffectError(
            f"run {run_dir.id} made a reward model, with which one cannot talk",
            why="it gives an answer a score instead of writing one",
            fix=f"see how well it judges with: danlu report {run_dir.id}",
        )
    if not (run_dir.path / "training.json").exists():
        raise RunNotFoundError(
            f"run {run_dir.id} has not finished training", why="there is no tuned model yet", fix=f"finish it first: danlu resume {run_dir.id}"
        )
    return pipeline.open_pair(run_dir, recipe, pipeline.base_folder(run_dir), stacked=_adapters_beside(run_dir, stacked)), True


def _adapters_beside(run_dir: RunDir, names: Sequence[str]) -> list[Path]:
    """Adapter folders of other runs over the same base model."""
    others = [find_run(name) for name in names]
    for one in [run_dir, *others] if others else []:
        if not one.adapter.exists():
            raise NoEffectError(
                f"run {one.id} has no adapter", why="its method changed the whole model; nothing can be added to it", fix="stack runs of method lora"
            )
        if one.read_record()["base_model"]["sha256"] != run_dir.read_record()["base_model"]["sha256"]:
            raise ModelError(
                f"runs {run_dir.id} and {one.id} have different base models",
                why="changes of one mean nothing in the other",
                fix="stack runs over the same base model",
            )
    return [one.adapter for one in others]
