"""Loading base models and tokenizers from a folder, after checking that the folder cannot run code or mislead.

Only safetensors, never pickle; no remote code; no file outside the folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from danlu.errors import ModelError, UnsafeModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def check_model_dir(folder: Path, *, needs_weights: bool = True) -> dict[str, Any]:
    """Return the model's config.json after checking the folder.

    Raises:
        ModelError: no config, missing or truncated weights.
        UnsafeModelError: only pickle weights, remote code, or shards outside the folder.
    """
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise ModelError(
            f"{folder} is not a model folder",
            why="it has no config.json",
            fix="give the folder that holds config.json, tokenizer files and *.safetensors",
        )
    try:
        config: dict[str, Any] = orjson.loads(config_path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ModelError(f"{config_path} is not valid JSON", why=str(error), fix="copy the model again") from error
    if "auto_map" in config:
        raise UnsafeModelError(
            f"{folder} asks to run its own Python code",
            why="config.json has auto_map; Danlu never runs code that comes with a model",
            fix="use a model of an architecture that Transformers has built in",
        )
    if needs_weights:
        _check_weights(folder)
    return config


def _check_weights(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(orjson.loads(index.read_bytes()).get("weight_map", {}).values()))
        for shard in shards:
            if os.path.isabs(shard) or ".." in Path(shard).parts:
                raise UnsafeModelError(
                    f"{index} points outside its folder: {shard}", why="a shard must lie beside its index", fix="get the model from a source you trust"
                )
        missing = [shard for shard in shards if not (folder / shard).is_file()]
        if missing:
            raise ModelError(
                f"{folder} lacks {len(missing)} of {len(shards)} weight files: {', '.join(missing[:3])}",
                why="the download or copy was not finished",
                fix="copy or download the model again",
            )
        files = [folder / shard for shard in shards]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [p.name for p in folder.iterdir() if p.suffix in PICKLE_SUFFIXES]
        if pickles:
            raise UnsafeModelError(
                f"{folder} has only pickle weights: {', '.join(sorted(pickles)[:3])}",
                why="loading a pickle can run code",
                fix="get the safetensors version of the model, or convert it where you trust it",
            )
        raise ModelError(f"{folder} has no weights", why="no *.safetensors file in it", fix="copy or download the model again")
    for file in files:
        check_safetensors(file)


def check_safetensors(file: Path) -> None:
    """Raise ModelError when the header of a safetensors file does not match its size."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            opened.keys()
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is not a whole safetensors file", why=str(error), fix="copy or download it again") from error


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder.

    Raises:
        ModelError: the folder has no usable fast tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"the tokenizer in {folder} cannot be loaded", why=_first_line(error), fix="copy tokenizer.json and tokenizer_config.json into the folder"
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer in {folder} is not a fast tokenizer", why="loss masks need character offsets", fix="add its tokenizer.json")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def load_model(folder: Path, *, dtype: torch.dtype | None = None, attention: str | None = None, random_weights: bool = False) -> PreTrainedModel:
    """Load a causal language model in `dtype` (its stored type when None).

    With `random_weights` the model is made from config.json alone, seeded by torch's current seed.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would cut through the live view
    check_model_dir(folder, needs_weights=not random_weights)
    options: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    try:
        if random_weights:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            model = AutoModelForCausalLM.from_config(config, dtype=dtype or torch.float32, **options)
        else:
            model, info = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype or "auto", use_safetensors=True, trust_remote_code=False, local_files_only=True, output_loading_info=True, **options
            )
            missing = sorted(info["missing_keys"])
            if missing:
                raise ModelError(
                    f"{folder} lacks weights: {', '.join(missing[:3])}",
                    why=f"{len(missing)} tensors of the architecture are not in its files",
                    fix="copy or download the model again",
                )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"the model in {folder} cannot be loaded", why=_first_line(error), fix="check that it is a causal language model that Transformers supports"
        ) from error
    return model


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
