"""Full fine-tuning: every weight changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from danlu.recipe.base import METHODS, MethodConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@METHODS.register
class Full(MethodConfig):
    """Change every weight. Strongest, needs the most memory, forgets the most."""

    makes_adapter: ClassVar[bool] = False
    can_train_score_head: ClassVar[bool] = True
    type: Literal["full"] = "full"
    init: Literal["pretrained", "random"] = "pretrained"
    """`random` trains a new model from the configuration of `base_model`, with the objective `pretrain`."""

    @property
    def starts_anew(self) -> bool:
        """With `init: random`."""
        return self.init == "random"

    @property
    def learns_new_tokens(self) -> bool:
        """Every row changes."""
        return True

    def apply(self, model: PreTrainedModel, *, fused: bool, new_token_ids: Sequence[int] = ()) -> PreTrainedModel:
        """Make every weight trainable, in float32 (AdamW's small steps are lost in bfloat16 weights)."""
        return model.float().requires_grad_(True)

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Write the whole model as safetensors."""
        model.save_pretrained(folder)
