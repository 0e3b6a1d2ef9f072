"""What a causal language model is made of, by name: its layers, its linear maps, its embeddings and head."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from danlu.errors import NoEffectError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def num_layers(model: PreTrainedModel) -> int:
    """Layers of the decoder."""
    return int(model.config.get_text_config().num_hidden_layers)


def layers_of(model: PreTrainedModel) -> Sequence[nn.Module]:
    """The layers of the decoder, first to last."""
    from torch.nn import ModuleList

    count = num_layers(model)
    return next(list(module) for module in model.get_decoder().modules() if isinstance(module, ModuleList) and len(module) == count)


def name_of(model: PreTrainedModel, wanted: nn.Module) -> str:
    """The name of a module inside `model`."""
    return next(name for name, module in model.named_modules() if module is wanted)


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the head is the embedding matrix."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def is_transposed(model: PreTrainedModel) -> bool:
    """Whether linear weights are stored the other way round (GPT-2's Conv1D)."""
    return any(type(module).__name__ == "Conv1D" for module in model.modules())


def linear_sizes(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of each linear map by name, also of quantised ones; without the head where it is the embedding matrix."""
    from torch.nn import Linear

    head = model.get_output_embeddings() if is_tied(model) else None
    sizes = {}
    for name, module in model.named_modules():
        map_: Any = module
        if isinstance(module, Linear) and module is not head:
            sizes[name] = (map_.in_features, map_.out_features)
        elif type(module).__name__ == "Conv1D":
            sizes[name] = (map_.weight.shape[0], map_.weight.shape[1])
    return sizes


def matching(names: Iterable[str], wanted: Iterable[str], *, setting: str, fix: str) -> list[str]:
    """Those of `names` that are one of `wanted` or end with it after a dot, as PEFT matches.

    Raises:
        NoEffectError: one of `wanted` matches nothing.
    """
    names, found = list(names), []
    for name in wanted:
        hits = [candidate for candidate in names if candidate == name or candidate.endswith(f".{name}")]
        if not hits:
            known = sorted({candidate.rsplit(".", 1)[-1] for candidate in names})
            raise NoEffectError(f"{setting} names no layer of this model: {name}", why=f"it has {', '.join(known[:12])}", fix=fix)
        found += hits
    return found


def pattern_matches(pattern: str, name: str) -> bool:
    """Whether PEFT takes an entry of a rank or alpha pattern for the layer of that name."""
    return re.match(rf"(.*\.)?({pattern})$", name) is not None


def head_of(model: Any) -> Any:
    """The last matrix: of a language model, or of a reward model."""
    return model.score if is_reward_model(model) else model.get_output_embeddings()


def is_reward_model(model: Any) -> bool:
    """Whether the model gives a score instead of going on with a text."""
    return type(model).__name__.endswith("ForSequenceClassification")


def task_type(model: Any) -> str:
    """PEFT's name for what the model is for; with `SEQ_CLS` it trains and saves the new head beside the adapter."""
    return "SEQ_CLS" if is_reward_model(model) else "CAUSAL_LM"
