"""LoRA: small low-rank matrices beside frozen weights.

References: those of `danlu.training.low_rank`; Meng et al. 2024, arXiv:2404.02948, eq. 2-4 (PiSSA). Adapter files and
parameter names are PEFT's own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import model_validator

from danlu.recipe.base import METHODS
from danlu.training.low_rank import LowRank

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel


@METHODS.register
class LoRA(LowRank):
    """Train small low-rank matrices beside the frozen base model."""

    can_train_score_head: ClassVar[bool] = True
    type: Literal["lora"] = "lora"
    init: Literal["default", "pissa", "pissa_niter_16"] = "default"
    """`default`: B is zero. `pissa`: A and B start as the principal part of each weight, which learns faster; `pissa_niter_16` finds it
    approximately, in seconds instead of minutes on large models. The adapter is saved as ordinary LoRA of twice the rank."""

    @property
    def moves_base(self) -> bool:
        """PiSSA takes its start out of the base weights."""
        return self.init != "default"

    @model_validator(mode="after")
    def _init_fits(self) -> Self:
        if self.init != "default" and self.use_dora:
            raise ValueError("init pissa and use_dora exclude each other: the length of W + BA is no low-rank update; choose one of them")
        return self

    def apply(self, model: PreTrainedModel, *, fused: bool, new_token_ids: Sequence[int] = ()) -> PeftModel:
        """Freeze the model and add the adapter; PiSSA takes its start away from the base weights, so that nothing changes yet."""
        peft_model = super().apply(model, fused=fused, new_token_ids=new_token_ids)
        if self.init != "default":
            # What the base weights lack now; needed to write an adapter for the untouched base model.
            peft_model.initial_adapter = {name: p.detach().clone() for name, p in peft_model.named_parameters() if ".lora_A." in name or ".lora_B." in name}
        return peft_model

    def peft_options(self, model: PreTrainedModel, new_token_ids: Sequence[int]) -> dict[str, Any]:
        """With PiSSA's initial values."""
        return super().peft_options(model, new_token_ids) | {"init_lora_weights": True if self.init == "default" else self.init}

    def save(self, model: PeftModel, folder: Path) -> None:
        """Write adapter_model.safetensors and adapter_config.json."""
        super().save(model, folder)
        if self.init != "default":
            _write_difference(model, folder, sqrt_scale=self.use_rslora)


def _write_difference(model: PeftModel, folder: Path, *, sqrt_scale: bool) -> None:
    """Replace the adapter by one for the untouched base model: B A - B0 A0 = [B, -B0] [A; A0], of twice the rank at the same scale."""
    import torch
    from safetensors.torch import load_file, save_file

    initial: dict[str, Tensor] = {name.replace(".default.", "."): value.cpu() for name, value in model.initial_adapter.items()}
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    for name, before in initial.items():
        parts = [tensors[name], before] if ".lora_A." in name else [tensors[name], -before]
        tensors[name] = torch.cat(parts, 0 if ".lora_A." in name else 1).contiguous()
    save_file(tensors, path, metadata={"format": "pt"})
    config = copy.deepcopy(model.peft_config["default"])
    alpha_factor = 2**0.5 if sqrt_scale else 2
    config.inference_mode, config.init_lora_weights = True, True
    config.r, config.lora_alpha = 2 * config.r, alpha_factor * config.lora_alpha
    config.rank_pattern = {key: 2 * rank for key, rank in config.rank_pattern.items()}
    config.alpha_pattern = {key: alpha_factor * alpha for key, alpha in config.alpha_pattern.items()}
    config.save_pretrained(folder)
