"""LoRA with some modules trained whole, as for a new language (embeddings) or a new style of output (head).

Reference: Hu et al. 2021, arXiv:2106.09685, eq. 3, for the adapters; PEFT's `modules_to_save` for the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from danlu.errors import NoEffectError
from danlu.recipe.base import METHODS
from danlu.training.low_rank import LowRank

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@METHODS.register
class LoRAPlusFull(LowRank):
    """Low-rank adapters, and the named modules trained and saved whole beside them."""

    type: Literal["lora_plus_full"] = "lora_plus_full"
    modules_to_save: list[str] = Field(["embed_tokens", "lm_head"], min_length=1)
    """Modules that are trained whole, by the end of their names: `[embed_tokens, lm_head]`, `[norm]` for every norm, `[model.norm]` for the last."""

    def peft_options(self, model: PreTrainedModel, new_token_ids: Sequence[int]) -> dict[str, Any]:
        """With the modules trained whole; embeddings and head that are one matrix stay one."""
        from torch.nn import ModuleList

        from danlu.models import structure

        names = [name for name, module in model.named_modules() if name and not isinstance(module, ModuleList)]
        found = {name for key in self.modules_to_save for name in names if name.endswith(key)}
        for key in self.modules_to_save:
            if not any(name.endswith(key) for name in names):
                raise NoEffectError(
                    f"method.modules_to_save names no module of this model: {key}",
                    why=f"it has {', '.join(sorted({name.rsplit('.', 1)[-1] for name in names if not name[-1].isdigit()})[:16])}",
                    fix="use the end of a module's name, such as embed_tokens, lm_head, norm",
                )
        options = super().peft_options(model, new_token_ids)
        ends = {structure.name_of(model, model.get_input_embeddings()), structure.name_of(model, model.get_output_embeddings())}
        if options["trainable_token_indices"]:
            rows = {name: ids for name, ids in options["trainable_token_indices"].items() if name not in found}
            if structure.is_tied(model) and found & ends:
                rows = {}
            options["trainable_token_indices"] = rows or None
        if isinstance(self.target_modules, list) and not set(self.target_modules).isdisjoint(self.modules_to_save):
            both = sorted(set(self.target_modules) & set(self.modules_to_save))
            raise NoEffectError(f"method.target_modules: {both[0]} gets no adapter", why="method.modules_to_save trains it whole", fix="name it once")
        return options | {"modules_to_save": list(self.modules_to_save), "ensure_weight_tying": structure.is_tied(model) and bool(found & ends)}
