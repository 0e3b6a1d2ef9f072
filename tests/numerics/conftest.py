"""A training loop on a model so small that a step takes milliseconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from danlu.data.pack import EncodedExample, TokenFile
from danlu.files import read_jsonl
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir
from danlu.training.forward import reference_nll
from danlu.training.loop import Loop
from danlu.training.objective import NllFunction

CPU = torch.device("cpu")
VOCABULARY = 48


def make_model() -> Qwen3ForCausalLM:
    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        initializer_range=0.1,
    )
    return Qwen3ForCausalLM(config)


def counting(count: int, *, stride: int, seed: int) -> list[EncodedExample]:
    """Sequences that count on by `stride` from a random start; the first three tokens are the prompt."""
    draw = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        length = int(draw.integers(6, 20))
        ids = ((draw.integers(VOCABULARY) + stride * np.arange(length)) % VOCABULARY).astype(np.uint32)
        examples.append(EncodedExample(ids, np.arange(length) >= 3))
    return examples


class Trial:
    """A run folder with token files, and loops over it."""

    def __init__(self, folder: Path, *, validation_stride: int = 1, num_validation: int = 6, **values: Any) -> None:
        self.run_dir = RunDir.create(folder)
        TokenFile.write(self.run_dir.data / "train.tokens", counting(30, stride=1, seed=1))
        TokenFile.write(self.run_dir.data / "validation.tokens", counting(num_validation, stride=validation_stride, seed=2))
        optim = {"learning_rate": 0.01, "num_epochs": "auto", "max_steps": 12, "global_batch_size": 4, "micro_batch_tokens": 64, **values.pop("optim", {})}
        training = {"validate_every_steps": 5, "checkpoint_every_steps": 4, "early_stopping_patience": None, **values.pop("training", {})}
        method = values.pop("method", {"type": "lora", "rank": 4})
        self.recipe = Recipe.model_validate({"base_model": "b", "dataset": "d", "method": method, "optim": optim, "training": training, **values})
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def loop(self, nll: NllFunction = reference_nll) -> Loop:
        model = self.recipe.method.apply(make_model(), fused=False)  # type: ignore[attr-defined]
        reporter = Reporter(self.run_dir, lambda kind, fields: self.heard.append((kind, fields)))
        return Loop(self.recipe, self.run_dir, reporter, model, nll, CPU)

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [fields for heard, fields in self.heard if heard == kind]

    @property
    def lines(self) -> list[tuple[int, float | None, float | None]]:
        """(step, loss, validation loss) of each line of metrics.jsonl."""
        return [(line["step"], line.get("loss"), line.get("validation_loss")) for line in read_jsonl(self.run_dir.metrics)]

    @property
    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in self.run_dir.checkpoints.iterdir())


@pytest.fixture
def trial(tmp_path: Path) -> Callable[..., Trial]:
    """Make a trial of that name; other keywords are parts of the recipe."""
    return lambda name="trial", **values: Trial(tmp_path / name, **values)
