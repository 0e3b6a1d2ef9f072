"""One ordinary model: base weights plus adapter, loadable without PEFT."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from danlu.recipe.base import EXPORTERS, ExporterConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from danlu.export.run import Source


@EXPORTERS.register
class MergedExport(ExporterConfig):
    """A whole model that any tool reads, in the number format the run computed in."""

    type: Literal["merged"] = "merged"

    def export(self, source: Source, folder: Path) -> None:
        """Add the adapter to the base weights (refusing NaN) and write safetensors, configuration and tokenizer."""
        from danlu.models.load import load_model, load_tokenizer
        from danlu.models.pair import load_adapter

        if source.adapter_dir is None:
            assert source.model_dir is not None
            shutil.copytree(source.model_dir, folder, dirs_exist_ok=True)
            return
        model = load_adapter(load_model(source.base_dir, dtype=source.torch_dtype), source.adapter_dir)
        model.merge_and_unload(safe_merge=True).save_pretrained(folder)
        load_tokenizer(source.adapter_dir).save_pretrained(folder)

    def load(self, source: Source, folder: Path) -> PreTrainedModel:
        """Load as a user of plain Transformers would."""
        from danlu.models.load import load_model

        return load_model(folder, dtype=source.torch_dtype)
