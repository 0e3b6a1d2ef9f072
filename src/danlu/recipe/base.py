"""The strict base model of every recipe part, and the registries of what a recipe can name."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from danlu.plugins import Registry


class StrictModel(BaseModel):
    """Unknown keys are errors; a field's docstring is its help text everywhere."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False)


@dataclass(frozen=True)
class Quantisation:
    """How the frozen base weights are stored."""

    bits: int
    """4 (NF4) or 8 (integers, one scale per row)."""
    is_double: bool = False
    """Whether the scales of the 4-bit blocks are quantised themselves."""


class MethodConfig(StrictModel):
    """Base of every tuning method: which weights change. Its plugin file also defines `apply` and `save`."""

    type: str
    makes_adapter: ClassVar[bool] = True
    """Whether the result is a small adapter beside the base model, or a whole model."""
    can_merge: ClassVar[bool] = True
    """Whether the adapter can become part of the base weights."""
    usual_learning_rate: ClassVar[float | None] = None
    """What `optim.learning_rate: auto` takes with AdamW; None where the width of the model decides."""
    can_train_score_head: ClassVar[bool] = False
    """Whether a new head with one score is trained beside it (objective `reward`)."""

    @property
    def starts_anew(self) -> bool:
        """Whether the weights of the base model are thrown away before training."""
        return False

    @property
    def moves_base(self) -> bool:
        """Whether switching the adapter off leaves other weights than those before training: whole models, and starts taken out of the base."""
        return not self.makes_adapter

    @property
    def quantisation(self) -> Quantisation | None:
        """How the base model is quantised when it is loaded; None for not at all."""
        return None

    @property
    def num_extra_positions(self) -> int:
        """Positions that virtual tokens take from each example."""
        return 0

    @property
    def learns_new_tokens(self) -> bool:
        """Whether the rows of `data.new_tokens` are among the weights that change."""
        return False

    def learning_rate_factor(self, parameter: str) -> float:
        """What the learning rate of the parameter of that name is multiplied with."""
        return 1.0


class ObjectiveConfig(StrictModel):
    """Base of every objective: what the loss is. Its plugin file also defines `encode`, `totals` and `loss` (docs/architecture.md)."""

    type: str
    needs: ClassVar[str] = "messages"
    """The kind of example it trains on: `messages`, `text`, `preference`, `labelled` or `prompt` (danlu.data.examples)."""
    group_size: ClassVar[int] = 1
    """Sequences in the token file that one loss needs together (2 for pairs)."""
    has_reference: ClassVar[bool] = False
    """Whether the loss compares with the model as it was before training, by nats computed once."""
    weighs_rows: ClassVar[bool] = True
    """Whether label tokens of one batch may count differently (false for a plain mean over tokens)."""
    is_online: ClassVar[bool] = False
    """Whether the sequences that are trained on are written by the model itself during training (`rollout`)."""
    learning_rate_factor: ClassVar[float] = 1.0
    """The usual learning rate as a share of that of sft: preference objectives move a trained model, and little is enough."""
    makes_reward_model: ClassVar[bool] = False
    """Whether the result gives a text a score instead of going on with it."""
    suites: ClassVar[tuple[str, ...]] = ("heldout", "retention")
    """What is measured before and after when the recipe does not say."""
    validation_numbers: ClassVar[tuple[str, ...]] = ()
    """What it measures at a validation beside the loss, of which more is better."""
    headlines: ClassVar[tuple[str, ...]] = ("nll_per_token",)
    """The metric that the verdict rests on: the first of these that was measured."""

    @property
    def reserved_tokens(self) -> int:
        """Of `max_seq_len`, what has to be left free behind a sequence (for what is generated)."""
        return 0

    @property
    def num_repeats(self) -> int:
        """Optimizer steps that are made on the same examples before the next ones."""
        return 1


class RewardConfig(StrictModel):
    """Base of every reward function: what an answer that a model wrote by itself is worth. Its plugin file also defines `score`."""

    type: str
    weight: float = Field(1.0, allow_inf_nan=False)
    """What its score is multiplied with before the scores are added; negative to punish."""
    version: ClassVar[str] = "1"
    needs_answer: ClassVar[bool] = False
    """Whether it compares with the reference answer of the prompt."""


class MetricConfig(StrictModel):
    """Base of every metric on generated text."""

    type: str
    version: ClassVar[str] = "1"
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "0-1"
    """Range of a score, as shown beside it."""


class SuiteConfig(StrictModel):
    """Base of every suite: a named, versioned set of evaluation items."""

    type: str
    version: ClassVar[str] = "1"
    kinds: ClassVar[frozenset[str]] = frozenset({"messages", "text", "preference", "labelled", "prompt"})
    """Kinds of example (`ObjectiveConfig.needs`) with which it can be measured."""
    takes_reward_models: ClassVar[bool] = False
    """Whether it can measure a model that gives a score instead of text."""


class FormatConfig(StrictModel):
    """Base of every dataset format: how a row of a file becomes an example."""

    type: str


class ExporterConfig(StrictModel):
    """Base of every exporter: what files a finished run can become."""

    type: str


METHODS: Registry[MethodConfig] = Registry("tuning method", package="danlu.training.methods")
OBJECTIVES: Registry[ObjectiveConfig] = Registry("objective", package="danlu.training.objectives")
REWARDS: Registry[RewardConfig] = Registry("reward function", package="danlu.data.rewards")
METRICS: Registry[MetricConfig] = Registry("metric", package="danlu.evaluation.metrics")
SUITES: Registry[SuiteConfig] = Registry("suite", package="danlu.evaluation.suites")
FORMATS: Registry[FormatConfig] = Registry("dataset format", package="danlu.data.formats")
EXPORTERS: Registry[ExporterConfig] = Registry("exporter", package="danlu.export.formats")
