"""Answers of a model to many prompts, greedy or drawn: left-padded batches with KV cache, the same in any batch.

Knows nothing of files, suites or metrics.

Shapes: B rows of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.errors import is_out_of_memory

if TYPE_CHECKING:
    from danlu.data.chat import ChatRenderer

MAX_CACHE_BYTES = 256 << 20
MAX_ROWS = 64
_PROBE = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]


@dataclass(frozen=True)
class Completion:
    """What a model wrote. `is_cut`: it had not ended after `max_new_tokens`."""

    text: str
    num_tokens: int
    is_cut: bool
    ids: tuple[int, ...] = field(default=(), compare=False, repr=False)
    """The tokens, with the one that ended it."""


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn: each row has its own random numbers, so that an answer depends on no other row of its batch."""

    uniform_BT: np.ndarray
    """Numbers in [0, 1): one for each token of each prompt."""
    temperature: float
    top_p: float


def stop_ids(renderer: ChatRenderer, model: Any) -> list[int]:
    """Ids that end a completion: the model's and the tokenizer's end tokens, and what the chat template ends a turn with."""
    tokenizer = renderer.tokenizer
    found: set[int] = set()
    for value in (tokenizer.eos_token_id, model.config.eos_token_id, getattr(model.generation_config, "eos_token_id", None)):
        found.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
    [probe] = renderer.encode([renderer.render(_PROBE)])
    last = int(probe.ids[probe.mask][-1])
    if last in tokenizer.all_special_ids or last in tokenizer.added_tokens_decoder:
        found.add(last)
    return sorted(int(i) for i in found)


def max_positions(model: Any) -> int | None:
    """Most tokens of a prompt and its completion the model can look at beside virtual tokens, where its config says so."""
    adapters = getattr(model, "peft_config", {}).values()
    num_virtual_tokens = max((adapter.num_virtual_tokens for adapter in adapters if adapter.is_prompt_learning), default=0)
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    value = getattr(config, "max_position_embeddings", None)
    return int(value) - num_virtual_tokens if value else None


def plan_batches(lengths: Sequence[int], max_new_tokens: int, bytes_per_token: int) -> list[list[int]]:
    """Positions of prompts in batches of similar length whose KV cache fits; a function of the arguments only."""
    batches: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        batch = batches[-1] if batches else []
        row_bytes = (lengths[batch[0] if batch else position] + max_new_tokens) * bytes_per_token
        if not batch or len(batch) >= MAX_ROWS or (len(batch) + 1) * row_bytes > MAX_CACHE_BYTES:
            batches.append([position])
        else:
            batch.append(position)
    return batches


