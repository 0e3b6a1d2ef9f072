"""Two ways through the model with one result: the negative log-likelihood of every label token.

`reference_nll` is what a textbook would write: padded batch, stock Transformers forward, full logits.
`fast_nll` lays the examples end to end, attends inside each example only, and computes head and loss at label
rows only. tests/numerics proves them equal (loss and gradients) for every listed family.

Shapes: T tokens, L label rows, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.training.batch import PackedBatch
from danlu.training.kernels import attention
from danlu.training.kernels.cross_entropy import linear_cross_entropy


def reference_nll(model: nn.Module, batch: PackedBatch) -> Tensor:
    """Negative log-likelihood in nats of each label token, in the order of `batch.labels_L` [L]."""
    ids, mask, labels = batch.padded(pad_id=0)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    nll = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), labels[:, 1:], reduction="none", ignore_index=-100)
    return nll[labels[:, 1:] != -100]


def fast_nll(model: nn.Module, batch: PackedBatch) -> Tensor:
    """Negative log-likelihood in nats of each label token [L], without padding and without full logits."""
    causal_lm = unwrap(model)
    with attention.packed(batch.lengths):
        hidden = causal_lm.get_decoder()(input_ids=batch.ids_T[None], position_ids=batch.positions_T[None], use_cache=False).last_hidden_state
    hidden_LD = hidden[0].index_select(0, batch.label_rows_L)
    head = causal_lm.get_output_embeddings()
    return linear_cross_entropy(hidden_LD, head.weight, getattr(head, "bias", None), batch.labels_L, scale=_logit_scale(causal_lm.config), softcap=getattr(causal_lm.config, "final_logit_softcapping", None))


def unwrap(model: nn.Module) -> Any:
    """The Transformers causal LM inside a PEFT model, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _logit_scale(config: Any) -> float:
    """Factor some families multiply the logits with (Cohere: logit_scale; Granite: 1 / logits_scaling)."""
    if getattr(config, "logit_scale", None):
        return float(config.logit_scale)
    return 1.0 / float(getattr(config, "logits_scaling", 1.0) or 1.0)


def example_nll(nll_L: Tensor, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """Sum of nats and number of label tokens of each example, both [N]."""
    sums = torch.zeros(len(batch.lengths), dtype=torch.float64, device=nll_L.device)
    sums.index_add_(0, batch.row_example_L, nll_L.double())
    counts = torch.bincount(batch.row_example_L, minlength=len(batch.lengths))
    return sums, counts
