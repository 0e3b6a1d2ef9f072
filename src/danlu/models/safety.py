"""What a model or adapter folder must not contain: ways to run code, to read other files, to hang, to fill the memory.

Torch-free and without loading anything: only names, small JSON files and the headers of weight files are read. Transformers and PEFT
follow some of these (they import modules and fetch kernels that a configuration names), so they are refused before those see them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from danlu.errors import ModelError, UnsafeModelError
from danlu.models.regexes import danger

FIX = "get the model from a source you trust, in its plain form"
CODE_KEYS = ("auto_map", "custom_pipelines", "custom_generate")
KERNEL_KEYS = ("use_kernels", "kernel_config", "hub_kernels")
FILE_KEYS = ("vocab_file", "merges_file", "spm_file", "gguf_file", "tokenizer_file")
ADAPTER_CODE = ("auto_mapping", "megatron_config")
MAX_SMALL_FILE = 256 * 1024 * 1024
PACKED = 8
"""Quantised weights hold up to so many numbers in one element."""
MAX_RANK = 65_536


def check_files(folder: Path) -> None:
    """Refuse devices, pipes and links out of the folder; links into the cache of the Hugging Face hub are how it keeps files.

    Raises:
        UnsafeModelError: there is one.
    """
    inside = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":
        inside.append(folder.resolve().parent.parent / "blobs")
    for root, folders, files in os.walk(folder, followlinks=False):
        for name in [*folders, *files]:
            path = Path(root, name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                target = path.resolve()
                if not any(target.is_relative_to(place) for place in inside):
                    raise UnsafeModelError(f"{path} leads out of its folder", why="a link in a model folder can read other people's files", fix=FIX)
                mode = target.stat().st_mode if target.exists() else stat.S_IFREG
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise UnsafeModelError(f"{path} is no plain file", why="reading a device or a pipe can hang, or never end", fix=FIX)


def check_config(config: Mapping[str, Any], where: Path) -> None:
    """Refuse a configuration that names code, kernels of the hub, or files elsewhere.

    Raises:
        UnsafeModelError: it does.
    """
    for key, value in _entries(config):
        if key in CODE_KEYS and value:
            raise UnsafeModelError(
                f"{where.parent} asks to run its own Python code",
                why=f"{where.name} has {key}; Danlu never runs code that comes with a model",
                fix="use a model of an architecture that Transformers has built in",
            )
        if (key in KERNEL_KEYS and value) or (key.endswith("_implementation") and _names_a_repository(value)):
            raise UnsafeModelError(
                f"{where.parent} asks to fetch compiled code", why=f"{where.name} has {key}: {str(value)[:80]!r}", fix=f"remove {key} from {where.name}"
            )
        if key in FILE_KEYS and isinstance(value, str) and (os.path.isabs(value) or ".." in Path(value).parts or "://" in value):
            raise UnsafeModelError(
                f"{where.parent} points outside its folder: {value[:80]}", why=f"{where.name} has {key}", fix=f"remove {key} from {where.name}"
            )


def check_tokenizer_file(path: Path) -> None:
    """Refuse a tokenizer whose patterns can take for ever.

    Raises:
        UnsafeModelError: one can.
        ModelError: it is not a whole tokenizer.json.
    """
    content = path.read_bytes() if path.stat().st_size <= MAX_SMALL_FILE else b""
    if not content:
        raise ModelError(f"{path} is {path.stat().st_size / 1e6:,.0f} MB", why="a tokenizer is a small file", fix="copy the model again")
    if b'"Regex"' not in content:
        return
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ModelError(f"{path} is not valid JSON: the tokenizer in {path.parent} cannot be loaded", why=str(error), fix="copy the model again") from error
    parts = [found.get(name) for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder")] if isinstance(found, dict) else []
    for part in parts:
        for key, value in _entries(part):
            if key == "Regex" and isinstance(value, str) and (reason := danger(value)):
                raise UnsafeModelError(f"{path} has a pattern that can take for ever: {value[:80]!r}", why=reason, fix=FIX)


def check_sizes(config: Mapping[str, Any], num_elements: int, num_tensors: int, folder: Path) -> None:
    """Refuse a configuration that asks for far more than the weight files hold, before anything is allocated.

    Raises:
        ModelError: it does.
    """
    from danlu.models.shape import ModelShape

    try:
        shape = ModelShape.from_config(config)
    except ModelError:
        return  # sizes under other names; Transformers says what it misses
    room = PACKED * num_elements
    wanted = {
        "vocab_size x hidden_size": shape.vocabulary * shape.hidden,
        "hidden_size x intermediate_size": shape.hidden * shape.inner,
        "hidden_size x heads": shape.hidden * shape.query_width,
        "num_hidden_layers": shape.layers * max(1, num_elements // max(1, num_tensors)),
        "num_experts": shape.num_experts,
    }
    for name, number in wanted.items():
        if number > room:
            raise ModelError(
                f"the model in {folder} cannot be loaded: its config.json does not fit its weights",
                why=f"{name} asks for {number:,} numbers, the weight files hold {num_elements:,}",
                fix="copy config.json and the weights from the same place",
            )


def check_adapter(folder: Path) -> None:
    """Refuse an adapter whose configuration names modules to import, or a size that its weights do not have.

    Raises:
        UnsafeModelError: it names modules, or leads out of its folder.
        ModelError: its files are not whole, or its rank is not that of its weights.
    """
    from safetensors import SafetensorError, safe_open

    from danlu.models.load import read_mapping

    check_files(folder)
    path = folder / "adapter_config.json"
    config = read_mapping(path)
    check_config(config, path)
    for key in ADAPTER_CODE:
        found = config.get(key)
        if key == "auto_mapping" and isinstance(found, dict) and str(found.get("parent_library", "")).split(".")[0] in ("transformers", "peft", ""):
            continue
        if found:
            raise UnsafeModelError(
                f"{folder} names Python modules to import", why=f"{path.name} has {key}: {str(found)[:80]}", fix=f"remove {key} from {path.name}"
            )
    file = folder / "adapter_model.safetensors"
    try:
        with safe_open(file, framework="numpy") as weights:
            largest = max((max(weights.get_slice(name).get_shape(), default=1) for name in weights.keys()), default=0)  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is not a whole safetensors file", why=str(error), fix="copy or download it again") from error
    pattern = config.get("rank_pattern")
    ranks = [config.get("r"), config.get("num_virtual_tokens"), *(pattern.values() if isinstance(pattern, dict) else ())]
    for rank in ranks:
        if isinstance(rank, int) and rank > min(MAX_RANK, 64 * max(1, largest)):
            raise ModelError(
                f"the adapter in {folder} does not fit its own weights",
                why=f"{path.name} asks for {rank:,}, and the largest side of its weights is {largest:,}",
                fix="copy the adapter again",
            )


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth (JSON readers bound it)."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, Mapping):
            for key, inner in found.items():
                yield str(key), inner
                waiting.append(inner)
        elif isinstance(found, list):
            waiting.extend(found)


def _names_a_repository(value: Any) -> bool:
    names = value.values() if isinstance(value, Mapping) else [value]
    return any(isinstance(name, str) and ("/" in name or ":" in name or "|" in name) for name in names)