def cache_bytes_per_token(model: Any) -> int:
    """Size of the KV cache per token of one row."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * model.dtype.itemsize)


def generate(
    model: Any,
    renderer: ChatRenderer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    skip: Callable[[Sequence[int]], bool] = lambda batch: False,
    on_smaller: Callable[[int], None] = lambda rows: None,
    drawing: Drawing | None = None,
) -> Iterator[dict[int, Completion]]:
    """Yield the completions of each batch by prompt position, greedy without `drawing`. Batches for which `skip(positions)` holds are left out.

    Every prompt and `max_new_tokens` together must fit the model's positions. A batch that memory does not suffice for is
    taken in halves, down to one prompt, and yielded as a whole; `on_smaller` hears how many prompts are tried then.
    """
    stops = stop_ids(renderer, model)
    with _plain_greedy(model, stops, max_new_tokens) as config:
        for batch in plan_batches([len(p) for p in prompts], max_new_tokens, cache_bytes_per_token(model)):
            if not skip(batch):
                draw = None if drawing is None else Drawing(drawing.uniform_BT[batch], drawing.temperature, drawing.top_p)
                asked = [prompts[i] for i in batch]
                yield dict(zip(batch, _complete_or_halves(model, renderer.tokenizer, asked, config, draw, on_smaller), strict=True))


def _complete_or_halves(
    model: Any, tokenizer: Any, prompts: list[Sequence[int]], config: Any, drawing: Drawing | None, on_smaller: Callable[[int], None]
) -> list[Completion]:
    try:
        return _complete(model, tokenizer, prompts, config, drawing)
    except (MemoryError, RuntimeError) as error:
        if len(prompts) == 1 or not is_out_of_memory(error):
            raise
    half = (len(prompts) + 1) // 2
    on_smaller(half)
    found: list[Completion] = []
    for rows in (slice(0, half), slice(half, None)):
        part = None if drawing is None else Drawing(drawing.uniform_BT[rows], drawing.temperature, drawing.top_p)
        found += _complete_or_halves(model, tokenizer, prompts[rows], config, part, on_smaller)
    return found


def _complete(model: Any, tokenizer: Any, prompts: list[Sequence[int]], config: Any, drawing: Drawing | None) -> list[Completion]:
    import torch
    from transformers import LogitsProcessorList

    from danlu.models.virtual import generate_rows

    width = max(len(p) for p in prompts)
    device = next(model.parameters()).device
    ids_BT = torch.full((len(prompts), width), config.pad_token_id, dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT)
    for row, prompt in enumerate(prompts):
        ids_BT[row, width - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        mask_BT[row, width - len(prompt) :] = 1
    with torch.no_grad():  # not inference_mode: what a model caches here may be used in training afterwards
        settings = {} if drawing is None else {"logits_processor": LogitsProcessorList([_Draw(drawing, device)])}
        output_BT = generate_rows(model, ids_BT.to(device), mask_BT.to(device), generation_config=config, **settings)
    stops = set(config.eos_token_id or ())
    completions = []
    for ids in output_BT[:, width:].tolist():
        end = next((i for i, token in enumerate(ids) if token in stops), None)
        text = tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        written = ids if end is None else ids[: end + 1]
        completions.append(Completion(text.strip(), len(written), end is None, tuple(written)))
    return completions


class _Draw:
    """Leaves of each row's scores only the token that its random number falls on: greedy decoding then takes it.

    Reference: nucleus, Holtzman et al. 2019, arXiv:1904.09751, eq. 2-3; the draw is by inversion of the distribution function.
    """

    def __init__(self, drawing: Drawing, device: Any) -> None:
        import torch

        self.uniform_BT = torch.from_numpy(np.ascontiguousarray(drawing.uniform_BT)).to(device)
        self.temperature, self.top_p, self.position = drawing.temperature, drawing.top_p, 0

    def __call__(self, input_ids: Any, scores_BV: Any) -> Any:
        import torch

        probability_BV = torch.softmax(scores_BV.double() / self.temperature, -1)
        order_BV = None
        if self.top_p < 1:
            probability_BV, order_BV = probability_BV.sort(dim=-1, descending=True, stable=True)
            is_outside = probability_BV.cumsum(-1) - probability_BV >= self.top_p
            probability_BV = probability_BV.masked_fill(is_outside, 0.0)
        below_BV = probability_BV.cumsum(-1)
        target_B1 = self.uniform_BT[:, self.position, None] * below_BV[:, -1:]
        chosen_B1 = torch.searchsorted(below_BV, target_B1, right=True).clamp_max(below_BV.shape[1] - 1)
        if order_BV is not None:
            chosen_B1 = order_BV.gather(1, chosen_B1)
        self.position += 1
        return torch.full_like(scores_BV, float("-inf")).scatter(1, chosen_B1, 0.0)


@contextmanager
def _plain_greedy(model: Any, stops: list[int], max_new_tokens: int) -> Iterator[Any]:
    """Stock attention, no sampling settings a model may have stored, pad id that is never attended; put back at the end."""
    from transformers import GenerationConfig

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = GenerationConfig(
        do_sample=False, num_beams=1, use_cache=True, max_new_tokens=max_new_tokens, eos_token_id=stops or None, pad_token_id=stops[0] if stops else 0
    )
    owners = [model] if inner is model else [model, inner]
    stored = [owner.generation_config for owner in owners]
    attention = inner.config._attn_implementation
    try:
        for owner in owners:
            owner.generation_config = config
        if attention not in ("sdpa", "eager"):
            inner.set_attn_implementation("sdpa" if inner._supports_sdpa else "eager")
        yield config
    finally:
        for owner, value in zip(owners, stored, strict=True):
            owner.generation_config = value
        if inner.config._attn_implementation != attention:
            inner.set_attn_implementation(attention)
