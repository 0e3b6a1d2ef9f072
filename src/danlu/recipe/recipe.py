"""The recipe: everything that determines one run, and nothing that does not.

One class is the YAML file, the REST body, the studio form (through its JSON Schema) and the input of every
stage. Facts about the machine -- folders, tokens, devices -- live in `danlu.settings` and never enter the
fingerprint. States: written (`auto` allowed) -> resolved (nothing is `auto`) -> recorded (run.json).
"""

import hashlib
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import Field, SerializeAsAny, field_validator, model_validator

from danlu.recipe.base import (
    EXPORTERS,
    FORMATS,
    METHODS,
    METRICS,
    OBJECTIVES,
    SUITES,
    ExporterConfig,
    FormatConfig,
    MethodConfig,
    MetricConfig,
    ObjectiveConfig,
    StrictModel,
    SuiteConfig,
)

Auto = Literal["auto"]


class OptimConfig(StrictModel):
    """How the weights are moved."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """`adamw` (Loshchilov & Hutter 2019); `muon` for 2-D weights with adamw for the rest, `full` method only."""
    learning_rate: float | Auto = Field("auto", validate_default=True)
    """Peak learning rate. LoRA wants roughly 10x that of full fine-tuning."""
    num_epochs: float | Auto = "auto"
    """Passes over the training split. Leave it `auto` when `max_steps` is set."""
    max_steps: int | None = Field(None, ge=1, le=10**9)
    """Stop after this many optimizer steps instead of after `num_epochs`."""
    global_batch_size: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Examples per optimizer step, summed over all devices."""
    micro_batch_tokens: Annotated[int, Field(ge=16)] | Auto = "auto"
    """Most tokens in one forward pass. Lower this first when memory runs out; it never changes the loss."""
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after warm-up; `cosine` and `linear` end at `min_learning_rate_ratio` of the peak."""
    min_learning_rate_ratio: float = Field(0.0, ge=0, le=1)
    """Last learning rate as a share of the peak."""
    warmup_ratio: float = Field(0.03, ge=0, le=1)
    """Share of all steps over which the learning rate rises from zero."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay on matrices (never on norms and biases)."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the first moment."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of the second moment."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients longer than this are scaled down to it."""

    @field_validator("learning_rate", "num_epochs")
    @classmethod
    def _is_positive(cls, value: float | str) -> float | str:
        if isinstance(value, float | int) and value <= 0:
            raise ValueError(f"{value} is not greater than 0")
        return value

    @field_validator("learning_rate")
    @classmethod
    def _is_sane(cls, value: float | str) -> float | str:
        if isinstance(value, float | int) and value > 1:
            raise ValueError(f"a learning rate of {value} diverges at once; usual values are 1e-5 to 1e-2")
        return value

    @model_validator(mode="after")
    def _epochs_or_steps(self) -> Self:
        if self.max_steps is not None and self.num_epochs != "auto":
            raise ValueError("num_epochs has no effect when max_steps is set; remove one of them")
        return self


class SplitConfig(StrictModel):
    """Shares of the examples held out; the rest is trained on."""

    validation: float = Field(0.1, ge=0, lt=1)
    """Share watched during training (early stopping, best checkpoint)."""
    test: float = Field(0.1, ge=0, lt=1)
    """Share never seen before the final proof."""
    max_examples: int | None = Field(2000, ge=1)
    """Most examples in each held-out split; of a large dataset the rest is better trained on. null for no limit."""

    @model_validator(mode="after")
    def _leaves_something_to_train(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} + test {self.test} leave nothing to train on")
        return self


class DataConfig(StrictModel):
    """How the rows of the file become training examples."""

    format: Annotated[SerializeAsAny[FormatConfig], FORMATS] | Auto = "auto"
    """The dataset format; `auto` tells it from the content."""
    split: SplitConfig = SplitConfig()
    """Shares held out for validation and test."""
    mix: dict[str, float] = {}
    """Other datasets mixed into training, as a share of the training examples, e.g. `{general: 0.1}`."""
    max_seq_len: Annotated[int, Field(ge=16)] | Auto = "auto"
    """Most tokens per example; longer ones are shortened by `truncation`, counted and listed."""
    truncation: Literal["oldest_turns", "drop"] = "oldest_turns"
    """`oldest_turns` removes the oldest exchanges, then the middle of the prompt; `drop` leaves the example out."""
    near_duplicates: Literal["drop", "keep_together"] = "keep_together"
    """`drop` keeps one of each group of near duplicates; either way a group never straddles the splits."""
    system: str | None = None
    """System message put before every example that has none."""

    @field_validator("mix")
    @classmethod
    def _shares_are_sane(cls, mix: dict[str, float]) -> dict[str, float]:
        for name, share in mix.items():
            if not 0 < share <= 10:
                raise ValueError(f"mix.{name}: {share} is not a share greater than 0 and at most 10")
        return mix


class TrainingConfig(StrictModel):
    """How the loop is run. None of these is meant to change what is learnt, only how long it takes and when it stops."""

    path: Literal["fast", "reference"] = "fast"
    """`fast`: packed, fused kernels. `reference`: padded, stock Transformers + PEFT, full logits; for checking."""
    dtype: Literal["float32", "bfloat16"] | Auto = "auto"
    """Number format of the computation; `auto` takes bfloat16 on GPUs that have it and float32 on CPUs."""
    compute: Literal["exact", "int8"] = "exact"
    """`int8` multiplies with the frozen weights in 8-bit integers: faster and smaller on CPUs with VNNI, adapters only; the result is not the same."""
    validate_every_steps: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Steps between validations; `auto` gives about ten in all."""
    checkpoint_every_seconds: float = Field(120.0, gt=0)
    """Most work lost when the machine dies."""
    checkpoint_every_steps: int | None = Field(None, ge=1)
    """Checkpoint after every so many steps as well (for exact tests and for long steps)."""
    early_stopping_patience: int | None = Field(3, ge=1)
    """Stop after this many validations without improvement; null never stops early."""
    keep_best: bool = True
    """End with the weights of the best validation instead of the last step (needs a validation split)."""


