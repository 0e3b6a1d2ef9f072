"""One base model in memory with the adapters of any number of runs, one of them active at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.data.chat import ChatRenderer
from danlu.models.load import VOCABULARY_FILES, load_model, load_tokenizer
from danlu.models.pair import load_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SharedModel:
    """Adapters of plain LoRA on one base; each is loaded when it is first asked for, and again when its files have changed."""

    def __init__(self, base_dir: Path, *, dtype: str | None = None, device: str = "cpu") -> None:
        import torch

        self._model: Any = load_model(base_dir, dtype=None if dtype is None else getattr(torch, dtype), device=device).eval()
        self._base_renderer = ChatRenderer(load_tokenizer(base_dir))
        self._adapters: dict[tuple[Path, int], tuple[str, ChatRenderer]] = {}

    @contextmanager
    def base(self) -> Iterator[tuple[PreTrainedModel, ChatRenderer]]:
        """The model without any adapter."""
        if not self._adapters:
            yield self._model, self._base_renderer
            return
        with self._model.disable_adapter():
            yield self._model, self._base_renderer

    @contextmanager
    def tuned(self, adapter_dir: Path) -> Iterator[tuple[PreTrainedModel, ChatRenderer]]:
        """The model with the adapter in that folder.

        Raises:
            ModelError: it is no adapter, or one of another base model.
        """
        name, renderer = self._loaded(adapter_dir)
        self._model.set_adapter(name)
        yield self._model.eval(), renderer

    def _loaded(self, adapter_dir: Path) -> tuple[str, ChatRenderer]:
        weights = adapter_dir / "adapter_model.safetensors"
        key = (adapter_dir, weights.stat().st_mtime_ns if weights.is_file() else 0)
        if key in self._adapters:
            return self._adapters[key]
        for old in [known for known in self._adapters if known[0] == adapter_dir and len(self._adapters) > 1]:
            self._model.delete_adapter(self._adapters.pop(old)[0])
        name = f"adapter{sum(1 for _ in self._adapters)}_{key[1]}"
        if hasattr(self._model, "peft_config"):
            self._model.load_adapter(adapter_dir, adapter_name=name, local_files_only=True)
        else:
            self._model, name = load_adapter(self._model, adapter_dir), "default"
        has_tokenizer = any((adapter_dir / file).is_file() for file in VOCABULARY_FILES)
        self._adapters[key] = (name, ChatRenderer(load_tokenizer(adapter_dir)) if has_tokenizer else self._base_renderer)
        return self._adapters[key]
