"""The base model and the tuned model of one run, side by side: what evaluation, chat and export compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from danlu.data.chat import ChatRenderer
from danlu.errors import ModelError
from danlu.models import safety
from danlu.models.load import VOCABULARY_FILES, load_model, load_tokenizer
from danlu.models.new_tokens import added_ids, make_rows

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

    from danlu.recipe.base import Quantisation


class ModelPair:
    """With an adapter, one copy of the base weights serves both; after `full` and `freeze`, two models are held.

    An adapter that was trained on quantised weights is compared with the same quantised base model. Adapters in `stacked`
    are active beside it.
    """

    def __init__(
        self,
        base_dir: Path,
        *,
        adapter_dir: Path | None = None,
        model_dir: Path | None = None,
        dtype: str | None = None,
        device: str = "cpu",
        quantisation: Quantisation | None = None,
        previous_dir: Path | None = None,
        stacked: Sequence[Path] = (),
        is_reward_model: bool = False,
    ) -> None:
        import torch

        torch_dtype = None if dtype is None else getattr(torch, dtype)
        tuned_dir = adapter_dir or model_dir
        self.tokenizer = load_tokenizer(tuned_dir if tuned_dir is not None else base_dir)
        self.renderer = ChatRenderer(self.tokenizer)
        self._base = load_model(base_dir, dtype=torch_dtype, device=device, quantisation=quantisation, is_reward_model=is_reward_model).eval()
        if tuned_dir is not None:
            make_rows(self._base, added_ids(load_tokenizer(base_dir), self.tokenizer))
        self._tuned: PreTrainedModel = self._base
        self.has_adapter = adapter_dir is not None
        self._previous_dir = previous_dir
        if adapter_dir is not None:
            self._tuned = load_adapter(self._base, adapter_dir)
            if stacked:
                from danlu.models.merge import add_adapters

                add_adapters(self._tuned, stacked)
        elif model_dir is not None:
            self._tuned = load_model(model_dir, dtype=torch_dtype, device=device, is_reward_model=is_reward_model).eval()

    @contextmanager
    def base(self) -> Iterator[PreTrainedModel]:
        """The model as it was before training."""
        if self.has_adapter:
            with self._tuned.disable_adapter():
                yield self._tuned
        else:
            yield self._base

    @contextmanager
    def previous(self) -> Iterator[PreTrainedModel]:
        """The model as the round before left it: what training started from."""
        assert self._previous_dir is not None
        if not self.has_adapter:
            yield load_model(self._previous_dir, dtype=self._base.dtype, device=str(self._base.device)).eval()
            return
        if "previous" not in self._tuned.peft_config:
            safety.check_adapter(self._previous_dir)
            self._tuned.load_adapter(self._previous_dir, adapter_name="previous", local_files_only=True)
        self._tuned.set_adapter("previous")
        try:
            yield self._tuned.eval()
        finally:
            self._tuned.set_adapter("default")

    @contextmanager
    def tuned(self) -> Iterator[PreTrainedModel]:
        """The model as training left it."""
        yield self._tuned


def load_adapter(model: PreTrainedModel, adapter_dir: Path) -> PreTrainedModel:
    """Put the PEFT adapter in `adapter_dir` on `model`; any standard PEFT adapter will do.

    A model with fewer rows than the tokenizer beside the adapter has tokens gets rows for the added ones.

    Raises:
        ModelError: the folder holds no adapter, or one of another base model.
    """
    from peft import PeftModel

    if not (adapter_dir / "adapter_config.json").is_file():
        raise ModelError(f"{adapter_dir} is not an adapter", why="it has no adapter_config.json", fix="give the adapter folder of a run")
    if not (adapter_dir / "adapter_model.safetensors").is_file():
        raise ModelError(
            f"{adapter_dir} has no adapter_model.safetensors",
            why="only safetensors are loaded, never pickle",
            fix="save the adapter again with safe serialization",
        )
    safety.check_adapter(adapter_dir)
    if any((adapter_dir / name).is_file() for name in VOCABULARY_FILES):
        make_rows(model, range(model.get_input_embeddings().num_embeddings, len(load_tokenizer(adapter_dir))))
    try:
        return PeftModel.from_pretrained(model, adapter_dir, local_files_only=True).eval()
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(
            f"the adapter in {adapter_dir} does not fit this base model", why=str(error).strip().splitlines()[0], fix="use the base model it was trained on"
        ) from error
