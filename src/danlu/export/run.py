"""The export stage: write files in a staging folder, load them as a user would, compare, and only then publish."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from danlu.errors import VerificationError
from danlu.export.verify import Verification, compare
from danlu.files import fsync_dir, storage_errors, write_json, write_text
from danlu.recipe.base import ExporterConfig, MethodConfig

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Source:
    """What an exporter works from."""

    base_name: str
    base_dir: Path
    adapter_dir: Path | None
    model_dir: Path | None
    dtype: str
    """`float32` or `bfloat16`: what the run computed in."""
    method: MethodConfig
    """What the run trained."""
    is_reward_model: bool = False
    """Whether the model gives a score instead of text."""

    @property
    def torch_dtype(self) -> torch.dtype:
        """The same as a torch dtype."""
        import torch

        return getattr(torch, self.dtype)


def run(
    exporter: ExporterConfig, source: Source, target: Path, *, trained: PreTrainedModel, prompts: Sequence[Sequence[int]], card: Callable[[Verification], str]
) -> Verification:
    """Export to `target` (replaced only when the new export is verified).

    Raises:
        VerificationError: the files do not behave like `trained`; they are removed.
    """
    staging = target.with_name(f".{target.name}.tmp")
    with storage_errors(target):
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            exporter.export(source, staging)  # type: ignore[attr-defined]
            precision = "int8" if source.method.quantisation is not None and source.method.quantisation.bits == 8 else source.dtype
            result = compare(trained, exporter.load(source, staging).eval(), prompts, dtype=precision)  # type: ignore[attr-defined]
            if not result.passed:
                raise VerificationError(
                    f"the {exporter.type} export differs from the trained model and was removed",
                    why=f"largest logit difference {result.max_difference:.1e} (bound {result.bound:.0e}), "
                    f"{result.num_different_tokens} different greedy tokens",
                    fix="report this with the run's recipe.json; the trained adapter itself is untouched",
                )
            write_json(staging / "verification.json", result.to_dict())
            write_text(staging / "README.md", card(result))
            shutil.rmtree(target, ignore_errors=True)
            os.replace(staging, target)
            fsync_dir(target.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return result
