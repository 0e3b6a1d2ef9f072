"""Products with frozen weights in 8-bit integers: the formulas, the bound on what rounding costs, and learning."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from danlu.errors import NoEffectError
from danlu.recipe.recipe import Recipe
from danlu.services.runs import run
from danlu.training.batch import PackedBatch
from danlu.training.benchmark import examples_of, make_model
from danlu.training.forward import fast_nll
from danlu.training.kernels import int8
from danlu.training.kernels.cross_entropy import linear_cross_entropy
from models import recipe_values, write_model

SHAPE = {
    "vocab_size": 200,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_both_products_are_the_documented_formulas() -> None:
    torch.manual_seed(0)
    x, w, dy, bias = torch.randn(9, 20), torch.randn(12, 20), torch.randn(9, 12), torch.randn(12)
    add_n, add_k = torch.randn(9, 12), torch.randn(9, 20)
    weight = int8.Int8Weight.of(w)
    s_w = w.abs().amax(1) / 127
    q_w = (w / s_w[:, None]).round()
    s_x = x.abs().amax(1, keepdim=True) / 127
    g = dy * s_w
    s_g = g.abs().amax(1, keepdim=True) / 127

    torch.testing.assert_close(int8.nt(int8.quantise_rows(x), weight, bias, add_n), ((x / s_x).round() @ q_w.T) * s_x * s_w + bias + add_n)
    torch.testing.assert_close(int8.nn(dy, weight, add_k), ((g / s_g).round() @ q_w) * s_g + add_k)
    torch.testing.assert_close(int8.nn(dy, weight), ((g / s_g).round() @ q_w) * s_g)


def test_rounding_costs_about_one_percent_of_a_product_and_rows_of_zeros_stay_zero() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(64, 96), torch.randn(80, 96)
    x[3] = 0
    weight = int8.Int8Weight.of(w)

    y = int8.nt(int8.quantise_rows(x), weight)

    assert relative(y, x @ w.T) < 0.02
    assert not y[3].any()
    assert relative(int8.nn(y, weight), y @ w) < 0.02
    assert int8.nn(torch.zeros(0, 80), weight).shape == (0, 96)


def test_frozen_layers_are_replaced_and_head_and_adapters_are_not() -> None:
    model = make_model(SHAPE, system="fast", rank=4, device="cpu", dtype=torch.float32)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}

    assert int8.convert(model) == 14

    assert {name for name, p in model.named_parameters() if p.requires_grad} == trained
    head = model.get_output_embeddings()
    assert type(head) is nn.Linear
    assert int8.rounded_head(head) is not None
    assert not any("int8" in name for name in head.state_dict())
    assert not any(name.endswith("base_layer.weight") for name in model.state_dict())


def test_the_fused_layers_and_peft_s_own_forward_compute_the_same_in_integers() -> None:
    model = make_model(SHAPE, system="int8", rank=4, device="cpu", dtype=torch.float32)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    batch = PackedBatch.from_examples(examples_of([17, 30], 200))

    fused = fast_nll(model, batch)
    layer = model.get_base_model().model.layers[0].mlp.gate_proj
    x = torch.randn(2, 5, 64, requires_grad=True)
    layer(x).sum().backward()

    assert x.grad is not None
    torch.testing.assert_close(layer(x), layer.base_layer(x) + layer.lora_B["default"](layer.lora_A["default"](x)) * layer.scaling["default"])
    model.get_base_model().model.config.hidden_act = "other"  # the layers' own forward with fused adapters
    model.get_base_model().model.config._attn_implementation = "danlu_packed"
    torch.testing.assert_close(fast_nll(model, batch), fused, atol=1e-5, rtol=1e-5)


def test_the_rounded_head_gives_nearly_the_same_loss_and_its_gradient_is_that_of_the_exact_head() -> None:
    torch.manual_seed(0)
    hidden, weight, labels = torch.randn(20, 32, requires_grad=True), torch.randn(90, 32), torch.randint(0, 90, (20,))
    rounded = int8.Int8Weight.of(weight)

    found = linear_cross_entropy(hidden, weight, None, labels, rounded=rounded)

    logits = int8.nt(int8.quantise_rows(hidden.detach()), rounded)
    probabilities = logits.softmax(-1) - nn.functional.one_hot(labels, 90)
    torch.testing.assert_close(found, nn.functional.cross_entropy(logits, labels, reduction="none"))
    torch.testing.assert_close(torch.autograd.grad(found.sum(), hidden)[0], probabilities @ weight)
    assert float(found.detach().mean()) == pytest.approx(float(linear_cross_entropy(hidden, weight, None, labels).detach().mean()), rel=0.01)


@pytest.mark.slow
def test_200_steps_end_within_one_percent_of_float32() -> None:
    def last_losses(system: str) -> float:
        model = make_model(SHAPE, system=system, rank=8, device="cpu", dtype=torch.float32)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
        batch = PackedBatch.from_examples(examples_of([20, 15, 30], 200))
        losses = []
        for _ in range(200):
            loss = fast_nll(model, batch).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.8 * losses[0]
        return sum(losses[-20:]) / 20

    exact = last_losses("fast")

    assert last_losses("int8") == pytest.approx(exact, rel=0.01)


def test_a_run_computes_in_integers_and_its_adapter_is_an_ordinary_one(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    rows = [{"messages": [{"role": "user", "content": f"number {i}"}, {"role": "assistant", "content": f"it is {i * 7}"}]} for i in range(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    values = recipe_values(write_model(tmp_path / "model"), data, training={"compute": "int8"}, evaluation={"suites": ["heldout"], "metrics": []})

    result = run(Recipe.model_validate(values), run_dir=tmp_path / "run")

    assert result.outcome == "finished"
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    "values",
    [
        {"training": {"compute": "int8", "path": "reference"}},
        {"training": {"compute": "int8"}, "method": {"type": "full"}},
        {"training": {"compute": "int8"}, "objective": {"type": "dpo"}},
    ],
)
def test_integers_where_nothing_is_frozen_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="training.compute int8 is for plain lora on the fast path"):
        Recipe.model_validate({"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie", **values})


def test_integers_in_another_number_format_are_refused_before_the_first_step(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    rows = [{"messages": [{"role": "user", "content": f"number {i}"}, {"role": "assistant", "content": f"it is {i * 7}"}]} for i in range(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    values = recipe_values(write_model(tmp_path / "model"), data, training={"compute": "int8", "dtype": "bfloat16"})

    with pytest.raises(NoEffectError, match="int8 has nothing to work on"):
        run(Recipe.model_validate(values), run_dir=tmp_path / "run")
