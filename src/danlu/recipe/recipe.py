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

    optimizer: Literal["adamw", "adamw_8bit", "adafactor", "lion", "muon"] = "adamw"
    """`adamw`; `adamw_8bit` keeps its two moments in 8 bits; `adafactor` keeps one row and one column per matrix; `lion` keeps one
    moment and wants a 3 to 10 times smaller learning rate; `muon` for 2-D weights with adamw for the rest (methods `full` and `freeze`)."""
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
    scheduler: Literal["cosine", "linear", "constant", "polynomial", "inverse_sqrt", "wsd", "cosine_restarts"] = "cosine"
    """How the learning rate goes on after warm-up; all but `constant` and `inverse_sqrt` end at `min_learning_rate_ratio` of the peak.
    `wsd` (warm-up, stable, decay) stays at the peak and falls at the end."""
    scheduler_power: float | None = Field(None, gt=0)
    """`polynomial` only: power of the share of steps that is left. null takes 2."""
    scheduler_cycles: int | None = Field(None, ge=1)
    """`cosine_restarts` only: number of equally long falls. null takes 2."""
    scheduler_decay_ratio: float | None = Field(None, gt=0, le=1)
    """`wsd` only: share of all steps over which the learning rate falls at the end. null takes 0.2."""
    min_learning_rate_ratio: float = Field(0.0, ge=0, le=1)
    """Last learning rate as a share of the peak."""
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] | Auto = 0.03
    """Share of all steps over which the learning rate rises from zero; `auto` takes about ten steps."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay on matrices (never on norms and biases)."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the first moment."""
    beta2: float | None = Field(None, ge=0, lt=1)
    """Decay of the second moment; of `lion`, of its only moment. null takes 0.999 (`lion`: 0.99)."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients longer than this are scaled down to it."""
    neftune_alpha: float | None = Field(None, gt=0)
    """Add uniform noise to the token embeddings during training, of size alpha / sqrt(tokens x width); 5 is usual. null for none."""

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

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        for name, scheduler in (("scheduler_power", "polynomial"), ("scheduler_cycles", "cosine_restarts"), ("scheduler_decay_ratio", "wsd")):
            if getattr(self, name) is not None and self.scheduler != scheduler:
                raise ValueError(f"{name} has no effect with scheduler {self.scheduler}; remove it, or set scheduler to {scheduler}")
        if self.min_learning_rate_ratio and self.scheduler in ("constant", "inverse_sqrt"):
            raise ValueError(f"min_learning_rate_ratio has no effect with scheduler {self.scheduler}; remove it")
        if self.scheduler == "inverse_sqrt" and not self.warmup_ratio:
            raise ValueError("scheduler inverse_sqrt falls with the number of warm-up steps; set warmup_ratio above 0")
        if self.scheduler == "wsd" and self.warmup_ratio != "auto" and self.warmup_ratio + self.decay_ratio > 1:
            raise ValueError(f"warmup_ratio {self.warmup_ratio} and scheduler_decay_ratio {self.decay_ratio} are more than all steps; lower one of them")
        if self.optimizer == "adafactor" and (self.beta1 != OptimConfig.model_fields["beta1"].default or self.beta2 is not None):
            raise ValueError("beta1 and beta2 have no effect with adafactor (no first moment; its second moment's decay is 1 - step^-0.8); remove them")
        return self

    @property
    def betas(self) -> tuple[float, float]:
        """`beta1` and `beta2` with the optimizer's own where nothing is set."""
        return self.beta1, self.beta2 if self.beta2 is not None else 0.99 if self.optimizer == "lion" else 0.999

    @property
    def learning_rate_factor(self) -> float:
        """What the optimizer's learning rate is of AdamW's: every step of Lion is as long as its learning rate (Chen et al. 2023, section 5)."""
        return 0.2 if self.optimizer == "lion" else 1.0

    @property
    def decay_ratio(self) -> float:
        """Share of all steps over which `wsd` falls."""
        return 0.2 if self.scheduler_decay_ratio is None else self.scheduler_decay_ratio


