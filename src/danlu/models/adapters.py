"""Adapters as files: whether one fits a base model and a method, and how its weights are put into a model that is about to be trained."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.errors import ModelError, NoEffectError
from danlu.files import read_json
from danlu.models import safety
from danlu.models.load import VOCABULARY_FILES, load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIG, WEIGHTS, ORIGIN = "adapter_config.json", "adapter_model.safetensors", "base_model.json"
COMPARED = {
    "peft_type": "kind",
    "r": "rank",
    "lora_alpha": "alpha",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
    "target_modules": "target_modules",
    "rank_pattern": "rank_pattern",
    "alpha_pattern": "alpha_pattern",
    "layers_to_transform": "layers",
    "num_virtual_tokens": "num_virtual_tokens",
}
"""What two adapters must have in common to be the same method, and the recipe's name of it."""


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds a PEFT adapter in safetensors."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def check_base(adapter_dir: Path, base_dir: Path, base_sha256: str, *, new_tokens: Sequence[str] = ()) -> None:
    """Refuse an adapter of another base model, as far as its files tell.

    Raises:
        ModelError: other weights by checksum, or another vocabulary.
    """
    origin = read_json(adapter_dir / ORIGIN) if (adapter_dir / ORIGIN).is_file() else {}
    if origin.get("sha256") and origin["sha256"] != base_sha256:
        raise ModelError(
            f"the adapter in {adapter_dir} belongs to another base model",
            why=f"it was trained on {origin.get('name')}, whose weights have another checksum than those of {base_dir}",
            fix=f"set base_model to {origin.get('name')}",
        )
    if not any((adapter_dir / name).is_file() for name in VOCABULARY_FILES):
        return
    own, base = load_tokenizer(adapter_dir).get_vocab(), load_tokenizer(base_dir).get_vocab()
    moved = next((token for token, number in base.items() if own.get(token) != number), None)
    extra = sorted(set(own) - set(base) - set(new_tokens))
    if moved is not None or extra:
        why = (
            f"{moved!r} is token {own.get(moved)} there and {base[moved]} here"
            if moved is not None
            else f"it has tokens that the base model lacks: {extra[:3]}"
        )
        raise ModelError(
            f"the adapter in {adapter_dir} has another vocabulary than {base_dir}",
            why=why,
            fix="use the base model it was trained on" + ("" if moved is not None else f", and data.new_tokens={extra}"),
        )


def load_start(model: Any, adapter_dir: Path) -> None:
    """Put the weights of an adapter into the (equal) adapter that `model` has just been given.

    Raises:
        NoEffectError: it is of another kind, rank or place.
    """
    from peft import PeftConfig, get_peft_model_state_dict, set_peft_model_state_dict
    from peft.utils import load_peft_weights

    safety.check_adapter(adapter_dir)
    here, there = model.peft_config["default"], PeftConfig.from_pretrained(str(adapter_dir))
    for name, setting in COMPARED.items():
        wanted, found = (_comparable(getattr(config, name, None)) for config in (here, there))
        if wanted != found:
            raise NoEffectError(
                f"the adapter in {adapter_dir} has {setting} {found}, and the recipe {wanted}",
                why="training can go on only from an adapter of the same shape",
                fix=f"set method.{setting} to {found}" if setting != "kind" else "use the method it was trained with",
            )
    if getattr(here, "encoder_reparameterization_type", None) is not None or getattr(here, "prefix_projection", False):
        raise NoEffectError(
            f"training cannot go on from the adapter in {adapter_dir}",
            why="it holds the virtual tokens, not the network that made them in training",
            fix="leave start_from out, or use method p_tuning_v2 without projection, or prompt_tuning, from the first round on",
        )
    weights = load_peft_weights(str(adapter_dir), device="cpu")
    own = get_peft_model_state_dict(model)
    odd = sorted(name for name in own.keys() | weights.keys() if name not in own or name not in weights or own[name].shape != weights[name].shape)
    if odd:
        raise NoEffectError(
            f"the adapter in {adapter_dir} does not fit the method of the recipe",
            why=f"{len(odd)} of its weights differ, first: {odd[0]}",
            fix="use its method",
        )
    set_peft_model_state_dict(model, weights)


def _comparable(value: Any) -> Any:
    if isinstance(value, set | list | tuple):
        return sorted(value)
    return str(getattr(value, "value", value)) if value is not None and not isinstance(value, int | float | str | dict | bool) else value


def weights_sha256(folder: Path) -> str:
    """SHA-256 over the safetensors files of an adapter or model folder, in name order."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
