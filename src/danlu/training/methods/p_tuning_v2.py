"""P-tuning v2 (deep prefix): trained keys and values before those of each example, in every layer.

Reference: Liu et al. 2022, arXiv:2110.07602, section 3.3; Li & Liang 2021, arXiv:2101.00190, section 4.3 for `projection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from danlu.recipe.base import METHODS, MethodConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@METHODS.register
class PTuningV2(MethodConfig):
    """Train keys and values of virtual tokens in every layer: the strongest of the prompt methods."""

    makes_adapter: ClassVar[bool] = True
    can_merge: ClassVar[bool] = False
    usual_learning_rate: ClassVar[float | None] = 0.03
    type: Literal["p_tuning_v2"] = "p_tuning_v2"
    num_virtual_tokens: int = Field(16, ge=1)
    """Length of the prefix; it takes as many positions of each example."""
    init: Literal["random", "zero"] = "random"
    """Initial keys and values. `zero` starts near the untouched model; `random` starts farther away."""
    projection: bool = False
    """Make keys and values by a trained two-layer network while training; steadier at high learning rates, saved in the same form."""
    projection_hidden_size: int | None = Field(None, ge=1)
    """`projection` only: inner width of the network. null takes the width of all keys of a layer."""

    @model_validator(mode="after")
    def _size_belongs_to_projection(self) -> Self:
        if self.projection_hidden_size is not None and not self.projection:
            raise ValueError("projection_hidden_size has no effect without projection; remove it, or set projection to true")
        return self

    @property
    def num_extra_positions(self) -> int:
        """The length of the prefix."""
        return self.num_virtual_tokens

    def apply(self, model: PreTrainedModel, *, fused: bool, new_token_ids: Sequence[int] = ()) -> PeftModel:
        """Freeze the model and add the prefix."""
        from peft import PrefixTuningConfig, get_peft_model

        config = PrefixTuningConfig(
            num_virtual_tokens=self.num_virtual_tokens,
            prefix_projection=self.projection,
            encoder_hidden_size=self.projection_hidden_size,
            init_weights="zero" if self.init == "zero" else None,
            task_type="CAUSAL_LM",
        )
        return get_peft_model(model, config)

    def save(self, model: PeftModel, folder: Path) -> None:
        """Write keys and values: adapter_model.safetensors and adapter_config.json."""
        model.save_pretrained(folder)
