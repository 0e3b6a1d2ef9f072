"""Freeze: the last layers change, the others stay as they are.

Reference: Howard & Ruder 2018, arXiv:1801.06146, section 3.3 (the last layers hold the least general knowledge); here a
fixed number of them, without gradual unfreezing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from danlu.errors import NoEffectError
from danlu.recipe.base import METHODS, MethodConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@METHODS.register
class Freeze(MethodConfig):
    """Change the last layers only, as whole matrices. Between `lora` and `full` in strength and memory."""

    makes_adapter: ClassVar[bool] = False
    type: Literal["freeze"] = "freeze"
    num_layers: int = Field(2, ge=1)
    """Number of layers that change, counted from the last."""
    train_embeddings: bool = False
    """Change the token embeddings as well."""
    train_head: bool = False
    """Change the output head and the norm before it as well."""

    @property
    def learns_new_tokens(self) -> bool:
        """Only where the embeddings change."""
        return self.train_embeddings

    def apply(self, model: PreTrainedModel, *, fused: bool, new_token_ids: Sequence[int] = ()) -> PreTrainedModel:
        """Make the last layers trainable, in float32 (AdamW's small steps are lost in bfloat16 weights)."""
        from danlu.models import structure

        layers = structure.layers_of(model)
        if self.num_layers >= len(layers):
            raise NoEffectError(
                f"method.num_layers {self.num_layers} leaves no layer frozen",
                why=f"the model has {len(layers)} layers",
                fix=f"set it to {max(1, len(layers) - 1)} or less, or use method full",
            )
        if structure.is_tied(model) and self.train_embeddings != self.train_head:
            raise NoEffectError(
                "method.train_embeddings and method.train_head differ",
                why="the head of this model is its embedding matrix: both change or none",
                fix="set both to true, or both to false",
            )
        if new_token_ids and not self.train_head:
            raise NoEffectError(
                "data.new_tokens could be read but never be said", why="their rows in the head stay frozen", fix="set method.train_head to true"
            )
        model.float().requires_grad_(False)
        for layer in layers[-self.num_layers :]:
            layer.requires_grad_(True)
        if self.train_embeddings:
            model.get_input_embeddings().requires_grad_(True)
        if self.train_head:
            model.get_output_embeddings().requires_grad_(True)
            for name, parameter in model.get_decoder().named_parameters():
                if "." in name and name.split(".")[0].endswith(("norm", "ln_f", "layernorm")):
                    parameter.requires_grad_(True)
        return model

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Write the whole model as safetensors."""
        model.save_pretrained(folder)