class EvaluationConfig(StrictModel):
    """How the result is proved."""

    suites: list[Annotated[SerializeAsAny[SuiteConfig], SUITES]] = Field(default=["heldout", "retention"], validate_default=True)
    """What is measured before and after."""
    metrics: list[Annotated[SerializeAsAny[MetricConfig], METRICS]] = Field(default=["exact_match", "rouge_l", "bleu", "chrf"], validate_default=True)
    """Metrics of generated text on the held-out split; an empty list skips generation."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest completion generated for a metric."""
    max_generations: int = Field(200, ge=1)
    """Held-out examples that are generated for (the first ones in split order); all of them count for the loss."""


class Recipe(StrictModel):
    """One run."""

    schema_version: Literal[1] = 1
    base_model: str = Field(min_length=1)
    """`danlu/tiny` (embedded), a local folder, or a hub repository, optionally pinned: `name@revision`."""
    dataset: str = Field(min_length=1)
    """A data file, or a bundled example such as `danlu/zhangjiajie`."""
    objective: Annotated[SerializeAsAny[ObjectiveConfig], OBJECTIVES] = Field("sft", validate_default=True)
    """What is learnt: `sft` (answers in conversations) or `pretrain` (plain text)."""
    method: Annotated[SerializeAsAny[MethodConfig], METHODS] = Field("lora", validate_default=True)
    """Which weights change: `lora`, `full`, or any installed method."""
    optim: OptimConfig = Field(default_factory=OptimConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    export: list[Annotated[SerializeAsAny[ExporterConfig], EXPORTERS]] = []
    """What is exported at the end of the run; more can be made later with `danlu export`."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seeds the split, the order, dropout and the bootstrap."""

    @model_validator(mode="after")
    def _combinations_work(self) -> Self:
        if self.optim.optimizer == "muon" and self.method.makes_adapter:
            raise ValueError("optim.optimizer muon is for method full; use adamw with adapters")
        if self.training.compute == "int8" and (self.training.path == "reference" or not self.method.makes_adapter):
            what = "training.path reference" if self.training.path == "reference" else f"method {self.method.type}"
            raise ValueError(f"training.compute int8 is for frozen weights on the fast path, and {what} has none; remove training.compute")
        if self.objective.needs == "text" and self.data.system is not None:
            raise ValueError("data.system has no effect with objective pretrain; remove it")
        return self

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON; compare resolved recipes only."""
        return hashlib.sha256(orjson.dumps(self.to_dict(), option=orjson.OPT_SORT_KEYS)).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.model_dump(mode="json")
