"""How many floating-point operations training with adapters executes in matrix products. Plain arithmetic, no torch.

Reference: Kaplan et al. 2020, arXiv:2001.08361, section 2.1, counts 2 per weight and token forward and 4 backward; here
the gradients of frozen weights are not computed, so 2 of the 4 fall away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def executed_flops(
    shape: Mapping[str, Any], lengths: Sequence[int], num_labels: int, *, adapter_rank: int, block_rows: int = 1, is_fused: bool = True
) -> float:
    """Operations of one forward and backward pass over examples of these lengths with an adapter on every linear layer.

    `shape` holds the names of a Transformers config of the Llama kind. Fused layers leave out the input gradient below
    the first q, k and v and go on with label rows only after the last attention. Attention counts the blocks of
    `block_rows` queries that are computed, and the scores twice (they are computed again in the backward pass).
    """
    width, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    heads, groups, head = shape["num_attention_heads"], shape["num_key_value_heads"], shape["head_dim"]
    tokens = sum(lengths)
    total = 4.0 * num_labels * width * shape["vocab_size"]
    inputs = [(width, heads * head), (width, groups * head), (width, groups * head)]
    rest = [(heads * head, width), (width, inner), (width, inner), (inner, width)]
    scores = sum(_scores(length, block_rows) for length in lengths)
    for layer in range(layers):
        dx = layer > 0 or not is_fused
        after = num_labels if is_fused and layer == layers - 1 else tokens
        total += sum(tokens * (2 * k * n * (1 + dx) + 2 * adapter_rank * (2 * k + 3 * n + (k if dx else 0))) for k, n in inputs)
        total += sum(after * (4 * k * n + 6 * adapter_rank * (k + n)) for k, n in rest)
        total += 14.0 * heads * head * scores
    return total


def _scores(length: int, block_rows: int) -> int:
    """Pairs (query, key) that block attention computes."""
    return sum((min(first + block_rows, length) - first) * min(first + block_rows, length) for first in range(0, length, block_rows))
