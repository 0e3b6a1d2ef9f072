"""Negative log-likelihood of examples under base and tuned: encode, score, and count tokens and bytes.

A number of nats belongs to tokens; divided by the UTF-8 bytes of the same text it compares across tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.data.encode import EncodeAccount, encode_batch
from danlu.errors import EvaluationError

if TYPE_CHECKING:
    from danlu.data.chat import ChatRenderer
    from danlu.data.pack import EncodedExample
    from danlu.evaluation.run import Evaluation
    from danlu.recipe.base import ObjectiveConfig

BATCH = 128


@dataclass
class EncodedSet:
    """Encoded examples: `blocks[k]` are those of `examples[index[k]]`; the others are in `account.dropped`."""

    index: list[int]
    blocks: list[list[EncodedExample]]
    num_bytes: list[int]
    account: EncodeAccount


def encode_set(examples: Sequence[dict[str, Any]], objective: ObjectiveConfig, renderer: ChatRenderer, *, max_seq_len: int, truncation: str) -> EncodedSet:
    """Encode as training does; what is dropped or shortened is accounted for."""
    found = EncodedSet([], [], [], EncodeAccount())
    for position, example in enumerate(examples):
        for blocks in encode_batch([example], found.account, objective, renderer, max_seq_len, truncation):
            found.index.append(position)
            found.blocks.append(blocks)
            found.num_bytes.append(trained_bytes(example, blocks, renderer))
    return found


def trained_bytes(example: dict[str, Any], blocks: Sequence[EncodedExample], renderer: ChatRenderer) -> int:
    """UTF-8 bytes of the text that is scored: trained tokens, without special tokens and without a document's first token."""
    if "text" in example:
        first = _decode(renderer, blocks[0].ids[:1])
        return max(0, len(example["text"].encode()) - len(first.encode()))
    return sum(len(_decode(renderer, block.ids[block.mask]).encode()) for block in blocks)


def _decode(renderer: ChatRenderer, ids: Any) -> str:
    return str(renderer.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True, clean_up_tokenization_spaces=False))


def measure(evaluation: Evaluation, model: Any, encoded: EncodedSet, what: str) -> tuple[list[float], list[int]]:
    """Nats and label tokens of each encoded example."""
    nats: list[float] = []
    tokens: list[int] = []
    for start in range(0, len(encoded.blocks), BATCH):
        group = encoded.blocks[start : start + BATCH]
        found_nats, found_tokens = evaluation.score(model, [block for blocks in group for block in blocks])
        if not np.isfinite(found_nats).all():
            raise EvaluationError(
                f"{what}: the model gives NaN or infinite likelihoods",
                why="its weights are broken, or training diverged",
                fix="train again with a lower optim.learning_rate, or check the base model",
            )
        ends = np.cumsum([len(blocks) for blocks in group])[:-1]
        nats.extend(float(part.sum()) for part in np.split(np.asarray(found_nats, np.float64), ends))
        tokens.extend(int(part.sum()) for part in np.split(np.asarray(found_tokens, np.int64), ends))
        evaluation.reporter.progress(what, len(nats), len(encoded.blocks))
    return nats, tokens
