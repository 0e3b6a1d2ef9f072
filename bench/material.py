"""What every system trains on: one random model of the bench's shape on disk, and one file of conversations."""

import json
from pathlib import Path
from typing import Any

import numpy as np

SHAPE: dict[str, Any] = {
    "vocab_size": 32768,
    "hidden_size": 768,
    "intermediate_size": 2304,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "initializer_range": 0.05,  # a first loss well off ln(vocabulary), so that comparing losses says something
}
"""A Qwen3 model of 108 M parameters."""
MAX_SEQ_LEN = 1024
LABEL_SHARE = 0.4


def make_model(folder: Path) -> None:
    """Write the model with the tokenizer of danlu/tiny; its 8,000 ids are a part of the vocabulary."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config

    from danlu.bundled import FOLDER

    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "tiny")
    torch.manual_seed(0)
    config = Qwen3Config(**SHAPE, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_data(file: Path, model: Path, *, num_examples: int) -> None:
    """Write conversations of 40 to 1,000 tokens, made of the bundled texts, about 40 % of them answer.

    They are written in the order in which Danlu's first epoch visits them, so that systems that read the file in order
    see the same batches.
    """
    from transformers import AutoTokenizer

    from danlu.bundled import FOLDER
    from danlu.data.pack import epoch_order

    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = [m["content"] for line in (FOLDER / "general.jsonl").read_text("utf-8").splitlines() for m in json.loads(line)["messages"]]
    stream = tokenizer(" ".join(texts), add_special_tokens=False)["input_ids"]
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(5.9, 0.6, num_examples), 40, 1000).astype(int) - 12  # the template adds about twelve tokens
    rows: list[dict[str, Any]] = []
    for length in lengths:
        start = int(generator.integers(0, len(stream) - length))
        cut = start + int(length * (1 - LABEL_SHARE))
        prompt, answer = tokenizer.decode(stream[start:cut]), tokenizer.decode(stream[cut : start + length])
        rows.append({"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]})
    # Danlu visits row order[0] first: the file holds the rows such that both orders are the same.
    order = epoch_order(num_examples, seed=0, epoch=0)
    placed: list[dict[str, Any]] = [{}] * num_examples
    for position, index in enumerate(order):
        placed[int(index)] = rows[position]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in placed), "utf-8")
    in_order = file.with_name("in-order.jsonl")
    in_order.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def executed_flops(lengths: list[int], labels: list[int], rank: int, *, block_rows: int) -> float:
    """Floating-point operations of Danlu's fast path in matrix products, forward and backward, for these examples.

    Frozen weights have no gradient; the first layer has no input gradient below q, k and v; the last layer goes on at
    label rows. Attention counts the blocks that are computed, scores twice (they are computed again in backward).
    """
    width, inner, layers = SHAPE["hidden_size"], SHAPE["intermediate_size"], SHAPE["num_hidden_layers"]
    heads, groups, head = SHAPE["num_attention_heads"], SHAPE["num_key_value_heads"], SHAPE["head_dim"]
    tokens, rows = sum(lengths), sum(labels)
    total = 4.0 * rows * width * SHAPE["vocab_size"]
    inputs = [(width, heads * head), (width, groups * head), (width, groups * head)]
    rest = [(heads * head, width), (width, inner), (width, inner), (inner, width)]
    for layer in range(layers):
        dx = layer > 0
        after = rows if layer == layers - 1 else tokens
        total += sum(tokens * (2 * k * n * (1 + dx) + 2 * rank * (2 * k + 3 * n + (k if dx else 0))) for k, n in inputs)
        total += sum(after * (4 * k * n + 6 * rank * (k + n)) for k, n in rest)
        total += sum(14.0 * heads * head * _scores(length, block_rows) for length in lengths)
    return total


def _scores(length: int, block_rows: int) -> int:
    """Pairs (query, key) that block attention computes."""
    return sum((min(first + block_rows, length) - first) * min(first + block_rows, length) for first in range(0, length, block_rows))
