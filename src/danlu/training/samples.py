"""Samples while training: when to let the model answer its fixed prompts, and how long that may take.

Answering changes nothing: no weight, no random number, no mode is another one afterwards (tests/numerics/test_samples.py).
How answers are made is given by the caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from danlu.errors import is_out_of_memory
from danlu.files import read_jsonl

if TYPE_CHECKING:
    from danlu.recipe.recipe import Recipe
    from danlu.reporter import Reporter
    from danlu.run_dir import RunDir
    from danlu.training.loop import Loop

SECONDS_PER_TOKEN = 0.005
"""The first round's cost before any was measured: a token takes at least this, however small the model is."""


class Sampler:
    """Called by the loop after every step; reports an event of kind `sample` with one item per prompt."""

    def __init__(self, recipe: Recipe, run_dir: RunDir, reporter: Reporter, answer: Callable[[Any], list[dict[str, Any]]]) -> None:
        self.recipe, self.run_dir, self.reporter, self.answer = recipe, run_dir, reporter, answer
        past = [event for event in read_jsonl(run_dir.events) if event["kind"] == "sample"]
        self._spent = sum(float(event["seconds"]) for event in past)
        self._last = float(past[-1]["seconds"]) if past else 0.0
        self._done = {int(event["step"]) for event in past}
        self._is_over = False

    def __call__(self, loop: Loop) -> None:
        """Sample when it is time, once per step in a run's life, and only while there is time for it."""
        step, every = loop.state.step, int(self.recipe.training.sample_every_steps or 0)
        if self._is_over or step in self._done or not (step % every == 0 or step == loop.num_steps):
            return
        total = self._training_seconds(loop)
        expected = self._last or SECONDS_PER_TOKEN * self.recipe.training.sample_max_new_tokens
        share = self.recipe.training.sample_time_share
        if total is not None and self._spent + expected > share * total:
            self._stop(f"no samples from step {step} on: they would take more than {100 * share:g} % of the training time", step)
            return
        start = time.monotonic()
        items = self._answers(loop.model, step)
        self._last = time.monotonic() - start
        self._spent += self._last
        if items:
            self._done.add(step)
            first = items[0]
            self.reporter.event("sample", f"{_short(first['prompt'])} -> {_short(first['text'])}", step=step, items=items, seconds=round(self._last, 3))

    def _training_seconds(self, loop: Loop) -> float | None:
        """Time of the whole training: from the steps done, or before them from the forecast; None when there was none."""
        if loop.state.step >= 5:
            return loop.state.training_seconds / loop.state.step * loop.num_steps
        forecast = (self.run_dir.read_record().get("forecast") or {}).get("training_seconds")
        return None if forecast is None else float(forecast)

    def _answers(self, model: Any, step: int) -> list[dict[str, Any]]:
        random_state = torch.get_rng_state()
        was_training = model.training
        model.eval()
        try:
            return self.answer(model)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._stop(f"no samples from step {step} on: memory ran out while answering", step)
            return []
        finally:
            model.train(was_training)
            torch.set_rng_state(random_state)

    def _stop(self, message: str, step: int) -> None:
        self._is_over = True
        self.reporter.event("samples_stopped", message, step=step)


def _short(text: str, limit: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "\u2026"
