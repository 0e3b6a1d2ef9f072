"""One answer of a model, piece by piece as it is generated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from danlu.models.virtual import generate_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def stream_answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[int],
    *,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    seed: int | None = None,
    on_token: Callable[[], bool] = lambda: True,
) -> Iterator[str]:
    """Yield the text of the answer to `prompt_ids`; temperature 0 always takes the likeliest token. A token of `stop_ids` ends it.

    `on_token` is called for each token that was written; when it returns False, no more are. Nor are they when the iterator is closed.
    """
    import torch
    from transformers import GenerationConfig, StoppingCriteriaList, TextIteratorStreamer

    is_closed = False

    def is_enough(written_BT: torch.Tensor, scores: Any, **settings: Any) -> torch.Tensor:
        return torch.full((len(written_BT),), not on_token() or is_closed, device=written_BT.device)

    ids = torch.tensor([list(prompt_ids)], device=model.device)
    streamer: Any = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    draw: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {"do_sample": False}
    settings = GenerationConfig(max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id, eos_token_id=list(stop_ids), **draw)

    def generate() -> None:
        if seed is not None:
            torch.manual_seed(seed)
        try:
            with torch.inference_mode():
                stopping = StoppingCriteriaList([is_enough])
                generate_rows(model, ids, torch.ones_like(ids), generation_config=settings, streamer=streamer, stopping_criteria=stopping)
        finally:
            streamer.end()  # an error must not leave the reader waiting

    with ThreadPoolExecutor(1) as executor:
        generation = executor.submit(generate)
        try:
            yield from streamer
        finally:
            is_closed = True
        generation.result()
