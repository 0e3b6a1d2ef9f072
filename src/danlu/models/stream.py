"""One answer of a model, piece by piece as it is generated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
) -> Iterator[str]:
    """Yield the text of the answer to `prompt_ids`; temperature 0 always takes the likeliest token. A token of `stop_ids` ends it."""
    import torch
    from transformers import GenerationConfig, TextIteratorStreamer

    ids = torch.tensor([list(prompt_ids)], device=model.device)
    streamer: Any = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    draw: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {"do_sample": False}
    settings = GenerationConfig(max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id, eos_token_id=list(stop_ids), **draw)

    def generate() -> None:
        if seed is not None:
            torch.manual_seed(seed)
        try:
            with torch.inference_mode():
                generate_rows(model, ids, torch.ones_like(ids), generation_config=settings, streamer=streamer)
        finally:
            streamer.end()  # an error must not leave the reader waiting

    with ThreadPoolExecutor(1) as executor:
        generation = executor.submit(generate)
        yield from streamer
        generation.result()
