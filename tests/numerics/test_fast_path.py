"""The fast path equals the reference path: loss and every gradient, for every listed family, method and odd batch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from odd_examples import VOCABULARY, alike_examples, odd_examples
from transformers import AutoConfig, AutoModelForCausalLM

from danlu.data.pack import EncodedExample
from danlu.training import layout
from danlu.training.batch import PackedBatch
from danlu.training.forward import fast_nll, reference_nll, score_examples, unwrap
from danlu.training.kernels import attention, decoder, gemm
from danlu.training.methods.full import Full
from danlu.training.methods.lora import LoRA

pytestmark = [
    pytest.mark.slow,
    # Warnings of PEFT and Transformers about each other, and about adapters of DeepSeek's experts, which a dense model lacks.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:target_parameters=:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys:RuntimeWarning"),
]
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
GROUPED = SMALL | {"num_key_value_heads": 2}
DENSE_DEEPSEEK = SMALL | {
    "num_key_value_heads": 4,
    "first_k_dense_replace": 3,
    "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
}
NO_DROPOUT = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", GROUPED | {"tie_word_embeddings": False}),
    "llama-tied-biased": ("llama", SMALL | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "deepseek-llama": ("llama", SMALL | {"tie_word_embeddings": False, "rope_theta": 1e6, "head_dim": 24}),
    "qwen2": ("qwen2", GROUPED | {"tie_word_embeddings": True}),
    "qwen2-sliding": ("qwen2", GROUPED | {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}),
    "qwen3": ("qwen3", GROUPED | {"head_dim": 24, "tie_word_embeddings": True}),
    "qwen3-untied-biased": ("qwen3", GROUPED | {"head_dim": 16, "tie_word_embeddings": False, "attention_bias": True}),
    "mistral-sliding": ("mistral", GROUPED | {"sliding_window": 5}),
    "gemma": ("gemma", GROUPED | {"head_dim": 16}),
    "gemma2-softcap": ("gemma2", GROUPED | {"head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 24}),
    "gemma3": ("gemma3_text", GROUPED | {"head_dim": 16, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
    "phi": ("phi", SMALL | {"resid_pdrop": 0.0, "embd_pdrop": 0.0}),
    "phi3": ("phi3", GROUPED | {"pad_token_id": 0, "sliding_window": 9}),
    "gpt2": ("gpt2", {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128} | NO_DROPOUT),
    "deepseek-v3-dense": ("deepseek_v3", DENSE_DEEPSEEK),
}
FUSED = {"llama", "llama-tied-biased", "deepseek-llama", "qwen2", "qwen2-sliding", "qwen3", "qwen3-untied-biased", "mistral-sliding"}
TOLERANCE = 1e-5


def make_model(family: str, *, path: str) -> Any:
    """A small random model; biases and norm weights are moved off their zeros and ones, so that forgetting one shows."""
    kind, settings = FAMILIES[family]
    implementation = attention.NAME if path == "fast" else "eager" if "softcap" in family else "sdpa"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **copy.deepcopy(settings)), dtype=torch.float32, attn_implementation=implementation)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.08)
    return model


def with_method(model: Any, method: str, *, fused: bool) -> Any:
    torch.manual_seed(2)
    tuned = (Full() if method == "full" else LoRA(rank=4, alpha=12.0)).apply(model, fused=fused)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return tuned.train()


def relative_error(value: torch.Tensor, expected: torch.Tensor) -> float:
    return float((value.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-30))


def loss_and_gradients(model: Any, nll: Any, batch: PackedBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss = nll(model, batch).sum() / batch.num_label_tokens
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_fast_path_equals_the_reference_in_loss_and_every_gradient(family: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BLOCK_ROWS", 8)  # several blocks per example
    batch = PackedBatch.from_examples(odd_examples())
    expected_loss, expected = loss_and_gradients(with_method(make_model(family, path="reference"), method, fused=False), reference_nll, batch)
    model = with_method(make_model(family, path="fast"), method, fused=True)

    loss, gradients = loss_and_gradients(model, fast_nll, batch)

    assert (decoder.plan(unwrap(model).get_decoder()) is not None) == (family in FUSED)
    assert relative_error(loss, expected_loss) <= TOLERANCE
    assert gradients.keys() == expected.keys()
    errors = {name: relative_error(gradients[name], gradient) for name, gradient in expected.items() if gradient.norm() > 1e-7}
    assert len(errors) >= len(expected) // 2
    assert {name: error for name, error in errors.items() if error > TOLERANCE} == {}
    assert all(gradients[name].norm() <= 1e-6 for name in expected.keys() - errors.keys())


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("family", ["llama-tied-biased", "qwen2-sliding", "qwen3", "mistral-sliding"])
def test_a_beginning_that_examples_share_is_computed_once_and_changes_nothing(family: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BLOCK_ROWS", 8)
    monkeypatch.setattr(layout, "MIN_SHARED", 4)
    batch = PackedBatch.from_examples(alike_examples())
    expected_loss, expected = loss_and_gradients(with_method(make_model(family, path="reference"), method, fused=False), reference_nll, batch)

    loss, gradients = loss_and_gradients(with_method(make_model(family, path="fast"), method, fused=True), fast_nll, batch)

    assert len(batch.ids_T) == 161 and max(span.stop for span in layout.layout_of(batch).spans) == 74
    assert relative_error(loss, expected_loss) <= TOLERANCE
    assert {name for name, gradient in expected.items() if gradient.norm() > 1e-7 and relative_error(gradients[name], gradient) > TOLERANCE} == set()


@pytest.mark.parametrize("family", ["llama", "mistral-sliding", "gemma2-softcap", "gpt2"])
def test_scores_come_in_the_order_given_and_leave_the_model_as_it_was(family: str) -> None:
    model = with_method(make_model(family, path="reference"), "lora", fused=True)
    implementation = unwrap(model).config._attn_implementation
    examples = odd_examples()

    fast, counts = score_examples(model, examples, micro_batch_tokens=40, device="cpu", path="fast")
    reference, reference_counts = score_examples(model, examples, micro_batch_tokens=25, device="cpu", path="reference")

    assert counts.tolist() == reference_counts.tolist() == [14, 1, 1, 0, 5, 0]
    assert fast == pytest.approx(reference, rel=1e-5)
    assert (model.training, unwrap(model).config._attn_implementation) == (True, implementation)


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_batches_of_many_sizes_make_products_of_few_shapes(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every new shape is compiled and kept by oneDNN: half a megabyte each, and a millisecond."""
    if not gemm.has_onednn():
        pytest.skip("this build of torch has no oneDNN")
    draw = np.random.default_rng(0)
    examples = [EncodedExample(draw.integers(1, VOCABULARY, n).astype(np.uint32), np.arange(n) >= n // 2) for n in draw.integers(2, 60, 120)]
    batches = [PackedBatch.from_examples(examples[first : first + 3]) for first in range(0, 120, 3)]
    model = with_method(make_model(family, path="fast"), "lora", fused=True)
    shapes: set[tuple[torch.Size, torch.Size]] = set()
    product = gemm.nt

    def noted(x: torch.Tensor, w: torch.Tensor, *args: Any) -> torch.Tensor:
        shapes.add((x.shape, w.shape))
        return product(x, w, *args)

    monkeypatch.setattr(gemm, "nt", noted)
    found = []
    for is_filled in (False, True):
        monkeypatch.setattr(gemm, "has_fast_onednn", lambda is_filled=is_filled: is_filled)
        shapes.clear()
        losses = [float(fast_nll(model, batch).mean().detach()) for batch in batches]
        found.append((losses, len(shapes)))
    (exact, many), (filled, few) = found

    assert filled == pytest.approx(exact, rel=1e-5)
    assert few < 0.5 * many
