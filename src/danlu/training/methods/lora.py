"""LoRA: small low-rank matrices beside frozen weights.

Reference: Hu et al. 2021, arXiv:2106.09685, eq. 3: h = W0 x + (alpha / r) B A x. Adapter files and parameter
names are PEFT's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from danlu.errors import NoEffectError
from danlu.recipe.base import METHODS, MethodConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@METHODS.register
class LoRA(MethodConfig):
    """Train small low-rank matrices beside the frozen base model."""

    makes_adapter: ClassVar[bool] = True
    type: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1)
    """Rank of the update. More learns more and costs more memory."""
    alpha: float = Field(32.0, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of inputs dropped during training. Above 0 the fused fast path of these layers is not used."""
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """Names of the linear layers that get an adapter; `all-linear` is all but the output head."""

    def apply(self, model: PreTrainedModel, *, fused: bool) -> PeftModel:
        """Freeze the model and add the adapter; with `fused`, adapter layers use the fused autograd function."""
        from peft import LoraConfig, get_peft_model

        smallest = min((min(p.shape) for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n), default=0)
        if smallest and self.rank > smallest:
            raise NoEffectError(
                f"method.rank {self.rank} is larger than the smallest matrix of the model ({smallest})",
                why="a low-rank update of full rank or more wastes memory without learning more",
                fix=f"set method.rank to {smallest} or less",
            )
        is_transposed = any(type(module).__name__ == "Conv1D" for module in model.modules())  # GPT-2 stores its weights the other way round
        peft_config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.target_modules,
            fan_in_fan_out=is_transposed,
            bias="none",
            task_type="CAUSAL_LM",
        )
        if fused and not getattr(model, "is_quantized", False):
            from torch.nn import Linear

            from danlu.training.kernels.lora import FusedLoraLinear

            peft_config._register_custom_module({Linear: FusedLoraLinear})
        try:
            peft_model = get_peft_model(model, peft_config, autocast_adapter_dtype=True)
        except ValueError as error:
            raise NoEffectError(
                f"method.target_modules {self.target_modules} names no layer of this model",
                why=str(error).splitlines()[0],
                fix="use all-linear, or names such as q_proj, v_proj that the model has",
            ) from error
        return peft_model

    def save(self, model: PeftModel, folder: Path) -> None:
        """Write adapter_model.safetensors and adapter_config.json."""
        model.save_pretrained(folder)
