"""P-tuning: virtual tokens before each example that a small trained network makes.

Reference: Liu et al. 2021, arXiv:2103.10385, section 2.3: the prompt encoder is a bidirectional LSTM and an MLP, or an MLP alone. It is
needed while training only: what is saved are the virtual tokens it made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from danlu.recipe.base import METHODS, MethodConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@METHODS.register
class PTuning(MethodConfig):
    """Train a small network that makes virtual tokens before each example: steadier than `prompt_tuning`, saved as small."""

    makes_adapter: ClassVar[bool] = True
    can_merge: ClassVar[bool] = False
    usual_learning_rate: ClassVar[float | None] = 1e-3
    type: Literal["p_tuning"] = "p_tuning"
    num_virtual_tokens: int = Field(16, ge=1)
    """Number of virtual tokens; they take as many positions of each example."""
    encoder: Literal["mlp", "lstm"] = "mlp"
    """The network that makes them: three linear layers, or an LSTM and two."""
    encoder_hidden_size: int | None = Field(None, ge=1)
    """Its inner width; null takes the model's."""
    encoder_num_layers: int | None = Field(None, ge=1)
    """`encoder: lstm` only: layers of the LSTM. null takes 2."""

    @model_validator(mode="after")
    def _layers_belong_to_lstm(self) -> Self:
        if self.encoder_num_layers is not None and self.encoder != "lstm":
            raise ValueError("encoder_num_layers has no effect with encoder mlp; remove it, or set encoder to lstm")
        return self

    @property
    def num_extra_positions(self) -> int:
        """The number of virtual tokens."""
        return self.num_virtual_tokens

    def apply(self, model: PreTrainedModel, *, fused: bool, new_token_ids: Sequence[int] = ()) -> PeftModel:
        """Freeze the model and add the prompt encoder."""
        from peft import PromptEncoderConfig, get_peft_model

        options: dict[str, Any] = {"encoder_num_layers": self.encoder_num_layers or 2} if self.encoder == "lstm" else {}
        config = PromptEncoderConfig(
            num_virtual_tokens=self.num_virtual_tokens,
            encoder_reparameterization_type=self.encoder.upper(),
            encoder_hidden_size=self.encoder_hidden_size,
            encoder_dropout=0.0,
            task_type="CAUSAL_LM",
            **options,
        )
        return get_peft_model(model, config)

    def save(self, model: PeftModel, folder: Path) -> None:
        """Write the virtual tokens: adapter_model.safetensors and adapter_config.json."""
        model.save_pretrained(folder)
