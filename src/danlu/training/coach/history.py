"""What the coach knows: the rows of metrics.jsonl, some events, and facts about the data. Live or read from a run folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean, median
from typing import Any

import numpy as np

from danlu.data.tokenise import is_complete, train_counts, train_tokens
from danlu.files import read_json, read_jsonl
from danlu.recipe.recipe import Recipe
from danlu.run_dir import RunDir

Row = dict[str, Any]
NO_LABEL = ("no token to train on", "no turn is trained on: every loss weight is 0")
"""Reasons of rows that were dropped because nothing in them is trained on (data.encode, data.clean)."""
PROBED_ROWS = 1000
USERS = r"(?:human|user|instruction|question|用户|问题?)"
ASSISTANTS = r"(?:assistant|gpt|bot|ai|response|answer|助手|回答|答)"
ENDS_LIKE_A_PROMPT = re.compile(rf"(?:^|\n)\W{{0,4}}{ASSISTANTS}\s*[:：]?\W{{0,3}}\Z", re.IGNORECASE)
STARTS_LIKE_A_TURN = re.compile(rf"\A\W{{0,4}}{ASSISTANTS}\s*[:：]", re.IGNORECASE)
GOES_ON_AS_USER = re.compile(rf"\n\W{{0,4}}{USERS}\s*[:：]", re.IGNORECASE)


@dataclass(frozen=True)
class DataFacts:
    """What is known of the data before the first step; 0 where nothing was counted."""

    rows_in: int = 0
    used: int = 0
    duplicate: int = 0
    """Rows left out because they repeat another one, exactly or (where asked for) nearly."""
    near_duplicates_kept: int = 0
    num_train: int = 0
    num_train_tokens: int = 0
    num_validation: int = 0
    num_shortened: int = 0
    """Training examples that were cut or left out because they are too long."""
    is_estimate: bool = False
    """Whether the training examples were counted on a sample, because the others are tokenised while training goes on."""
    num_unlabelled: int = 0
    """Rows dropped because nothing in them is trained on."""
    num_probed: int = 0
    """Training conversations that were searched for the two facts below."""
    num_with_template_text: int = 0
    """Of these, the ones with a prompt template written into their messages."""
    end_token_share: float | None = None
    """Share of examples whose last trained token is the commonest such token; None when it was not looked at."""

    @classmethod
    def read(cls, recipe: Recipe, run_dir: RunDir) -> DataFacts:
        """Count what the data stage left in the run folder."""
        account, encoded = (_optional(run_dir.data / f"{name}.json") for name in ("accounting", "encoded"))
        train = train_counts(run_dir)
        reasons: dict[str, int] = (account.get("reasons") or {}).get("dropped", {})
        unlabelled = sum(number for reason, number in reasons.items() if reason in NO_LABEL)
        unlabelled += sum(e["reason"] in NO_LABEL and e["split"] == "train" for e in read_jsonl(run_dir.data / "tokenised.jsonl"))
        num_probed, num_with_template_text = _template_text(run_dir) if recipe.objective.needs == "messages" else (0, 0)
        return cls(
            rows_in=account.get("rows_in", 0),
            used=account.get("used", 0),
            duplicate=account.get("duplicate", 0) + account.get("near_duplicate", 0),
            near_duplicates_kept=account.get("near_duplicates_kept", 0),
            num_train=train.get("num_examples", 0),
            num_train_tokens=train.get("num_tokens", 0),
            num_validation=encoded.get("validation", {}).get("num_examples", 0),
            num_shortened=train.get("truncated", 0) + train.get("dropped", 0),
            is_estimate="num_rows" in train,
            num_unlabelled=unlabelled,
            num_probed=num_probed,
            num_with_template_text=num_with_template_text,
            end_token_share=_end_token_share(run_dir) if recipe.objective.needs == "messages" and train.get("num_examples") else None,
        )


def _optional(path: Any) -> dict[str, Any]:
    return dict(read_json(path)) if path.exists() else {}


def _template_text(run_dir: RunDir) -> tuple[int, int]:
    """(conversations looked at, those whose messages hold the text of a prompt template)."""
    rows = [row["messages"] for row in islice(read_jsonl(run_dir.data / "train.jsonl"), PROBED_ROWS) if row.get("messages")]
    return len(rows), sum(any(_is_baked(message) for message in messages) for messages in rows)


def _is_baked(message: Row) -> bool:
    content = message.get("content") or ""
    if message["role"] == "assistant":
        return bool(STARTS_LIKE_A_TURN.search(content) or GOES_ON_AS_USER.search(content))
    return message["role"] == "user" and bool(ENDS_LIKE_A_PROMPT.search(content))


def _end_token_share(run_dir: RunDir) -> float | None:
    if is_complete(run_dir) and not (run_dir.data / "train.tokens").exists():
        return None
    tokens = train_tokens(run_dir)
    last = [int(e.ids[e.mask][-1]) for e in (tokens[i] for i in range(min(len(tokens), PROBED_ROWS))) if e.mask.any()]
    return float(np.unique(last, return_counts=True)[1].max() / len(last)) if last else None


@dataclass
class History:
    """A run so far. `see` takes what a reporter tells; a step that is told again replaces what came after it."""

    recipe: Recipe
    data: DataFacts
    usual_learning_rate: float | None = None
    """What `recommend` gives for this model and method, whatever the recipe says."""
    model_max_seq_len: int | None = None
    kept_step: int | None = None
    """Step whose weights a finished run kept."""
    is_over: bool = False
    steps: list[Row] = field(default_factory=list)
    validations: list[Row] = field(default_factory=list)
    out_of_memory: list[Row] = field(default_factory=list)
    not_finite: Row | None = None

    @classmethod
    def read(cls, recipe: Recipe, run_dir: RunDir) -> History:
        """The history of a run folder."""
        record, training = run_dir.read_record(), _optional(run_dir.path / "training.json")
        facts = record.get("facts") or {}
        history = cls(
            recipe,
            DataFacts.read(recipe, run_dir),
            usual_learning_rate=facts.get("usual_learning_rate"),
            model_max_seq_len=facts.get("model_max_seq_len"),
            kept_step=training.get("kept_step"),
            is_over=bool(training),
        )
        for row in read_jsonl(run_dir.metrics):
            history.see("metrics", row)
        for event in read_jsonl(run_dir.events):
            if event["kind"] == "out_of_memory" or (event["kind"] == "not_finite" and event["step"] > history.step):
                history.see(event["kind"], event)
        return history

    def see(self, kind: str, fields: Row) -> None:
        """Take in one line of metrics, or an event that matters here."""
        if kind == "metrics" and fields.get("loss") is not None:
            for rows in (self.steps, self.validations):
                _forget_from(rows, fields["step"])
            self.steps.append(fields)
            self.not_finite = None
        elif kind == "metrics" and fields.get("validation_loss") is not None:
            _forget_from(self.validations, fields["step"])
            self.validations.append(fields)
        elif kind == "out_of_memory":
            _forget_from(self.out_of_memory, fields.get("step", 0), key=fields["message"])
            self.out_of_memory.append(fields)
        elif kind == "not_finite":
            self.not_finite = fields

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.steps[-1]["step"]) if self.steps else 0

    @property
    def num_steps(self) -> int:
        """Steps planned."""
        return int(self.steps[-1].get("num_steps") or self.step) if self.steps else 0

    @property
    def losses(self) -> list[float]:
        """Training loss of each step."""
        return [row["loss"] for row in self.steps]

    @property
    def learning_rate(self) -> float | None:
        """Peak learning rate of the recipe; None while it is `auto`."""
        rate = self.recipe.optim.learning_rate
        return None if rate == "auto" else float(rate)

    def shorter(self, step: int) -> dict[str, Any]:
        """The setting that ends the run at `step`."""
        if self.recipe.optim.max_steps is not None:
            return {"optim.max_steps": step}
        row = self.steps[-1]
        return {"optim.num_epochs": max(0.1, round(step * row["epoch"] / row["step"], 1))}


def _forget_from(rows: list[Row], step: int, key: str | None = None) -> None:
    """Drop what is told again: rows at or after `step`; with `key`, only the one with that message."""
    if key is not None:
        rows[:] = [row for row in rows if (row.get("step", 0), row["message"]) != (step, key)]
        return
    while rows and rows[-1]["step"] >= step:
        rows.pop()


def noise(values: Sequence[float]) -> float:
    """Standard deviation of one step's loss around its trend, from the median jump between neighbours."""
    if len(values) < 3:
        return 0.0
    return 1.4826 * median(abs(b - a) for a, b in zip(values, values[1:], strict=False)) / 2**0.5


def smoothed(values: Sequence[float], width: int) -> list[float]:
    """Means of every `width` neighbouring values."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return [float(mean) for mean in (sums[width:] - sums[:-width]) / width]


def last_mean(values: Sequence[float]) -> float:
    """Mean of the last tenth of the values (at least three of them)."""
    return fmean(values[-max(3, len(values) // 10) :])
