"""Each method's arithmetic against its paper's formula, computed by hand on one layer or one small model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import make_model
from danlu.errors import NoEffectError
from danlu.models.pair import load_adapter
from danlu.recipe.base import METHODS
from danlu.recipe.placement import Placement
from danlu.recipe.recipe import Recipe

LAYER = "model.layers.0.mlp.down_proj"


def applied(method: str, model: Any = None, **values: Any) -> Any:
    torch.manual_seed(4)
    return METHODS.parse({"type": method, **values}).apply(model if model is not None else make_model(), fused=False)


def disturbed(model: Any) -> Any:
    """Move every trained parameter off its start."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def layer_of(peft_model: Any) -> Any:
    return peft_model.get_base_model().get_submodule(LAYER)


def inputs() -> Tensor:
    return torch.randn(5, 48, generator=torch.Generator().manual_seed(6))


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(1, 20)[None]).logits[:, -19:]  # type: ignore[no-any-return]


def test_rslora_divides_by_the_root_of_the_rank() -> None:
    """Kalajdzievski 2023, theorem 3.2: h = W0 x + (alpha / sqrt r) B A x."""
    layer = layer_of(disturbed(applied("lora", rank=9, alpha=6.0, use_rslora=True)))
    a_RK, b_NR, x = layer.lora_A.default.weight, layer.lora_B.default.weight, inputs()

    torch.testing.assert_close(layer(x), x @ layer.base_layer.weight.T + (6.0 / 3.0) * (x @ a_RK.T) @ b_NR.T)


def test_dora_scales_each_row_to_its_trained_length() -> None:
    """Liu et al. 2024, eq. 5: W' = m (W0 + s B A) / ||W0 + s B A||, the norm over each output row."""
    layer = layer_of(disturbed(applied("lora", rank=4, alpha=8.0, use_dora=True)))
    direction = layer.base_layer.weight + 2.0 * layer.lora_B.default.weight @ layer.lora_A.default.weight
    length_N = layer.lora_magnitude_vector.default.weight

    torch.testing.assert_close(layer(inputs()), inputs() @ (length_N[:, None] * direction / direction.norm(dim=1, keepdim=True)).T, rtol=1e-4, atol=1e-5)


def test_dora_starts_at_the_base_model() -> None:
    torch.testing.assert_close(logits(applied("lora", rank=4, use_dora=True)), logits(make_model()), rtol=1e-4, atol=1e-5)


def test_pissa_starts_at_the_principal_part() -> None:
    """Meng et al. 2024, eq. 2-3: A = S^1/2 V^T and B = U S^1/2 of the largest singular values."""
    layer = layer_of(applied("lora", rank=4, alpha=4.0, init="pissa"))
    u, s, vh = torch.linalg.svd(make_model().get_submodule(LAYER).weight.detach(), full_matrices=False)

    torch.testing.assert_close(
        (layer.lora_B.default.weight @ layer.lora_A.default.weight).detach(), u[:, :4] @ torch.diag(s[:4]) @ vh[:4], rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(layer.lora_A.default.weight.detach().norm(dim=1) ** 2, s[:4], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_16"])
def test_pissa_takes_its_start_away_from_the_frozen_weight(init: str) -> None:
    """Meng et al. 2024, eq. 4: W0 - s B A stays frozen, so the sum is as it was."""
    model = applied("lora", rank=4, alpha=8.0, init=init)
    layer = layer_of(model)

    with torch.no_grad():
        whole = layer.base_layer.weight + 2.0 * layer.lora_B.default.weight @ layer.lora_A.default.weight
    torch.testing.assert_close(whole, make_model().get_submodule(LAYER).weight.detach(), rtol=1e-4, atol=1e-5)
    assert float(layer.lora_B.default.weight.detach().norm()) > 0.1
    torch.testing.assert_close(logits(model), logits(make_model()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"rank_pattern": {"down_proj": 6}, "alpha_pattern": {"q_proj": 20.0}}], ids=str)
def test_a_pissa_adapter_is_saved_for_the_untouched_base_model(options: dict[str, Any], tmp_path: Path) -> None:
    method = METHODS.parse({"type": "lora", "rank": 4, "alpha": 8.0, "init": "pissa", **options})
    torch.manual_seed(4)
    trained = disturbed(method.apply(make_model(), fused=False))
    method.save(trained, tmp_path)

    loaded = load_adapter(make_model(), tmp_path)

    torch.testing.assert_close(logits(loaded), logits(trained), rtol=1e-4, atol=1e-4)
    with loaded.disable_adapter():
        torch.testing.assert_close(logits(loaded), logits(make_model()), rtol=0, atol=0)
    assert loaded.peft_config["default"].r == 8


def test_lora_plus_lets_b_learn_faster() -> None:
    """Hayou et al. 2024, section 4: the learning rate of B is lambda times that of A."""
    method = METHODS.parse({"type": "lora", "lora_plus_ratio": 16.0})
    names = [name for name, p in applied("lora", rank=4).named_parameters() if p.requires_grad]

    assert {method.learning_rate_factor(name) for name in names if ".lora_B." in name} == {16.0}
    assert {method.learning_rate_factor(name) for name in names if ".lora_B." not in name} == {1.0}
    assert METHODS.parse("lora").learning_rate_factor(names[0]) == 1.0


def test_ia3_scales_keys_values_and_what_the_feed_forward_passes_on() -> None:
    """Liu et al. 2022, section 3.3: l_k * (W_k x), l_v * (W_v x), W_down (l_ff * a); nothing else is trained, all factors start at one."""
    model = applied("ia3")
    torch.testing.assert_close(logits(model), logits(make_model()), rtol=0, atol=0)
    disturbed(model)
    base, down = model.get_base_model(), layer_of(model)
    key = base.get_submodule("model.layers.0.self_attn.k_proj")
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(6))

    torch.testing.assert_close(key(x), (x @ key.base_layer.weight.T) * key.ia3_l.default.flatten())
    torch.testing.assert_close(down(inputs()), (inputs() * down.ia3_l.default.flatten()) @ down.base_layer.weight.T)
    assert sorted(name.split(".")[-3] for name, p in model.named_parameters() if p.requires_grad) == ["down_proj", "k_proj", "v_proj"]


