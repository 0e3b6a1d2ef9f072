"""What an engine answers with: a base model with adapters of runs, or one run whose model cannot be shared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from danlu.errors import ModelError, NoEffectError
from danlu.run_dir import RunDir
from danlu.services import machine, pipeline
from danlu.services.chat import fit


def can_share(recipe: dict[str, Any]) -> bool:
    """Whether a run's result is an adapter that works beside others on one base model in memory (resolved recipe)."""
    return recipe["method"]["type"] == "lora" and not recipe["data"]["new_tokens"] and recipe["training"]["compute"] == "exact"


class SharedAnswers:
    """Answers of a base model and of the runs over it."""

    def __init__(self, base_dir: Path, dtype: str | None) -> None:
        from danlu.models.device import device
        from danlu.models.shared import SharedModel

        self.sha256 = machine.weights_digest(base_dir)
        self.model = SharedModel(base_dir, dtype=dtype, device=device())

    def answer(self, request: dict[str, Any], on_token: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """Yield the answer piece by piece; `run_dir` in the request names the run, none is the base model."""
        with self._opened(request.get("run_dir")) as (model, renderer):
            yield from stream(model, renderer, request, on_token)

    @contextmanager
    def _opened(self, run_dir: str | None) -> Iterator[tuple[Any, Any]]:
        if run_dir is None:
            with self.model.base() as found:
                yield found
            return
        run = RunDir(Path(run_dir))
        if run.read_record().get("base_model", {}).get("sha256") != self.sha256:
            raise ModelError(f"run {run.id} was made from another base model", why="its weights have another checksum", fix="restore the old base model")
        with self.model.tuned(run.adapter) as found:
            yield found


class RunAnswers:
    """Answers of one run: its whole model, or an adapter that needs the base model to itself."""

    def __init__(self, run_dir: RunDir) -> None:
        recipe = pipeline.resolved(run_dir)
        if recipe.objective.makes_reward_model:
            raise NoEffectError(f"run {run_dir.id} made a reward model", why="it gives an answer a score instead of writing one", fix="chat with another run")
        self.pair = pipeline.open_pair(run_dir, recipe, pipeline.base_folder(run_dir))

    def answer(self, request: dict[str, Any], on_token: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """Yield the answer piece by piece."""
        with self.pair.tuned() as model:
            yield from stream(model, self.pair.renderer, request, on_token)


def stream(model: Any, renderer: Any, request: dict[str, Any], on_token: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """One answer as messages: its text piece by piece, then how long it was and took.

    Raises:
        ModelError: the conversation leaves no room for an answer.
        TemplateError: the chat template cannot render it.
    """
    from danlu.models.generate import max_positions, stop_ids
    from danlu.models.stream import stream_answer

    prompt, room = fit(renderer, request["messages"], request["max_new_tokens"], max_positions(model))
    num_tokens, started, is_stopped = 0, time.monotonic(), False

    def count() -> bool:
        nonlocal num_tokens, is_stopped
        num_tokens += 1
        is_stopped = not on_token()
        return not is_stopped

    settings = {name: request[name] for name in ("temperature", "top_p", "seed")}
    pieces = stream_answer(model, renderer.tokenizer, prompt, max_new_tokens=room, stop_ids=stop_ids(renderer, model), on_token=count, **settings)
    for piece in pieces:
        if piece:
            yield {"kind": "text", "text": piece}
    seconds = round(time.monotonic() - started, 3)
    yield {"kind": "end", "num_prompt_tokens": len(prompt), "num_tokens": num_tokens, "seconds": seconds, "is_cut": num_tokens >= room and not is_stopped}
