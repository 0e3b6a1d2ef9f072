"""How many parameters a method trains on a model: counted from config.json and the recipe, without torch.

It knows nothing of batches or memory (models/memory.py). A test compares every count with a model that is really built.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from danlu.models.shape import LinearShape, ModelShape
from danlu.recipe.recipe import Recipe


@dataclass(frozen=True)
class Trained:
    """What a method trains."""

    num_parameters: int
    num_added: int
    """Of them, those that are not weights of the base model."""
    first_layer: int = 0
    """Layers below it keep nothing for the backward pass."""
    largest: int = 0
    """Elements of the largest trained matrix."""
    trains_embedding: bool = False
    virtual_tokens: int = 0
    """Tokens that a prompt method puts before each example."""


def trained_by(recipe: Recipe, shape: ModelShape) -> Trained:
    """Count what the recipe's method trains."""
    method, kind = recipe.method, recipe.method.type
    embedding = shape.vocabulary * shape.hidden
    largest_linear = max(layer.num_weights for layer in shape.linears)
    if kind == "full":
        return Trained(shape.num_parameters, 0, 0, max(embedding, largest_linear), True)
    if kind == "freeze":
        count = min(shape.layers, int(getattr(method, "num_layers", 2)))
        head = embedding if getattr(method, "train_head", False) and not shape.is_tied else 0
        embeddings = embedding if getattr(method, "train_embeddings", False) else 0
        trains_embedding = bool(head or embeddings)
        norm = shape.hidden  # the last norm goes with the last layers
        first = 0 if embeddings else shape.layers - count
        return Trained(count * shape.parameters_per_layer + norm + head + embeddings, 0, first, max(head, embeddings, largest_linear), trains_embedding)
    if kind in ("prompt_tuning", "p_tuning", "p_tuning_v2"):
        return _prompt(method, kind, shape)
    if kind == "ia3":
        count = shape.layers * (2 * shape.key_width + shape.inner)
        return Trained(count, count, 0, shape.inner)
    ranks = {layer: rank_of(method, layer) for layer in adapted_linears(method, shape)}
    per_layer = sum(rank * (layer.inputs + layer.outputs) + (layer.outputs if getattr(method, "use_dora", False) else 0) for layer, rank in ranks.items())
    layers = _layer_subset(method, shape)
    count = per_layer * len(layers)
    largest = max((rank * max(layer.inputs, layer.outputs) for layer, rank in ranks.items()), default=0)
    whole, trains_embedding = _whole_modules(method, shape)
    first = 0 if trains_embedding else min(layers, default=0)
    return Trained(count + whole, count + whole, first, max(largest, embedding if trains_embedding else 0), trains_embedding)


def _prompt(method: Any, kind: str, shape: ModelShape) -> Trained:
    tokens = int(getattr(method, "num_virtual_tokens", 16))
    width = 2 * shape.layers * shape.key_width if kind == "p_tuning_v2" else shape.hidden
    count = tokens * width
    if kind == "p_tuning":  # a network makes the prompt: three linear layers with biases (a recurrent one is of the same order)
        inner = int(getattr(method, "encoder_hidden_size", None) or shape.hidden)
        count = tokens * shape.hidden + shape.hidden * inner + inner * inner + inner * shape.hidden + 2 * inner + shape.hidden
    elif kind == "p_tuning_v2" and getattr(method, "projection", False):
        inner = int(getattr(method, "projection_hidden_size", None) or shape.hidden)
        count = tokens * shape.hidden + shape.hidden * inner + inner + inner * width + width
    return Trained(count, count, 0, count, virtual_tokens=tokens)


def adapted_linears(method: Any, shape: ModelShape) -> list[LinearShape]:
    """The linear layers of a decoder layer that get an adapter."""
    wanted = getattr(method, "target_modules", "all-linear")
    if wanted == "all-linear":
        return list(shape.linears)
    return [layer for layer in shape.linears if set(layer.names) & set(wanted)]


def rank_of(method: Any, layer: LinearShape) -> int:
    """The rank of the adapter of one linear layer."""
    pattern = getattr(method, "rank_pattern", None) or {}
    for key, rank in pattern.items():
        if any(re.search(rf"(^|\.){key}$", f"layers.0.self_attn.{name}") for name in layer.names):
            return int(rank)
    return int(getattr(method, "rank", 16))


def _layer_subset(method: Any, shape: ModelShape) -> list[int]:
    chosen = getattr(method, "layers", None)
    return list(range(shape.layers)) if chosen is None else [layer % shape.layers for layer in chosen]


def _whole_modules(method: Any, shape: ModelShape) -> tuple[int, bool]:
    """Weights of the copies of whole modules that are trained beside adapters (lora_plus_full), and whether a matrix of the vocabulary is among them."""
    names = set(getattr(method, "modules_to_save", None) or ()) if method.type == "lora_plus_full" else set()
    linear = shape.layers * sum(layer.num_weights for layer in shape.linears if names & set(layer.names))
    norms = shape.layers * shape.num_norms * shape.hidden if any("norm" in name for name in names) else 0
    tables = len(names & {"embed_tokens", "lm_head", "wte", "embed_out"})
    return linear + norms + tables * shape.vocabulary * shape.hidden, tables > 0
