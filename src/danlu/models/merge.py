"""Several adapters over one base model: all active at once (stacked), or made into one by a weighted formula.

References: Yadav et al. 2023, arXiv:2306.01708, algorithm 1 (TIES); Yu et al. 2024, arXiv:2311.03099, eq. 2-4 (DARE).
The arithmetic is PEFT's, on the changes B A of the weights and not on their factors: a weighted sum of the
factors alone would multiply each adapter's B with the others' A.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from danlu.errors import NoEffectError
from danlu.models import safety
from danlu.models.pair import load_adapter

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

HOW: Mapping[str, str] = MappingProxyType({"linear": "cat", "svd": "svd", "ties": "ties_svd", "dare_linear": "dare_linear_svd", "dare_ties": "dare_ties_svd"})
"""Our names and PEFT's. `linear` is exact and its rank the sum of all ranks; the others are brought down to one rank by SVD."""


def add_adapters(model: PeftModel, folders: Sequence[Path]) -> list[str]:
    """Load more LoRA adapters beside `default` and make all of them active; return their names.

    Raises:
        NoEffectError: an adapter is none that can be added to another one.
    """
    names = ["default", *(f"part{number}" for number in range(1, len(folders) + 1))]
    for name, folder in zip(names[1:], folders, strict=True):
        safety.check_adapter(folder)
        model.load_adapter(folder, adapter_name=name, local_files_only=True)
    for name in names:
        _check_plain(model.peft_config[name], name)
    model.base_model.set_adapter(names)
    model.requires_grad_(False)
    return names


def _check_plain(config: Any, name: str) -> None:
    kind = getattr(config.peft_type, "value", config.peft_type)
    odd = next((setting for setting in ("use_dora", "modules_to_save", "trainable_token_indices") if getattr(config, setting, None)), None)
    if kind != "LORA" or odd:
        raise NoEffectError(
            f"adapter {name} cannot be combined with others",
            why=f"it is of kind {kind}{f' with {odd}' if odd else ''}; only changes of weights can be added up",
            fix="combine plain LoRA adapters (methods lora and qlora without use_dora and new tokens)",
        )


def stacked(model: PreTrainedModel, folders: Sequence[Path], weights: Sequence[float]) -> PeftModel:
    """The model with every adapter active, its change of the weights multiplied by its weight."""
    from peft.tuners.lora import LoraLayer

    peft_model: Any = load_adapter(model, folders[0])
    names = add_adapters(peft_model, folders[1:])
    for module in peft_model.modules():
        if isinstance(module, LoraLayer):
            for name, weight in zip(names, weights, strict=True):
                if name in module.scaling:
                    module.scaling[name] *= weight
    return peft_model.eval()


def merge_adapters(
    model: PreTrainedModel, folders: Sequence[Path], weights: Sequence[float], *, how: str, rank: int | None, density: float, seed: int
) -> tuple[PeftModel, dict[str, Any]]:
    """The model with one adapter `merged` made of several, active; and that adapter's rank and target modules."""
    import torch

    peft_model: Any = load_adapter(model, folders[0])
    names = add_adapters(peft_model, folders[1:])
    peft_model.peft_config["default"].use_rslora = False  # the new adapter's scale is 1; what is loaded keeps its own
    options: dict[str, Any] = {}
    if HOW[how] != "cat":
        options = {"svd_rank": rank, "svd_full_matrices": False}
    if how not in ("linear", "svd"):
        options["density"] = density
    torch.manual_seed(seed)  # DARE drops at random
    peft_model.add_weighted_adapter(names, list(weights), "merged", combination_type=HOW[how], **options)
    peft_model.set_adapter("merged")
    config = peft_model.peft_config["merged"]
    return peft_model.eval(), {"rank": int(config.r), "target_modules": sorted(config.target_modules)}


def save_merged(model: PeftModel, folder: Path) -> None:
    """Write the adapter `merged` as an ordinary adapter folder."""
    model.save_pretrained(folder, selected_adapters=["merged"], save_embedding_layers=False)
    for file in (folder / "merged").iterdir():
        shutil.move(file, folder / file.name)
    (folder / "merged").rmdir()
