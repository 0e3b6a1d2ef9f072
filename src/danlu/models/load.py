"""Loading base models and tokenizers from a folder, after checking that the folder cannot run code or mislead.

Only safetensors, never pickle; no remote code; no file outside the folder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from danlu.errors import MissingExtraError, ModelError, UnsafeModelError, is_out_of_memory
from danlu.models import safety

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from danlu.recipe.base import Quantisation

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")


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
    config = read_mapping(config_path)
    safety.check_files(folder)
    if (folder / "adapter_config.json").exists():
        raise UnsafeModelError(
            f"{folder} is a model and an adapter at once",
            why="adapter_config.json names another model, which Transformers would load in its place, from anywhere",
            fix="remove adapter_config.json, or merge the adapter into its model",
        )
    for name in ("config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json"):
        if (folder / name).is_file():
            safety.check_config(read_mapping(folder / name), folder / name)
    if needs_weights:
        _check_weights(folder, config)
    return config


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a model folder.

    Raises:
        ModelError: there is none in it.
    """
    try:
        content = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ModelError(f"{path} is not valid JSON", why=str(error), fix="copy the model again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} does not hold a mapping", why=f"its top level is {type(content).__name__}", fix="copy the model again")
    return content


def _check_weights(folder: Path, config: dict[str, Any]) -> None:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_mapping(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
            raise ModelError(f"{index} does not name the weight files", why="it has no weight_map from tensors to files", fix="copy the model again")
        shards = sorted(set(weight_map.values()))
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
    sizes = [check_safetensors(file) for file in files]
    safety.check_sizes(config, sum(size for size, _ in sizes), sum(count for _, count in sizes), folder)


def check_safetensors(file: Path) -> tuple[int, int]:
    """Raise ModelError when the header of a safetensors file does not match its size; return how many numbers and tensors it holds."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            shapes = [opened.get_slice(name).get_shape() for name in opened.keys()]  # noqa: SIM118 - no mapping
            return sum(math.prod(shape) for shape in shapes), len(shapes)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is not a whole safetensors file", why=str(error), fix="copy or download it again") from error


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder.

    Raises:
        ModelError: the folder has no usable fast tokenizer.
    """
    from transformers import AutoTokenizer

    fix = "copy tokenizer.json and tokenizer_config.json into the folder"
    if not any((folder / name).is_file() for name in VOCABULARY_FILES):
        raise ModelError(f"there is no tokenizer in {folder}", why="it has no tokenizer.json", fix=fix)
    if (folder / "tokenizer.json").is_file():
        safety.check_tokenizer_file(folder / "tokenizer.json")
    with _told(f"the tokenizer in {folder} cannot be loaded", fix=fix):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer in {folder} is not a fast tokenizer", why="loss masks need character offsets", fix="add its tokenizer.json")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    attention: str | None = None,
    random_weights: bool = False,
    quantisation: Quantisation | None = None,
    device: str = "cpu",
    is_reward_model: bool = False,
) -> PreTrainedModel:
    """Load a causal language model in `dtype` (its stored type when None) onto `device`.

    A reward model has a head with one score instead; where the folder holds none, it is zero: no opinion yet.

    With `random_weights` the model is made from config.json alone, seeded by torch's current seed. With `quantisation`
    the linear layers are quantised as they are read; the rest stays in `dtype`.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.utils import logging

    from danlu.models import quantise

    logging.disable_progress_bar()  # it would cut through the live view
    quantise.keep_quiet()
    check_model_dir(folder, needs_weights=not random_weights)
    options: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    with _told(f"the model in {folder} cannot be loaded", fix="check that it is a causal language model that Transformers supports"):
        if random_weights:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            return AutoModelForCausalLM.from_config(config, dtype=dtype or torch.float32, **options).to(device)
        if quantisation is not None:
            options |= quantise.load_options(quantisation, dtype=dtype or torch.float32, device=device)
        if is_reward_model:
            options["num_labels"] = 1
        model, info = (AutoModelForSequenceClassification if is_reward_model else AutoModelForCausalLM).from_pretrained(
            folder, dtype=dtype or "auto", use_safetensors=True, trust_remote_code=False, local_files_only=True, output_loading_info=True, **options
        )
        missing = sorted(info["missing_keys"])
        if is_reward_model:
            missing = _with_score_head(model, folder, missing)
        if missing:
            raise ModelError(
                f"{folder} lacks weights: {', '.join(missing[:3])}",
                why=f"{len(missing)} tensors of the architecture are not in its files",
                fix="copy or download the model again",
            )
    if quantisation is None:
        return model.to(device)
    quantise.compute_exactly(model)
    return model


def _with_score_head(model: Any, folder: Path, missing: list[str]) -> list[str]:
    """Give a new head zeros and the config the padding id that tells the last token; return what is missing besides."""
    if not hasattr(model, "score"):
        raise ModelError(
            f"{folder} cannot become a reward model", why=f"{type(model).__name__} has no score head of the usual form", fix="use a Llama- or Qwen-like model"
        )
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = load_tokenizer(folder).pad_token_id
    if "score.weight" in missing:
        model.score.weight.data.zero_()
    return [name for name in missing if name != "score.weight"]


@contextmanager
def _told(what: str, *, fix: str) -> Iterator[None]:
    """Turn whatever Transformers meets in a damaged folder into a ModelError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ModelError | MissingExtraError) or is_out_of_memory(error):
            raise
        raise ModelError(what, why=_first_line(error), fix=fix) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