def test_prompt_tuning_puts_embeddings_before_the_text() -> None:
    """Lester et al. 2021, section 2: [P; X] goes through the frozen model."""
    model = disturbed(applied("prompt_tuning", num_virtual_tokens=3))
    base, ids = make_model().eval(), torch.arange(1, 20)[None]
    prompt = model.prompt_encoder.default.embedding.weight

    with torch.no_grad():
        expected = base(inputs_embeds=torch.cat([prompt[None], base.get_input_embeddings()(ids)], 1)).logits[:, 3:]

    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 3 * 32


@pytest.mark.parametrize("init", ["vocabulary", "random"])
def test_a_prompt_starts_where_it_was_told(init: str) -> None:
    prompt = applied("prompt_tuning", num_virtual_tokens=3, init=init).prompt_encoder.default.embedding.weight.detach()
    embeddings = make_model().get_input_embeddings().weight.detach()

    is_token = [(embeddings == row).all(1).any().item() for row in prompt]
    assert is_token == [init == "vocabulary"] * 3


def test_p_tuning_makes_its_prompt_with_a_network_that_only_training_needs(tmp_path: Path) -> None:
    """Liu et al. 2021, section 2.3: h = MLP(embedding); what is saved is h."""
    method = METHODS.parse({"type": "p_tuning", "num_virtual_tokens": 3, "encoder_hidden_size": 10})
    model = disturbed(method.apply(make_model(), fused=False))
    encoder = model.prompt_encoder.default
    first, second, third = (encoder.mlp_head[i] for i in (0, 2, 4))
    method.save(model, tmp_path)
    loaded = load_adapter(make_model(), tmp_path)

    with torch.no_grad():
        expected = third(second(first(encoder.embedding.weight).relu()).relu())
    torch.testing.assert_close(loaded.get_prompt(1)[0], expected)
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("projection", [False, True])
def test_p_tuning_v2_puts_keys_and_values_before_the_text_in_every_layer(projection: bool, tmp_path: Path) -> None:
    """Liu et al. 2022, section 3.3: the prefix is what a cache of that content would be; positions count on from it."""
    method = METHODS.parse({"type": "p_tuning_v2", "num_virtual_tokens": 3, "projection": projection})
    model = disturbed(method.apply(make_model(), fused=False))
    base, ids = make_model().eval(), torch.arange(1, 20)[None]
    encoder = model.prompt_encoder.default

    with torch.no_grad():
        numbers = encoder.transform(encoder.embedding.weight) if projection else encoder.embedding.weight
        keys, values = numbers.view(3, 2, 1, 16).permute(1, 2, 0, 3)[:, None]
        cache = base(input_ids=ids[:, :3], use_cache=True).past_key_values
        cache.layers[0].keys, cache.layers[0].values = keys, values
        expected = base(input_ids=ids, past_key_values=cache, position_ids=3 + torch.arange(19)[None]).logits

    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    method.save(model, tmp_path)
    torch.testing.assert_close(logits(load_adapter(make_model(), tmp_path)), expected, rtol=1e-5, atol=1e-5)


def test_a_prefix_of_zeros_starts_near_the_base_model() -> None:
    zero, random = (logits(applied("p_tuning_v2", num_virtual_tokens=2, init=init)) - logits(make_model()) for init in ("zero", "random"))

    assert float(zero.norm()) < 0.5 * float(random.norm())


