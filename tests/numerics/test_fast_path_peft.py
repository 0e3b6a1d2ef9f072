"""Adapters go both ways between the fused path and stock PEFT, and unusual adapters fall back to PEFT's own forward."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from odd_examples import odd_examples
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, PhiConfig

from danlu.training.batch import PackedBatch
from danlu.training.forward import fast_nll, reference_nll, unwrap
from danlu.training.kernels import decoder
from danlu.training.kernels.lora import FusedLoraLinear
from danlu.training.methods.lora import LoRA

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
SMALL: dict[str, Any] = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIGS = {"llama": LlamaConfig(**SMALL, num_key_value_heads=2), "phi": PhiConfig(**SMALL, resid_pdrop=0.0, embd_pdrop=0.0)}


def base_model(family: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[family]), dtype=torch.float32, attn_implementation="danlu_packed")


def stock_base_model(family: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[family]), dtype=torch.float32, attn_implementation="sdpa")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(1, 40)[None], use_cache=False).logits


@pytest.mark.parametrize("family", CONFIGS)
def test_an_adapter_trained_here_gives_the_same_logits_in_stock_peft(family: str, tmp_path: Path) -> None:
    method = LoRA(rank=4, alpha=8.0)
    model = method.apply(base_model(family), fused=True).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    batch = PackedBatch.from_examples(odd_examples())
    for _ in range(3):
        fast_nll(model, batch).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    method.save(model, tmp_path)

    stock = PeftModel.from_pretrained(stock_base_model(family), tmp_path)

    unwrap(model).set_attn_implementation("sdpa")
    assert not any(isinstance(module, FusedLoraLinear) for module in stock.modules())
    torch.testing.assert_close(logits(stock), logits(model), atol=1e-5, rtol=0)
    assert not torch.allclose(logits(stock), logits(stock_base_model(family)), atol=1e-3)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_stock_peft_adapter_is_computed_the_same_by_the_fast_path(family: str, tmp_path: Path) -> None:
    config = LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(stock_base_model(family), config).save_pretrained(tmp_path)
    batch = PackedBatch.from_examples(odd_examples())
    stock = PeftModel.from_pretrained(stock_base_model(family), tmp_path).eval()

    model = PeftModel.from_pretrained(base_model(family), tmp_path).eval()

    with torch.no_grad():
        torch.testing.assert_close(fast_nll(model, batch), reference_nll(stock, batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("change", ["dora", "two adapters", "merged", "disabled", "rslora"])
def test_unusual_adapters_give_what_peft_gives(change: str) -> None:
    options: dict[str, Any] = {"r": 4, "lora_alpha": 16, "target_modules": "all-linear", "init_lora_weights": False, "task_type": "CAUSAL_LM"}
    options |= {"use_dora": change == "dora", "use_rslora": change == "rslora"}
    batch = PackedBatch.from_examples(odd_examples())

    def tuned(model: Any) -> Any:
        torch.manual_seed(5)
        peft_model = get_peft_model(model, LoraConfig(**options))
        if change == "two adapters":
            peft_model.add_adapter("second", LoraConfig(**options))
            peft_model.base_model.set_adapter(["default", "second"])
        if change == "merged":
            peft_model.merge_adapter()
        if change == "disabled":
            peft_model.base_model.disable_adapter_layers()
        return peft_model.eval()

    model = tuned(base_model("llama"))

    is_fused = decoder.plan(unwrap(model).get_decoder()) is not None
    assert is_fused == (change in ("disabled", "rslora"))
    with torch.no_grad():
        torch.testing.assert_close(fast_nll(model, batch), reference_nll(tuned(stock_base_model("llama")), batch), atol=1e-5, rtol=1e-5)


def test_dropout_is_not_lost_on_the_fast_path() -> None:
    model = LoRA(rank=4, alpha=8.0, dropout=0.5).apply(base_model("llama"), fused=True)
    batch = PackedBatch.from_examples(odd_examples())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)

    assert decoder.plan(unwrap(model.train()).get_decoder()) is None
    with torch.no_grad():
        torch.manual_seed(0)
        first = fast_nll(model, batch)
        second = fast_nll(model, batch)
    assert not torch.allclose(first, second, atol=1e-4)
    assert decoder.plan(unwrap(model.eval()).get_decoder()) is not None
