"""Two ways through the model with one result: the negative log-likelihood of every label token.

`reference_nll` is what a textbook would write: padded batch, stock Transformers forward, full logits.
`fast_nll` lays the examples end to end, attends inside each example only, and computes head and loss at label
rows only. tests/numerics proves them equal (loss and gradients) for every listed family.

Shapes: T tokens, L label rows, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.data.pack import EncodedExample, pack
from danlu.errors import is_out_of_memory
from danlu.models.virtual import VirtualTokens, virtual_tokens
from danlu.training.batch import PackedBatch
from danlu.training.kernels import attention, decoder, int8, sizes
from danlu.training.kernels.cross_entropy import linear_cross_entropy
from danlu.training.kernels.projection import stretches
from danlu.training.layout import layout_of
from danlu.training.prompt import put_before, with_room


def reference_nll(model: nn.Module, batch: PackedBatch) -> Tensor:
    """Negative log-likelihood in nats of each label token, in the order of `batch.labels_L` [L]."""
    ids, mask, labels = batch.padded(pad_id=0)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    logits = logits[:, -ids.shape[1] :]  # without those at virtual tokens
    nll = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), labels[:, 1:], reduction="none", ignore_index=-100)
    return nll[labels[:, 1:] != -100]


def fast_nll(model: nn.Module, batch: PackedBatch, *, weighs_rows: bool = False) -> Tensor:
    """Negative log-likelihood in nats of each label token [L], without padding and without full logits.

    `weighs_rows` says that the loss is not a plain sum over the rows: it saves work where the head is trained.
    """
    causal_lm = unwrap(model)
    hidden_LD = hidden_at_labels(causal_lm, batch, virtual_tokens(model))
    head = causal_lm.get_output_embeddings()
    scale, softcap = _logit_scale(causal_lm.config), getattr(causal_lm.config, "final_logit_softcapping", None)
    if _is_one_matrix(head):
        bias = getattr(head, "bias", None)
        return linear_cross_entropy(
            hidden_LD, head.weight, bias, batch.labels_L, scale=scale, softcap=softcap, weighs_rows=weighs_rows, rounded=int8.rounded_head(head)
        )
    logits_LV = head(hidden_LD).float() * scale
    if softcap is not None:
        logits_LV = torch.tanh(logits_LV / softcap) * softcap
    return F.cross_entropy(logits_LV, batch.labels_L, reduction="none")


def _is_one_matrix(head: nn.Module) -> bool:
    """Whether the head's `weight` is all it computes with: itself, or PEFT's stand-in for one that is trained whole or by rows; no adapter in it."""
    from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper

    return type(head) is nn.Linear or isinstance(head, ModulesToSaveWrapper | TrainableTokensWrapper)


def hidden_at_labels(causal_lm: Any, batch: PackedBatch, virtual: VirtualTokens | None) -> Tensor:
    """The last hidden state at the label rows of a packed batch [L, D]."""
    core = causal_lm.get_decoder()
    num_before, prefix, embedded_TD = 0, None, None
    if virtual is not None and virtual.prompt_VD is not None:
        tokens_TD = core.get_input_embeddings()(batch.ids_T)
        embedded_TD = put_before(virtual.prompt_VD, tokens_TD, batch.lengths)
        batch = with_room(batch, virtual.num_tokens)
    elif virtual is not None:
        num_before, prefix = virtual.num_tokens, virtual.prefix
    parts = decoder.plan(core) if prefix is None else None
    if parts is not None:
        return decoder.hidden_at_labels(core, parts, layout_of(batch, may_share=embedded_TD is None and stretches() is None), embedded_TD)
    num_tokens = len(batch.ids_T)
    count = sizes.filled(num_tokens, batch.ids_T.device)
    fill = (count - num_tokens,) if count > num_tokens else ()  # an example behind the others that nobody reads
    first = batch.ids_T if embedded_TD is None else embedded_TD
    inputs = {"input_ids" if embedded_TD is None else "inputs_embeds": sizes.with_rows(first, count)[None]}
    with attention.packed(batch.lengths + fill, prefix):
        hidden = core(**inputs, position_ids=sizes.with_rows(batch.positions_T, count)[None] + num_before, use_cache=False).last_hidden_state
    return hidden[0].index_select(0, batch.label_rows_L)


def unwrap(model: nn.Module) -> Any:
    """The Transformers causal LM inside a PEFT model, or the model itself."""
    wrapped: Any = model
    return wrapped.get_base_model() if hasattr(model, "get_base_model") else model


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


def score_examples(
    model: nn.Module,
    examples: Sequence[EncodedExample],
    *,
    micro_batch_tokens: int,
    device: torch.device | str,
    path: Literal["fast", "reference"],
    on_smaller: Callable[[int], None] = lambda tokens: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Nats (float64) and number of label tokens (int64) of each example, in the order given, both [N].

    The model is left as it was: training mode, attention implementation. A batch that memory does not suffice for is taken
    in halves, down to one example; `on_smaller` hears how many tokens are tried then.
    """
    nll = fast_nll if path == "fast" else reference_nll

    def work(batch: PackedBatch) -> tuple[Tensor, Tensor]:
        return example_nll(nll(model, batch), batch)

    return scored(model, examples, work, micro_batch_tokens=micro_batch_tokens, device=device, path=path, on_smaller=on_smaller)


@torch.no_grad()
def scored(
    model: nn.Module,
    examples: Sequence[EncodedExample],
    work: Callable[[PackedBatch], tuple[Tensor, Tensor]],
    *,
    micro_batch_tokens: int,
    device: torch.device | str,
    path: str,
    on_smaller: Callable[[int], None],
) -> tuple[np.ndarray, np.ndarray]:
    """A value (float64) and a count (int64) of each example, which `work` gives for a packed batch, both [N]; zero without label tokens."""
    values, counts = np.zeros(len(examples)), np.zeros(len(examples), np.int64)
    was_training = model.training
    model.eval()
    try:
        with attention_of(unwrap(model), path):
            waiting = pack([len(e.ids) for e in examples], micro_batch_tokens)[::-1]
            while waiting:
                group = waiting.pop()
                batch = PackedBatch.from_examples([examples[i] for i in group], device)
                if not batch.num_label_tokens:
                    continue
                try:
                    found, numbers = work(batch)
                except (MemoryError, RuntimeError) as error:
                    if len(group) == 1 or not is_out_of_memory(error):
                        raise
                    waiting += [group[len(group) // 2 :], group[: len(group) // 2]]
                    on_smaller(max(sum(len(examples[i].ids) for i in half) for half in waiting[-2:]))
                    continue
                values[group], counts[group] = found.cpu().numpy(), numbers.cpu().numpy()
    finally:
        model.train(was_training)
    return values, counts


@contextmanager
def attention_of(causal_lm: Any, path: str) -> Iterator[None]:
    """Make the attention of `causal_lm` fit the path for a while."""
    previous = causal_lm.config._attn_implementation
    if path == "fast":
        wanted = attention.NAME
    elif previous != attention.NAME:
        wanted = previous
    else:
        wanted = "eager" if getattr(causal_lm.config, "attn_logit_softcapping", None) else "sdpa"
    if wanted != previous:
        causal_lm.set_attn_implementation(wanted)
    try:
        yield
    finally:
        if wanted != previous:
            causal_lm.set_attn_implementation(previous)
