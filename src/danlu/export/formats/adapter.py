"""The adapter alone, in PEFT's standard format."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from danlu.errors import NoEffectError
from danlu.files import read_json, write_json
from danlu.recipe.base import EXPORTERS, ExporterConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from danlu.export.run import Source


@EXPORTERS.register
class AdapterExport(ExporterConfig):
    """A few megabytes that need the base model beside them."""

    type: Literal["adapter"] = "adapter"

    def export(self, source: Source, folder: Path) -> None:
        """Copy adapter and tokenizer; the base model is named as a person named it, not by a path of this machine."""
        if source.adapter_dir is None:
            raise NoEffectError("this run has no adapter", why=f"the method {source.method.type} changes the weights themselves", fix="use --to merged")
        shutil.copytree(source.adapter_dir, folder, dirs_exist_ok=True)
        config = read_json(folder / "adapter_config.json")
        write_json(folder / "adapter_config.json", config | {"base_model_name_or_path": source.base_name})

    def load(self, source: Source, folder: Path) -> PreTrainedModel:
        """Load as a user of plain PEFT would, on base weights quantised as in training."""
        from danlu.models.load import load_model
        from danlu.models.pair import load_adapter

        base = load_model(source.base_dir, dtype=source.torch_dtype, quantisation=source.method.quantisation, is_reward_model=source.is_reward_model)
        return load_adapter(base, folder)
