"""What recommendations are made from, and what they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from danlu.recipe.recipe import Recipe

Goal = Literal["style", "knowledge", "task", "reasoning"]
"""What the data is to teach: a manner, facts, one kind of job, or to think step by step."""
GOALS: tuple[Goal, ...] = get_args(Goal)


@dataclass(frozen=True)
class Facts:
    """What was measured on the data, the model and the machine."""

    num_train: int
    """Examples to train on (blocks for pretraining)."""
    length_p50: int
    """Median tokens per example."""
    length_p995: int
    """Tokens that 99.5 % of the examples do not exceed."""
    length_max: int
    model_max_seq_len: int
    hidden_size: int
    num_parameters: int
    available_memory_bytes: int
    """What a run can hold in all."""
    has_gpu: bool
    has_bfloat16: bool
    detected_format: dict[str, Any]
    num_validation: int = 1
    """Examples of the validation split."""
    num_label_tokens: int = 0
    """Trained tokens of all training examples; 0 when not counted."""
    parameters_per_rank: int = 0
    """Weights that one rank of an adapter on every linear layer adds; 0 when not known."""
    smallest_matrix: int = 1 << 30
    """Least width of a linear layer: no rank is above it."""
    goal: Goal = "task"
    can_quantise: bool = False
    """Whether 4-bit weights can be had: the method is installed with its library."""
    peak_bytes: Callable[[Recipe], int] | None = field(default=None, compare=False)
    """Forecast of a recipe's peak memory (models/memory.py); None leaves the defaults."""


@dataclass(frozen=True)
class Reason:
    """Why a value was chosen, in both languages."""

    path: str
    value: Any
    en: str
    zh: str
    source: str = ""
    """Key of the table of sources in docs/recommend.md."""


class Choice(NamedTuple):
    """What a rule says."""

    value: Any
    en: str
    zh: str
    source: str = ""