def test_freeze_changes_the_last_layers_only() -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(vocab_size=16, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, head_dim=16)

    def trained(**values: Any) -> set[str]:
        config.tie_word_embeddings = values.pop("tied", False)
        model = applied("freeze", Qwen3ForCausalLM(config), **values)
        return {".".join(name.split(".")[:3]) for name, p in model.named_parameters() if p.requires_grad}

    assert trained(num_layers=1) == {"model.layers.2"}
    assert trained(num_layers=2, train_head=True) == {"model.layers.1", "model.layers.2", "lm_head.weight", "model.norm.weight"}
    assert trained(num_layers=1, train_embeddings=True) == {"model.layers.2", "model.embed_tokens.weight"}
    with pytest.raises(NoEffectError, match="leaves no layer frozen"):
        trained(num_layers=3)
    with pytest.raises(NoEffectError, match="set both to true"):
        trained(num_layers=1, train_head=True, tied=True)


def test_adapters_go_to_the_layers_and_in_the_ranks_that_were_asked_for() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(vocab_size=16, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2))

    tuned = applied("lora", model, rank=2, layers=[0, -1], target_modules=["q_proj", "down_proj"], rank_pattern={"down_proj": 5}, alpha_pattern={"q_proj": 3.0})

    modules = {name: m for name, m in tuned.get_base_model().named_modules() if hasattr(m, "lora_A")}
    assert {name: (m.r["default"], m.scaling["default"]) for name, m in modules.items()} == {
        f"model.layers.{layer}.{part}": numbers for layer in (0, 2) for part, numbers in (("self_attn.q_proj", (2, 1.5)), ("mlp.down_proj", (5, 6.4)))
    }


@pytest.mark.parametrize(
    ("method", "match"),
    [
        ({"type": "lora", "rank": 4, "target_modules": ["q_proj", "qq_proj"]}, "names no layer of this model: qq_proj"),
        ({"type": "lora", "rank": 4, "layers": [1]}, "the model has no such layer"),
        ({"type": "lora", "rank": 4, "layers": [0], "target_modules": ["q_proj", "lm_head"]}, r"in the layers \[0\], names no layer of this model: lm_head"),
        ({"type": "lora", "rank": 4, "rank_pattern": {"up": 2}}, "matches no layer that gets an adapter"),
        ({"type": "lora", "rank": 4, "rank_pattern": {"k_proj": 17}}, r"rank_pattern.k_proj 17 is larger than the smallest matrix of the model \(16\)"),
        ({"type": "lora", "rank": 17}, r"method.rank 17 is larger than the smallest matrix of the model \(16\)"),
        ({"type": "lora_plus_full", "rank": 4, "modules_to_save": ["lm_haed"]}, "names no module of this model: lm_haed"),
        ({"type": "lora_plus_full", "rank": 4, "target_modules": ["q_proj"], "modules_to_save": ["q_proj"]}, "q_proj gets no adapter"),
        ({"type": "ia3", "target_modules": ["kproj"], "feedforward_modules": []}, "names no layer of this model: kproj"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_what_does_not_fit_the_model_is_refused(method: dict[str, Any], match: str) -> None:
    with pytest.raises(NoEffectError, match=match):
        METHODS.parse(method).apply(make_model(), fused=False)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"method": {"type": "lora", "init": "pissa", "use_dora": True}}, "exclude each other"),
        ({"method": {"type": "qlora", "bits": 8, "double_quant": True}}, "double_quant has no effect"),
        ({"method": {"type": "qlora", "bits": 8, "use_dora": True}}, "use 4 bits"),
        ({"method": {"type": "prompt_tuning", "init": "text"}}, "needs init_text"),
        ({"method": {"type": "prompt_tuning", "init_text": "a"}}, "set init to text"),
        ({"method": {"type": "p_tuning", "encoder_num_layers": 3}}, "set encoder to lstm"),
        ({"method": {"type": "p_tuning_v2", "projection_hidden_size": 3}}, "set projection to true"),
        ({"method": {"type": "ia3", "target_modules": ["k_proj"]}}, "name both"),
        ({"method": "p_tuning", "export": ["merged"]}, "use export adapter"),
        ({"method": "ia3", "data": {"new_tokens": ["<a>"]}}, "would not be learnt"),
        ({"method": "freeze", "data": {"new_tokens": ["<a>"]}}, "would not be learnt"),
        ({"method": "lora", "data": {"new_tokens": ["<a>", "<a>"]}}, "listed twice"),
        ({"method": "qlora", "optim": {"optimizer": "muon"}}, "use adamw"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_what_cannot_work_is_refused_by_the_recipe(values: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Recipe.model_validate({"base_model": "b", "dataset": "d", **values})


def test_quantised_weights_are_not_divided_over_processes() -> None:
    values = {"base_model": "b", "dataset": "d", "method": "qlora", "optim": {"global_batch_size": 4}}

    with pytest.raises(NoEffectError, match="cannot divide its weights over processes"):
        Placement(processes=2, sharding="shard").check(Recipe.model_validate(values), num_gpus=0)
