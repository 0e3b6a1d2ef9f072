"""The sizes of a decoder-only model, read from its config.json alone: how many weights, how wide, how many layers.

Torch-free and allocation-free: a config that asks for a hidden width of a million is answered, not tried. A count agrees with the
parameters of the model that Transformers builds for every family listed in the tests; other families are taken to be like Llama.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from danlu.errors import ModelError

FUSED_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Families whose layers the fast path computes as a whole (training/kernels/decoder.py)."""
UNGATED_FAMILIES = ("bloom", "codegen", "falcon", "gpt2", "gpt_neo", "gpt_neox", "gptj", "mpt", "opt", "phi", "starcoder2")
"""Families whose feed-forward has two matrices instead of three."""
_BIASED = ("bloom", "gpt2", "gpt_neox", "opt", "phi", "starcoder2")
_LAYER_NORM = ("bloom", "codegen", "falcon", "gpt2", "gpt_neo", "gpt_neox", "gptj", "mpt", "opt", "phi", "starcoder2")
_FOUR_NORMS = ("gemma2", "gemma3", "gemma3_text", "glm4")
_ONE_NORM = ("cohere", "falcon", "gptj", "phi")
_HEAD_NORMS = ("gemma3", "gemma3_text", "qwen3", "qwen3_moe")
_TIED_BY_DEFAULT = ("bloom", "cohere", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "gpt_neo", "mpt", "opt", "starcoder2")
_LEARNED_POSITIONS = ("gpt2", "gpt_neo", "opt")
_HEAD_BIAS = ("codegen", "gptj", "phi")