class SplitConfig(StrictModel):
    """What is held out: what the data says itself, else shares of the examples; the rest is trained on."""

    validation: float = Field(0.1, ge=0, lt=1)
    """Share watched during training (early stopping, best checkpoint)."""
    test: float = Field(0.1, ge=0, lt=1)
    """Share never seen before the final proof."""
    max_examples: int | None = Field(2000, ge=1)
    """Most examples in each held-out split; of a large dataset the rest is better trained on. null for no limit."""
    column: str | None = Field(None, min_length=1)
    """Column of the data that says of each row where it belongs: train, validation (also valid, val, dev, eval) or test. A split that no row
    names is drawn by its share."""
    validation_dataset: str | None = Field(None, min_length=1)
    """A data file, or dataset, that is the validation split, whole; its share is not drawn then."""
    test_dataset: str | None = Field(None, min_length=1)
    """A data file, or dataset, that is the test split, whole; its share is not drawn then."""

    @property
    def datasets(self) -> dict[str, str]:
        """The data of the splits that have some of their own, by split."""
        own = {"validation": self.validation_dataset, "test": self.test_dataset}
        return {split: name for split, name in own.items() if name is not None}

    @property
    def has_validation(self) -> bool:
        """Whether there can be a validation split."""
        return bool(self.validation or self.column or self.validation_dataset)

    @property
    def is_given(self) -> bool:
        """Whether the data says itself what is held out, or some of it."""
        return bool(self.column or self.datasets)

    @model_validator(mode="after")
    def _leaves_something_to_train(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} + test {self.test} leave nothing to train on")
        return self

    @model_validator(mode="after")
    def _given_splits_are_not_drawn(self) -> Self:
        for split in self.datasets:
            if self.column is not None:
                raise ValueError(f"{split}_dataset and column both say what is in the {split} split; remove one of them")
            if getattr(self, split) != SplitConfig.model_fields[split].default:
                raise ValueError(f"{split} {getattr(self, split):g} has no effect with {split}_dataset; remove one of them")
        if len(self.datasets) == 2 and self.max_examples != SplitConfig.model_fields["max_examples"].default:
            raise ValueError("max_examples has no effect when validation_dataset and test_dataset are given: they are taken whole; remove it")
        if len(set(self.datasets.values())) < len(self.datasets):
            raise ValueError(f"validation_dataset and test_dataset are both {self.test_dataset}; give two different ones")
        return self


class ReplayConfig(StrictModel):
    """Training rows of an earlier round, trained on again so that they are not forgotten."""

    run: str = Field(min_length=1)
    """The earlier run: its id or folder. What it held out is never trained on."""
    share: float = Field(0.2, gt=0, le=10)
    """How many of its training rows are added, as a share of the new training examples."""


class DataConfig(StrictModel):
    """How the rows of the file become training examples."""

    format: Annotated[SerializeAsAny[FormatConfig], FORMATS] | Auto = "auto"
    """The dataset format; `auto` tells it from the content."""
    split: SplitConfig = SplitConfig()
    """What is held out for validation and test: shares, or what the data says itself."""
    mix: dict[str, float] = {}
    """Other datasets mixed into training, as a share of the training examples, e.g. `{general: 0.1}`."""
    replay: ReplayConfig | None = None
    """Rows of an earlier round mixed into training, e.g. `{run: my-run, share: 0.2}`."""
    max_seq_len: Annotated[int, Field(ge=16)] | Auto = "auto"
    """Most tokens per example; longer ones are shortened by `truncation`, counted and listed."""
    truncation: Literal["oldest_turns", "drop"] = "oldest_turns"
    """`oldest_turns` removes the oldest exchanges, then the middle of the prompt; `drop` leaves the example out."""
    near_duplicates: Literal["drop", "keep_together"] = "keep_together"
    """`drop` keeps one of each group of near duplicates; either way a group never straddles the splits."""
    system: str | None = None
    """System message put before every example that has none."""
    new_tokens: list[Annotated[str, Field(min_length=1)]] = []
    """Tokens added to the tokenizer and learnt, e.g. `["<step>", "</step>"]`; their embeddings start at the mean of all others.
    For methods full, freeze (with train_embeddings) and the LoRA family."""

    @field_validator("mix")
    @classmethod
    def _shares_are_sane(cls, mix: dict[str, float]) -> dict[str, float]:
        for name, share in mix.items():
            if not 0 < share <= 10:
                raise ValueError(f"mix.{name}: {share} is not a share greater than 0 and at most 10")
        return mix

    @field_validator("new_tokens")
    @classmethod
    def _new_tokens_are_tokens(cls, tokens: list[str]) -> list[str]:
        for token in tokens:
            if tokens.count(token) > 1:
                raise ValueError(f"{token!r} is listed twice")
            if token != token.strip():
                raise ValueError(f"{token!r} begins or ends with white space, which tokenizers remove; write it without")
        return tokens


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
    early_stopping_patience: Annotated[int, Field(ge=1)] | Auto | None = "auto"
    """Stop after this many validations without improvement; `auto` takes 3 where there is a validation split, null never stops early."""
    keep_best: bool = True
    """End with the weights of the best validation instead of the last step (needs a validation split)."""
    best_by: str = Field("loss", min_length=1)
    """What tells the best validation, for kept weights and early stopping: `loss`; a number of the objective (`reward_accuracy` of `dpo`); with
    `sft` a metric of generated text (`rouge_l`): the first 32 validation rows are answered each time, up to `evaluation.max_new_tokens`."""
    sample_every_steps: Annotated[int, Field(ge=1)] | Auto | None = "auto"
    """Steps between samples: answers to a few fixed prompts, kept as events. `auto` gives about five rounds; null for none."""
    sample_prompts: list[Annotated[str, Field(min_length=1)]] = Field(default=[], max_length=16)
    """Prompts of the samples; empty takes the first three of the validation split."""
    sample_max_new_tokens: int = Field(48, ge=1, le=4096)
    """Longest answer of a sample."""
    sample_time_share: float = Field(0.05, gt=0, le=1000)
    """Most time that samples may take, as a share of the training time; rounds that do not fit are left out, and that is said."""

    @model_validator(mode="after")
    def _sample_prompts_are_used(self) -> Self:
        if self.sample_every_steps is None and self.sample_prompts:
            raise ValueError("sample_prompts has no effect when sample_every_steps is null; remove one of them")
        return self


