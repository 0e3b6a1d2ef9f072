"""Prompt tuning: trained embeddings before each example, nothing else.

Reference: Lester et al. 2021, arXiv:2104.08691, section 2; initial values as in its section 3.2.
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
class PromptTuning(MethodConfig):
    """Train virtual tokens that stand before each example. A few kilobytes; needs a large model and a high learning rate (about 0.01 to 0.3)."""

    makes_adapter: ClassVar[bool] = True
    can_merge: ClassVar[bool] = False
    usual_learning_rate: ClassVar[float | None] = 0.05
    type: Literal["prompt_tuning"] = "prompt_tuning"
    num_virtual_tokens: int = Field(16, ge=1)
    """Length of the trained prompt; it takes as many positions of each example."""
    init: Literal["vocabulary", "random", "text"] = "vocabulary"
    """Where the prompt starts: embeddings of tokens drawn from the vocabulary, random values, or the embeddings of `init_text`."""
    init_text: str | None = Field(None, min_length=1)
    """`init: text` only: text the prompt starts from, repeated or cut to its length."""

    @model_validator(mode="after")
    def _text_belongs_to_init(self) -> Self:
        if (self.init == "text") != (self.init_text is not None):
            raise ValueError("init text needs init_text" if self.init == "text" else f"init_text has no effect with init {self.init}; set init to text")
        return self

    @property
    def num_extra_positions(self) -> int:
        """The length of the prompt."""
        return self.num_virtual_tokens

    def apply(self, model: PreTrainedModel, *, fused: bool, new_token_ids: Sequence[int] = ()) -> PeftModel:
        """Freeze the model and add the prompt."""
        from peft import PromptTuningConfig, get_peft_model
        from peft.tuners.prompt_tuning.config import PromptTuningInit

        options: dict[str, Any] = {"prompt_tuning_init": {"vocabulary": "SAMPLE_VOCAB", "random": "RANDOM", "text": "TEXT"}[self.init]}
        if self.init == "text":
            options |= {"prompt_tuning_init_text": self.init_text, "tokenizer_name_or_path": model.name_or_path}
        peft_model = get_peft_model(model, PromptTuningConfig(num_virtual_tokens=self.num_virtual_tokens, task_type="CAUSAL_LM", **options))
        # The start has been made; a folder of this machine is nobody else's to look for a tokenizer in.
        config = peft_model.peft_config["default"]
        config.prompt_tuning_init, config.prompt_tuning_init_text, config.tokenizer_name_or_path = PromptTuningInit.RANDOM, None, None
        return peft_model

    def save(self, model: PeftModel, folder: Path) -> None:
        """Write adapter_model.safetensors and adapter_config.json."""
        model.save_pretrained(folder)
