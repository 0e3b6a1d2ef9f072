"""The fast path equals the reference path, loss and every gradient, for every method and what it can be set to."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from odd_examples import VOCABULARY, odd_examples
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, MistralConfig, Qwen3Config

from danlu.models.load import load_model
from danlu.models.virtual import virtual_tokens
from danlu.recipe.base import METHODS
from danlu.training.batch import PackedBatch
from danlu.training.forward import fast_nll, reference_nll, unwrap
from danlu.training.kernels import attention, decoder
from danlu.training.noise import draw, with_embedding_noise
from models import write_model

SMALL: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
LLAMA_LIKE = SMALL | {"num_key_value_heads": 2, "intermediate_size": 64, "head_dim": 16}
FAMILIES = {
    "qwen3": Qwen3Config(**LLAMA_LIKE, tie_word_embeddings=True),
    "qwen3-untied": Qwen3Config(**LLAMA_LIKE, tie_word_embeddings=False),
    "mistral-sliding": MistralConfig(**LLAMA_LIKE, sliding_window=5),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=48, n_layer=2, n_head=4, n_positions=128, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0),
}
LOW_RANK: dict[str, Any] = {"rank": 4, "alpha": 12.0}
CASES: dict[str, tuple[dict[str, Any], bool | None]] = {
    "rslora": ({"type": "lora", **LOW_RANK, "use_rslora": True}, True),
    "dora": ({"type": "lora", **LOW_RANK, "use_dora": True}, False),
    "pissa": ({"type": "lora", **LOW_RANK, "init": "pissa"}, True),
    "last-layer": ({"type": "lora", **LOW_RANK, "layers": [-1]}, True),
    "head": ({"type": "lora", **LOW_RANK, "target_modules": ["lm_head", "v_proj"]}, True),
    "new-tokens": ({"type": "lora", **LOW_RANK}, True),
    "ends": ({"type": "lora_plus_full", **LOW_RANK}, True),
    "norms": ({"type": "lora_plus_full", **LOW_RANK, "modules_to_save": ["norm"]}, True),
    "feed-forward": ({"type": "lora_plus_full", **LOW_RANK, "modules_to_save": ["mlp"]}, True),
    "one-layer-whole": ({"type": "lora_plus_full", **LOW_RANK, "modules_to_save": ["layers.0.self_attn.q_proj"]}, False),
    "ia3": ({"type": "ia3"}, False),
    "prompt_tuning": ({"type": "prompt_tuning", "num_virtual_tokens": 5}, True),
    "p_tuning": ({"type": "p_tuning", "num_virtual_tokens": 5}, True),
    "p_tuning_v2": ({"type": "p_tuning_v2", "num_virtual_tokens": 5}, None),
    "freeze": ({"type": "freeze", "num_layers": 1, "train_embeddings": True, "train_head": True}, True),
}
"""Name -> method, whether the fused layers compute it (None: a fused model is read otherwise)."""
TOLERANCE = 1e-5


def make(family: str, method: dict[str, Any], *, path: str, new_token_ids: tuple[int, ...] = ()) -> Any:
    implementation = attention.NAME if path == "fast" else "sdpa"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(FAMILIES[family]), dtype=torch.float32, attn_implementation=implementation)
    tuned = METHODS.parse(method).apply(model, fused=path == "fast", new_token_ids=new_token_ids)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if parameter.requires_grad and "lora_A" not in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return tuned.train()


def loss_and_gradients(model: Any, nll: Any, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
    loss = nll(model, batch).sum() / batch.num_label_tokens
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def relative_error(value: Tensor, expected: Tensor) -> float:
    return float((value.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-30))


def assert_paths_agree(fast: Any, reference: Any) -> None:
    batch = PackedBatch.from_examples(odd_examples())
    expected_loss, expected = loss_and_gradients(reference, reference_nll, batch)
    loss, gradients = loss_and_gradients(fast, fast_nll, batch)

    assert relative_error(loss, expected_loss) <= TOLERANCE
    assert gradients.keys() == expected.keys()
    assert {n: e for n, g in expected.items() if g.norm() > 1e-7 and (e := relative_error(gradients[n], g)) > TOLERANCE} == {}
    assert any(g.norm() > 1e-7 for g in expected.values())


@pytest.mark.parametrize("case", CASES)
def test_the_fast_path_equals_the_reference_for_every_method(case: str) -> None:
    method, is_fused = CASES[case]
    for family in ("qwen3", "qwen3-untied"):
        if case == "head" and family == "qwen3":
            continue  # a head that is the embedding matrix gets no adapter
        new_token_ids = (3, 90) if case == "new-tokens" else ()
        fast, reference = (make(family, method, path=path, new_token_ids=new_token_ids) for path in ("fast", "reference"))
        if is_fused is not None:
            assert (decoder.plan(unwrap(fast).get_decoder()) is not None) == is_fused
        assert_paths_agree(fast, reference)


@pytest.mark.parametrize("family", ["mistral-sliding", "gpt2"])
@pytest.mark.parametrize("method", ["prompt_tuning", "p_tuning_v2", "ia3"])
def test_virtual_tokens_and_factors_agree_in_other_families(family: str, method: str) -> None:
    values = {"type": method} | ({} if method == "ia3" else {"num_virtual_tokens": 4})

    assert_paths_agree(make(family, values, path="fast"), make(family, values, path="reference"))


@pytest.mark.parametrize("method", ["prompt_tuning", "p_tuning_v2"])
def test_a_prompt_that_is_switched_off_has_no_effect_and_comes_back(method: str) -> None:
    model = make("qwen3", {"type": method, "num_virtual_tokens": 4}, path="fast").eval()
    batch = PackedBatch.from_examples(odd_examples())
    plain = make("qwen3", {"type": "full"}, path="fast")
    plain.load_state_dict(model.get_base_model().state_dict())

    with torch.no_grad():
        before = fast_nll(model, batch)
        with model.disable_adapter():
            assert virtual_tokens(model) is None
            torch.testing.assert_close(fast_nll(model, batch), fast_nll(plain.eval(), batch), rtol=0, atol=0)
        assert torch.equal(fast_nll(model, batch), before)


@pytest.fixture(scope="module")
def small_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "small", hidden_size=32, intermediate_size=64, num_attention_heads=2, vocab_size=VOCABULARY)


@pytest.mark.parametrize("values", [{"bits": 4}, {"bits": 4, "double_quant": False}, {"bits": 8}, {"bits": 4, "use_dora": True}], ids=str)
def test_quantised_layers_are_computed_by_their_own_forward_with_the_dequantised_weight(values: dict[str, Any], small_dir: Path) -> None:
    method = METHODS.parse({"type": "qlora", **LOW_RANK, **values})

    def quantised(path: str) -> Any:
        torch.manual_seed(1)
        name = attention.NAME if path == "fast" else None
        model = load_model(small_dir, dtype=torch.float32, attention=name, quantisation=method.quantisation)
        generator = torch.Generator().manual_seed(3)
        tuned = method.apply(model, fused=path == "fast")
        with torch.no_grad():
            for parameter in (p for n, p in tuned.named_parameters() if "lora_B" in n):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        return tuned.train()

    fast, reference = quantised("fast"), quantised("reference")

    assert_paths_agree(fast, reference)
    assert decoder.plan(unwrap(fast).get_decoder()) is None
    assert {str(p.dtype) for n, p in fast.named_parameters() if "base_layer" in n} == {"torch.uint8" if method.quantisation.bits == 4 else "torch.int8"}
    assert all("lora_" in name for name, p in fast.named_parameters() if p.requires_grad)


def test_a_validation_does_not_change_what_4_bit_layers_compute_in_training(small_dir: Path) -> None:
    """bitsandbytes repacks 4-bit weights for bfloat16 at the first forward pass in eval mode on processors that have it."""
    method = METHODS.parse({"type": "qlora", **LOW_RANK})
    torch.manual_seed(1)
    model = method.apply(load_model(small_dir, dtype=torch.float32, attention=attention.NAME, quantisation=method.quantisation), fused=True)
    batch = PackedBatch.from_examples(odd_examples())

    with torch.no_grad():
        before, during, after = (fast_nll(model.train(is_training), batch) for is_training in (True, False, True))

    assert torch.equal(before, during) and torch.equal(before, after)


def test_noise_is_uniform_and_smaller_in_longer_examples() -> None:
    """Jain et al. 2023, algorithm 1: uniform in [-1, 1] times alpha / sqrt(L D)."""
    batch = PackedBatch.from_examples(odd_examples())
    torch.manual_seed(0)
    noise = draw(batch, 400, alpha=5.0)

    for piece, length in zip(noise.split(batch.lengths), batch.lengths, strict=True):
        bound = 5.0 / (length * 400) ** 0.5
        assert float(piece.abs().max()) <= bound
        assert float(piece.std()) == pytest.approx(bound / 3**0.5, rel=0.1)


def test_noise_is_the_same_in_both_paths_and_only_there_in_training() -> None:
    batch = PackedBatch.from_examples(odd_examples())
    losses = {}
    for path, nll in (("fast", fast_nll), ("reference", reference_nll)):
        model = make("qwen3", {"type": "prompt_tuning", "num_virtual_tokens": 4}, path=path)
        noisy = with_embedding_noise(nll, alpha=50.0)
        torch.manual_seed(0)
        losses[path] = noisy(model, batch).detach()
        assert not torch.allclose(losses[path], nll(model, batch), atol=1e-3)
        assert torch.equal(noisy(model.eval(), batch), nll(model, batch))
        with torch.no_grad():
            assert torch.equal(noisy(model.train(), batch), nll(model, batch))

    torch.testing.assert_close(losses["fast"], losses["reference"], rtol=1e-5, atol=1e-5)
