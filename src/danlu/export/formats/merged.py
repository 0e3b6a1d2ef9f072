"""One ordinary model: base weights plus adapter, loadable without PEFT."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from danlu.errors import NoEffectError
from danlu.recipe.base import EXPORTERS, ExporterConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from danlu.export.run import Source


@EXPORTERS.register
class MergedExport(ExporterConfig):
    """A whole model that any tool reads, in the number format the run computed in."""

    type: Literal["merged"] = "merged"

    def export(self, source: Source, folder: Path) -> None:
        """Add the adapter to the base weights (refusing NaN) and write safetensors, configuration and tokenizer.

        Quantised base weights are dequantised first: these are what the adapter was trained on, not the weights before quantisation.

        Raises:
            NoEffectError: the adapter is no change of weights.
        """
        from danlu.models.load import load_model, load_tokenizer
        from danlu.models.pair import load_adapter
        from danlu.models.quantise import dequantise

        if source.adapter_dir is None:
            assert source.model_dir is not None
            shutil.copytree(source.model_dir, folder, dirs_exist_ok=True)
            return
        if not source.method.can_merge:
            raise NoEffectError(
                f"an adapter of method {source.method.type} cannot be merged",
                why="its virtual tokens stand before the input; they are no change of the model's weights",
                fix="use --to adapter, or train with method lora",
            )
        model = load_model(source.base_dir, dtype=source.torch_dtype, quantisation=source.method.quantisation, is_reward_model=source.is_reward_model)
        model = load_adapter(model if source.method.quantisation is None else dequantise(model), source.adapter_dir)
        model.merge_and_unload(safe_merge=True).save_pretrained(folder)
        load_tokenizer(source.adapter_dir).save_pretrained(folder)

    def load(self, source: Source, folder: Path) -> PreTrainedModel:
        """Load as a user of plain Transformers would."""
        from danlu.models.load import load_model

        return load_model(folder, dtype=source.torch_dtype, is_reward_model=source.is_reward_model)
