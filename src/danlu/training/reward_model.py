"""Two ways through a reward model with one result: the score of each sequence, read off its last token.

The last token is the rightmost one that is no padding, as Transformers' sequence classification has it, so that the saved
model gives the same scores there.

Shapes: N sequences of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from danlu.data.pack import EncodedExample
from danlu.training.batch import PackedBatch
from danlu.training.forward import hidden_at_labels, scored, unwrap


def reference_rewards(model: nn.Module, batch: PackedBatch) -> Tensor:
    """Score of each sequence by the stock forward [N]."""
    ids, mask, _ = batch.padded(pad_id=unwrap(model).config.get_text_config().pad_token_id)
    return model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0].float()


def fast_rewards(model: nn.Module, batch: PackedBatch) -> Tensor:
    """Score of each sequence, without padding [N]."""
    classifier = unwrap(model)
    rows_N = torch.tensor(_last_rows(batch, classifier.config.get_text_config().pad_token_id), device=batch.ids_T.device)
    at_ends = replace(batch, label_rows_L=rows_N, row_example_L=torch.arange(len(rows_N), device=rows_N.device))
    return classifier.score(hidden_at_labels(classifier, at_ends, None))[:, 0].float()


def _last_rows(batch: PackedBatch, pad_id: int) -> list[int]:
    """Row of the last token of each sequence that is not `pad_id`."""
    rows, start = [], 0
    for ids in batch.ids_T.split(batch.lengths):
        kept = torch.nonzero(ids != pad_id)
        rows.append(start + (int(kept[-1]) if len(kept) else 0))
        start += len(ids)
    return rows


def score_rewards(
    model: nn.Module,
    examples: Sequence[EncodedExample],
    *,
    micro_batch_tokens: int,
    device: torch.device | str,
    path: Literal["fast", "reference"],
    on_smaller: Callable[[int], None] = lambda tokens: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Negated score of each sequence as if it were nats of one token, so that evaluation compares it like a likelihood; both [N]."""
    rewards = fast_rewards if path == "fast" else reference_rewards

    def work(batch: PackedBatch) -> tuple[Tensor, Tensor]:
        return -rewards(model, batch).double(), torch.ones(len(batch.lengths), dtype=torch.int64)

    return scored(model, examples, work, micro_batch_tokens=micro_batch_tokens, device=device, path=path, on_smaller=on_smaller)
