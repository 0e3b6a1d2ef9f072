"""(IA)^3: one trained factor for each key, each value and each feed-forward unit.

Reference: Liu et al. 2022, arXiv:2205.05638, section 3.3: l_k * K, l_v * V, and l_ff * the feed-forward activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from danlu.errors import NoEffectError
from danlu.recipe.base import METHODS, MethodConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

USUAL = (("k_proj", "v_proj"), ("down_proj",))
"""Keys and values, and the layer whose input is the feed-forward activation, in models built like Llama."""


@METHODS.register
class IA3(MethodConfig):
    """Scale keys, values and feed-forward activations by trained factors: the fewest weights of all methods."""

    makes_adapter: ClassVar[bool] = True
    usual_learning_rate: ClassVar[float | None] = 0.01
    type: Literal["ia3"] = "ia3"
    target_modules: Literal["auto"] | list[str] = "auto"
    """Linear layers that are scaled; `auto` takes keys, values and the last feed-forward layer."""
    feedforward_modules: Literal["auto"] | list[str] = "auto"
    """Those of them whose input is scaled instead of their output. Name both lists or none."""

    @model_validator(mode="after")
    def _lists_fit(self) -> Self:
        if (self.target_modules == "auto") != (self.feedforward_modules == "auto"):
            raise ValueError("target_modules and feedforward_modules belong together: name both, or leave both auto")
        missing = set(self.feedforward_modules) - set(self.target_modules) if self.target_modules != "auto" else set()
        if missing:
            raise ValueError(f"feedforward_modules: {sorted(missing)[0]} is not among target_modules; add it there")
        if self.target_modules == []:
            raise ValueError("target_modules is empty; leave it auto")
        return self

    def apply(self, model: PreTrainedModel, *, fused: bool, new_token_ids: Sequence[int] = ()) -> PeftModel:
        """Freeze the model and add the factors, all one."""
        from peft import IA3Config, get_peft_model

        from danlu.models import structure

        names = structure.linear_sizes(model)
        targets, feedforward = self._modules(model, {name.rsplit(".", 1)[-1] for name in names})
        structure.matching(names, targets, setting="method.target_modules", fix="use names such as k_proj, v_proj, down_proj that the model has")
        config = IA3Config(target_modules=targets, feedforward_modules=feedforward, fan_in_fan_out=structure.is_transposed(model), task_type="CAUSAL_LM")
        return get_peft_model(model, config)

    def _modules(self, model: PreTrainedModel, present: set[str]) -> tuple[list[str], list[str]]:
        """Target and feed-forward modules: as set, those of models like Llama, or those PEFT knows for the family."""
        if self.target_modules != "auto":
            return list(self.target_modules), list(self.feedforward_modules)
        if present.issuperset(USUAL[0] + USUAL[1]):
            return [*USUAL[0], *USUAL[1]], list(USUAL[1])
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING, TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING

        family = model.config.model_type
        if family not in TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING:
            raise NoEffectError(
                f"method.target_modules auto is not known for {family} models",
                why=f"they have no k_proj, v_proj and down_proj, but {', '.join(sorted(present)[:12])}",
                fix="name method.target_modules and method.feedforward_modules",
            )
        return TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING[family], TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING[family]

    def save(self, model: PeftModel, folder: Path) -> None:
        """Write adapter_model.safetensors and adapter_config.json."""
        model.save_pretrained(folder)