class EvaluationConfig(StrictModel):
    """How the result is proved."""

    suites: list[Annotated[SerializeAsAny[SuiteConfig], SUITES]] = Field(default=["heldout", "retention"], validate_default=True)
    """What is measured before and after; when it is not given, what the objective is for (sft: `heldout` and `retention`)."""
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
    """What is learnt: `sft` (answers in conversations), `pretrain` (plain text), `dpo`, `orpo`, `simpo`, `kto` (preferences), `reward`, `grpo`."""
    method: Annotated[SerializeAsAny[MethodConfig], METHODS] = Field("lora", validate_default=True)
    """Which weights change: `lora`, `qlora`, `full`, or any other method of the list below."""
    start_from: str | None = Field(None, min_length=1)
    """A finished run (id or folder) or an adapter folder whose weights training starts from, over the same base model and with the same method."""
    optim: OptimConfig = Field(default_factory=OptimConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    export: list[Annotated[SerializeAsAny[ExporterConfig], EXPORTERS]] = []
    """What is exported at the end of the run; more can be made later with `danlu export`."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seeds the split, the order, dropout and the bootstrap."""

    @model_validator(mode="before")
    @classmethod
    def _suites_of_the_objective(cls, values: Any) -> Any:
        """Where the recipe does not say what is measured, the objective does."""
        evaluation = values.get("evaluation", {}) if isinstance(values, dict) else None
        if not isinstance(evaluation, dict) or "suites" in evaluation:
            return values
        try:
            objective = OBJECTIVES.parse(values.get("objective", "sft"))
        except ValueError:  # it is reported at its own place
            return values
        return {**values, "evaluation": {**evaluation, "suites": list(objective.suites)}}

    @model_validator(mode="after")
    def _suites_fit(self) -> Self:
        for suite in self.evaluation.suites:
            if self.objective.needs not in suite.kinds or (self.objective.makes_reward_model and not suite.takes_reward_models):
                fits = ", ".join(self.objective.suites)
                raise ValueError(f"evaluation.suites: {suite.type} cannot be measured with objective {self.objective.type}; remove it, or use: {fits}")
        return self

    @model_validator(mode="after")
    def _held_out_data_is_other_data(self) -> Self:
        for split, name in self.data.split.datasets.items():
            if name == self.dataset or name in self.data.mix:
                raise ValueError(f"data.split.{split}_dataset {name} is trained on as well; give other data")
        return self

    @model_validator(mode="after")
    def _combinations_work(self) -> Self:
        if self.optim.optimizer == "muon" and self.method.makes_adapter:
            raise ValueError("optim.optimizer muon is for methods full and freeze; use adamw with adapters")
        self._int8_has_frozen_weights()
        if self.data.new_tokens and not self.method.learns_new_tokens:
            raise ValueError(f"data.new_tokens would not be learnt by method {self.method.type}; use lora, full, or freeze with train_embeddings")
        merged = [exporter.type for exporter in self.export if exporter.type == "merged"]
        if merged and self.method.makes_adapter and not self.method.can_merge:
            raise ValueError(f"export merged is not possible after method {self.method.type}: virtual tokens are no weights of the model; use export adapter")
        if self.start_from and self.method.starts_anew:
            raise ValueError("start_from has no effect with method.init random; remove one of them")
        if any(suite.type == "rounds" for suite in self.evaluation.suites) and not self.start_from:
            raise ValueError("evaluation.suites: rounds compares with the run in start_from; give it, or remove the suite")
        if self.objective.makes_reward_model and not self.method.can_train_score_head:
            raise ValueError(f"objective {self.objective.type} trains a new head, which method {self.method.type} does not; use method lora or full")
        if self.objective.makes_reward_model and (self.data.new_tokens or self.optim.neftune_alpha is not None or self.training.sample_prompts):
            raise ValueError(f"data.new_tokens, optim.neftune_alpha and training.sample_prompts do not go with objective {self.objective.type}; remove them")
        if self.objective.needs != "text" and self.method.starts_anew and self.objective.type != "sft":
            raise ValueError(f"method.init random has no model that objective {self.objective.type} could start from; use init pretrained")
        if isinstance(self.training.early_stopping_patience, int) and not self.data.split.has_validation:
            raise ValueError("training.early_stopping_patience has no effect without a validation split; remove it, or set data.split.validation above 0")
        if isinstance(self.data.max_seq_len, int) and self.data.max_seq_len <= self.objective.reserved_tokens:
            raise ValueError(
                f"data.max_seq_len {self.data.max_seq_len} leaves no room for a prompt beside objective.max_completion_tokens "
                f"{self.objective.reserved_tokens}; raise the first or lower the second"
            )
        if self.objective.needs == "text" and self.data.system is not None:
            raise ValueError("data.system has no effect with objective pretrain; remove it")
        return self

    @model_validator(mode="after")
    def _best_can_be_told(self) -> Self:
        name, training = self.training.best_by, self.training
        if name == "loss":
            return self
        fits = ["loss", *self.objective.validation_numbers, *(METRICS if self.objective.needs == "messages" else ())]
        if name not in fits:
            raise ValueError(f"training.best_by {name} is not measured with objective {self.objective.type}; use {', '.join(fits)}")
        if not self.data.split.has_validation:
            raise ValueError("training.best_by has no effect without a validation split; remove it, or set data.split.validation above 0")
        if not training.keep_best and training.early_stopping_patience is None:
            raise ValueError("training.best_by has no effect when keep_best is false and early_stopping_patience is null; remove it, or change one of them")
        return self

    @property
    def scores_answers(self) -> bool:
        """Whether a metric of generated text tells the best validation."""
        return self.training.best_by not in ("loss", *self.objective.validation_numbers)

    def _int8_has_frozen_weights(self) -> None:
        if self.training.compute != "int8":
            return
        reasons = {
            "training.path reference computes with stock layers": self.training.path == "reference",
            f"method {self.method.type} computes with the weights themselves": self.method.type != "lora" or getattr(self.method, "use_dora", False),
            f"objective {self.objective.type} compares with the exact base model": self.objective.has_reference,
        }
        found = [reason for reason, is_true in reasons.items() if is_true]
        if found:
            raise ValueError(f"training.compute int8 is for plain lora on the fast path, and {found[0]}; remove training.compute")

    @property
    def holds_reference_model(self) -> bool:
        """Whether a second model is held that says what the first one was before training: an online loss asks it about every new answer."""
        has_divergence = self.objective.is_online and bool(getattr(self.objective, "beta", 0.0))
        return has_divergence and (self.method.moves_base or self.start_from is not None)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON; compare resolved recipes only."""
        return hashlib.sha256(orjson.dumps(self.to_dict(), option=orjson.OPT_SORT_KEYS)).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.model_dump(mode="json")
