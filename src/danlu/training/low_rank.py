"""What every method of the LoRA family has: its settings, and how they become PEFT's adapter.

References: Hu et al. 2021, arXiv:2106.09685, eq. 3 (LoRA); Kalajdzievski 2023, arXiv:2312.03732, theorem 3.2 (rsLoRA);
Liu et al. 2024, arXiv:2402.09353, eq. 5 (DoRA); Hayou et al. 2024, arXiv:2402.12354, section 4 (LoRA+).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from danlu.errors import NoEffectError
from danlu.recipe.base import MethodConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class LowRank(MethodConfig):
    """Small low-rank matrices beside frozen weights: h = W0 x + scale B A x."""

    makes_adapter: ClassVar[bool] = True
    rank: int = Field(16, ge=1)
    """Rank of the update. More learns more and costs more memory."""
    alpha: float = Field(32.0, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of inputs dropped during training. Above 0 the fused fast path of these layers is not used."""
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """Names of the linear layers that get an adapter; `all-linear` is all but the output head."""
    layers: list[int] | None = Field(None, min_length=1)
    """Numbers of the layers that get an adapter, from 0; -1 is the last. null for all."""
    rank_pattern: dict[str, int] = {}
    """Another rank for some layers, by the end of their name (a regular expression): `{down_proj: 32}`."""
    alpha_pattern: dict[str, float] = {}
    """Another alpha for some layers, in the same way."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank) instead, so that a higher rank does not learn more slowly (rsLoRA)."""
    use_dora: bool = False
    """Train the length of each weight row apart from its direction (DoRA). Often better at low rank; slower, no fused path."""
    lora_plus_ratio: float = Field(1.0, gt=0)
    """The learning rate of B is this many times that of A (LoRA+; its authors take 16 with a lower learning_rate)."""

    @model_validator(mode="after")
    def _patterns_are_sane(self) -> Self:
        for name, pattern in (("rank_pattern", self.rank_pattern), ("alpha_pattern", self.alpha_pattern)):
            for key, value in pattern.items():
                if value <= 0:
                    raise ValueError(f"{name}.{key}: {value} is not greater than 0")
                try:
                    re.compile(key)
                except re.error as error:
                    raise ValueError(f"{name}: {key!r} is not a regular expression ({error})") from None
        if isinstance(self.target_modules, list) and not self.target_modules:
            raise ValueError("target_modules is empty; use all-linear, or names such as q_proj, v_proj")
        return self

    @property
    def learns_new_tokens(self) -> bool:
        """The rows of new tokens are trained beside the adapter."""
        return True

    def learning_rate_factor(self, parameter: str) -> float:
        """LoRA+: B learns faster than A."""
        return self.lora_plus_ratio if ".lora_B." in parameter else 1.0

    def apply(self, model: PreTrainedModel, *, fused: bool, new_token_ids: Sequence[int] = ()) -> PeftModel:
        """Freeze the model and add the adapter; with `fused`, adapter layers use the fused autograd function."""
        from peft import LoraConfig, get_peft_model

        options = self.peft_options(model, new_token_ids)
        peft_config = LoraConfig(**options)
        if fused and not getattr(model, "is_quantized", False):
            from torch.nn import Linear

            from danlu.training.kernels.lora import FusedLoraLinear

            peft_config._register_custom_module({Linear: FusedLoraLinear})
        return get_peft_model(model, peft_config, autocast_adapter_dtype=True)

    def peft_options(self, model: PreTrainedModel, new_token_ids: Sequence[int]) -> dict[str, Any]:
        """Arguments of PEFT's LoraConfig, after checking that each of them has an effect on this model."""
        from danlu.models import structure

        sizes = structure.linear_sizes(model)
        head = structure.name_of(model, structure.head_of(model))
        inner = [name for name in sizes if name != head]
        targets: str | list[str] = self.target_modules
        if targets == "all-linear" and self.layers is not None:  # PEFT takes the short form for whole models only
            targets = sorted({name.rsplit(".", 1)[-1] for name in inner})
        fix = "use all-linear, or names such as q_proj, v_proj that the model has"
        found = inner if targets == "all-linear" else structure.matching(sizes, targets, setting="method.target_modules", fix=fix)
        layers = self._layers(structure.num_layers(model))
        if layers is not None:
            found = [name for name in found if (number := re.search(r"\.(\d+)\.", name)) and int(number[1]) in layers]
            if isinstance(targets, list):
                structure.matching(found, targets, setting=f"method.target_modules, in the layers {layers},", fix="correct method.layers or the names")
        self._check_patterns(found)
        self._check_ranks({name: sizes[name] for name in found})
        return {
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": targets,
            "layers_to_transform": layers,
            "rank_pattern": dict(self.rank_pattern),
            "alpha_pattern": dict(self.alpha_pattern),
            "use_rslora": self.use_rslora,
            "use_dora": self.use_dora,
            "trainable_token_indices": self._token_rows(model, new_token_ids),
            "fan_in_fan_out": structure.is_transposed(model),
            "bias": "none",
            "task_type": structure.task_type(model),
        }

    def save(self, model: PeftModel, folder: Path) -> None:
        """Write adapter_model.safetensors and adapter_config.json."""
        # Not the whole embedding matrix because it has grown: the rows that were trained are in the adapter.
        model.save_pretrained(folder, save_embedding_layers=False)

    def _layers(self, count: int) -> list[int] | None:
        """`layers` counted from 0."""
        if self.layers is None:
            return None
        if any(not -count <= number < count for number in self.layers):
            raise NoEffectError(
                f"method.layers {self.layers}: the model has no such layer", why=f"it has {count}", fix=f"use 0 to {count - 1}, or -1 for the last"
            )
        return sorted({number % count for number in self.layers})

    def _check_patterns(self, names: Sequence[str]) -> None:
        from danlu.models.structure import pattern_matches

        for setting, pattern in (("rank_pattern", self.rank_pattern), ("alpha_pattern", self.alpha_pattern)):
            for key in pattern:
                if not any(pattern_matches(key, name) for name in names):
                    raise NoEffectError(
                        f"method.{setting}: {key!r} matches no layer that gets an adapter",
                        why=f"these are {', '.join(sorted({name.rsplit('.', 1)[-1] for name in names})[:12])}",
                        fix="correct the name, or remove the entry",
                    )

    def _check_ranks(self, sizes: dict[str, tuple[int, int]]) -> None:
        from danlu.models.structure import pattern_matches

        for name, size in sorted(sizes.items(), key=lambda item: min(item[1])):
            key = next((key for key in self.rank_pattern if pattern_matches(key, name)), None)
            rank, setting = (self.rank, "method.rank") if key is None else (self.rank_pattern[key], f"method.rank_pattern.{key}")
            if rank > min(size):
                raise NoEffectError(
                    f"{setting} {rank} is larger than the smallest matrix of the model ({min(size)})",
                    why=f"a low-rank update of full rank or more wastes memory without learning more; {name} is {size[1]} x {size[0]}",
                    fix=f"set {setting} to {min(size)} or less",
                )

    def _token_rows(self, model: PreTrainedModel, new_token_ids: Sequence[int]) -> dict[str, list[int]] | None:
        """Rows of the embeddings, and of a head of its own, that are trained for new tokens."""
        from danlu.models import structure

        if not new_token_ids:
            return None
        rows = {structure.name_of(model, model.get_input_embeddings()): list(new_token_ids)}
        if structure.is_tied(model):
            return rows
        head = model.get_output_embeddings()
        if getattr(head, "bias", None) is not None:
            raise NoEffectError(
                "data.new_tokens cannot be learnt by this method on this model", why="its output head has a bias, whose rows stay frozen", fix="use method full"
            )
        return rows | {structure.name_of(model, head): list(new_token_ids)}