@dataclass(frozen=True)
class LinearShape:
    """One linear layer of a decoder layer: the names it goes by, input and output width."""

    names: tuple[str, ...]
    inputs: int
    outputs: int
    part: str
    """`attention` or `feed_forward`."""

    @property
    def num_weights(self) -> int:
        """Elements of the matrix."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder-only model."""

    family: str
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    max_positions: int | None
    is_tied: bool
    activation: str
    num_experts: int = 1
    experts_per_token: int = 1
    expert_inner: int = 0
    attention_bias: bool = False
    has_softcap: bool = False
    attention_dropout: float = 0.0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """Read config.json (its `text_config` where it has one).

        Raises:
            ModelError: a size is missing or is no whole number above 0, or a share is no number.
        """
        config = config.get("text_config") or config
        if not isinstance(config, Mapping):
            raise ModelError("config.json: text_config is no mapping", why="the sizes of the model stand in it", fix="copy the model's config.json again")
        hidden = _size(config, "hidden_size", "n_embd", "d_model", "dim")
        heads = _size(config, "num_attention_heads", "n_head", "n_heads")
        family = str(config.get("model_type", "llama"))
        kv_heads = 1 if config.get("multi_query") else _size(config, "num_key_value_heads", "num_kv_heads", default=heads)
        tie = config.get("tie_word_embeddings")
        return cls(
            family=family,
            hidden=hidden,
            inner=_size(config, "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", default=4 * hidden),
            layers=_size(config, "num_hidden_layers", "n_layer", "n_layers"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=_size(config, "head_dim", default=max(1, hidden // heads)),
            vocabulary=_size(config, "vocab_size"),
            max_positions=_size(config, "max_position_embeddings", "n_positions", default=0) or None,
            is_tied=family in _TIED_BY_DEFAULT if tie is None else bool(tie),
            activation=str(config.get("hidden_act") or config.get("hidden_activation") or config.get("activation_function") or "silu"),
            num_experts=_size(config, "num_experts", "num_local_experts", "n_routed_experts", default=1),
            experts_per_token=_size(config, "num_experts_per_tok", default=1),
            expert_inner=_size(config, "moe_intermediate_size", default=0),
            attention_bias=bool(config.get("attention_bias", False)) or family == "qwen2",
            has_softcap=bool(config.get("attn_logit_softcapping")),
            attention_dropout=_share(config, "attention_dropout"),
        )

    @property
    def query_width(self) -> int:
        """All query heads together."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """All key heads together, which is also the width of the values."""
        return self.kv_heads * self.head_dim

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward has a gate: act(gate(x)) * up(x)."""
        return self.family not in UNGATED_FAMILIES

    @property
    def is_fusable(self) -> bool:
        """Whether the fast path has kernels for these layers (float32 on a CPU)."""
        return self.family in FUSED_FAMILIES and self.activation == "silu" and self.num_experts == 1 and not self.attention_dropout

    @property
    def linears(self) -> tuple[LinearShape, ...]:
        """The linear layers of one decoder layer; of a mixture of experts those outside the experts."""
        d, q, k = self.hidden, self.query_width, self.key_width
        attention: tuple[LinearShape, ...]
        up: tuple[LinearShape, ...]
        if self.family == "gpt2":
            attention = (LinearShape(("c_attn",), d, q + 2 * k, "attention"), LinearShape(("c_proj",), q, d, "attention"))
            return (*attention, LinearShape(("c_fc",), d, self.inner, "feed_forward"), LinearShape(("c_proj",), self.inner, d, "feed_forward"))
        if self.family in ("gpt_neox", "phi3"):
            qkv = LinearShape(("query_key_value", "qkv_proj"), d, q + 2 * k, "attention")
            attention = (qkv, LinearShape(("dense", "o_proj"), q, d, "attention"))
        else:
            attention = (
                LinearShape(("q_proj",), d, q, "attention"),
                LinearShape(("k_proj",), d, k, "attention"),
                LinearShape(("v_proj",), d, k, "attention"),
                LinearShape(("o_proj", "dense", "out_proj"), q, d, "attention"),
            )
        if self.num_experts > 1:
            return attention
        if self.family == "phi3":
            up = (LinearShape(("gate_up_proj",), d, 2 * self.inner, "feed_forward"),)
        elif self.is_gated:
            up = (LinearShape(("gate_proj",), d, self.inner, "feed_forward"), LinearShape(("up_proj",), d, self.inner, "feed_forward"))
        else:
            up = (LinearShape(("fc1", "c_fc", "up_proj", "dense_h_to_4h"), d, self.inner, "feed_forward"),)
        down = LinearShape(("down_proj", "fc2", "c_proj", "dense_4h_to_h"), self.inner, d, "feed_forward")
        return (*attention, *up, down)

    @property
    def parameters_per_layer(self) -> int:
        """Weights of one decoder layer."""
        linear = sum(layer.num_weights for layer in self.linears)
        if self.num_experts > 1:
            inner = self.expert_inner or self.inner
            linear += self.num_experts * 3 * self.hidden * inner + self.num_experts * self.hidden
        bias = 0
        if self.family in _BIASED:
            bias = sum(layer.outputs for layer in self.linears)
        elif self.attention_bias:
            bias = self.query_width + 2 * self.key_width + (self.hidden if self.family in ("llama", "qwen3", "granite") else 0)
        norms = 4 if self.family in _FOUR_NORMS else 1 if self.family in _ONE_NORM else 2
        norm = norms * self.hidden * (2 if self.family in _LAYER_NORM else 1)
        return linear + bias + norm + (2 * self.head_dim if self.has_head_norms else 0)

    @property
    def has_head_norms(self) -> bool:
        """Whether queries and keys are normed head by head."""
        return self.family in _HEAD_NORMS

    @property
    def num_norms(self) -> int:
        """Norms of one layer over the hidden width."""
        return 4 if self.family in _FOUR_NORMS else 1 if self.family in _ONE_NORM else 2

    @property
    def embedding_parameters(self) -> int:
        """Weights of the token embedding, learned positions, and the output head where it has its own."""
        positions = (self.max_positions or 0) * self.hidden if self.family in _LEARNED_POSITIONS else 0
        head = 0 if self.is_tied else self.vocabulary * self.hidden
        return self.vocabulary * self.hidden + positions + head + (self.vocabulary if self.family in _HEAD_BIAS and not self.is_tied else 0)

    @property
    def num_parameters(self) -> int:
        """All weights."""
        final_norm = self.hidden * (2 if self.family in _LAYER_NORM else 1)
        return self.embedding_parameters + self.layers * self.parameters_per_layer + final_norm

    @property
    def linear_parameters(self) -> int:
        """Weights of all decoder layers' matrices: what quantisation makes smaller."""
        return self.layers * sum(layer.num_weights for layer in self.linears)

    @property
    def smallest_matrix(self) -> int:
        """Least width of a linear layer: a low-rank update cannot have a higher rank."""
        return min(min(layer.inputs, layer.outputs) for layer in self.linears)


def _size(config: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, list | tuple) and all(isinstance(one, int) for one in value):
            value = max(value, default=None)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModelError(f"config.json: {name} is {value!r}", why="it has to be a whole number above 0", fix="copy the model's config.json again")
        return value
    if default is None:
        raise ModelError(
            f"config.json has no {names[0]}", why="the sizes of the model cannot be told without it", fix="use a decoder-only language model (a causal LM)"
        )
    return default


def _share(config: Mapping[str, Any], name: str) -> float:
    value = config.get(name) or 0.0
    if not isinstance(value, int | float):
        raise ModelError(f"config.json: {name} is {value!r}", why="it has to be a number", fix="copy the model's config.json again")
    return float(value)
