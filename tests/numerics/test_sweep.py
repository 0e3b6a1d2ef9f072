"""Adapters trained in one pass over one base model are what each would have become alone."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from danlu.data.pack import EncodedExample, TokenFile
from danlu.errors import DivergedError
from danlu.files import read_json, read_jsonl, write_json
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir
from danlu.training.kernels import decoder
from danlu.training.kernels.projection import rows_of
from danlu.training.kernels.shared import SharedLoraLinear
from danlu.training.run import run
from danlu.training.sweep import Member, can_share, train_together

VARIANTS: list[dict[str, Any]] = [
    {"method": {"type": "lora", "rank": 2, "alpha": 4}, "learning_rate": 3e-3},
    {"method": {"type": "lora", "rank": 8, "alpha": 8, "use_rslora": True, "lora_plus_ratio": 4.0}, "learning_rate": 1e-3},
    {"method": {"type": "lora", "rank": 4, "target_modules": ["q_proj", "down_proj"]}, "learning_rate": 5e-3, "seed": 5, "max_steps": 7},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from danlu.bundled import FOLDER

    folder = tmp_path_factory.mktemp("model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((FOLDER / "tiny" / name).read_bytes())
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    Qwen3ForCausalLM(Qwen3Config(vocab_size=501, tie_word_embeddings=True, initializer_range=0.1, **sizes)).save_pretrained(folder)
    return folder


def member(folder: Path, variant: dict[str, Any], *, data_seed: int = 1, until: int | None = None, listener: Any = None) -> Member:
    """A run folder with token files, ready to be trained."""
    run_dir = RunDir.create(folder)
    if not (run_dir.data / "train.tokens").exists():
        TokenFile.write(run_dir.data / "train.tokens", sequences(22, seed=data_seed))
        TokenFile.write(run_dir.data / "validation.tokens", sequences(5, seed=2))
    settings = {"max_steps": variant.get("max_steps", 10), "learning_rate": variant["learning_rate"], "global_batch_size": 4, "micro_batch_tokens": 64}
    values = {
        "base_model": "b",
        "dataset": "d",
        "method": variant["method"],
        "optim": settings,
        "data": {"max_seq_len": 64, "format": "alpaca"},
        "training": {"validate_every_steps": 4, "checkpoint_every_steps": 3, "early_stopping_patience": None, "dtype": "float32"},
        "seed": variant.get("seed", 0),
    }
    recipe = Recipe.model_validate(values)
    write_json(run_dir.recipe, recipe.to_dict())
    return Member(recipe, run_dir, Reporter(run_dir, *([listener] if listener else [])), until)


def sequences(count: int, *, seed: int) -> list[EncodedExample]:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(6, 30, count)
    return [EncodedExample(draw.integers(3, 500, n).astype(np.uint32), np.arange(n) >= n // 2) for n in lengths]


def losses(folder: Path) -> list[float]:
    return [line.get("loss", line.get("validation_loss")) for line in read_jsonl(folder / "metrics.jsonl")]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter/adapter_model.safetensors")


def same_bits(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) and losses(one) == losses(other)


def members(root: Path, **changes: Any) -> list[Member]:
    return [member(root / str(i), variant, data_seed=i, **changes) for i, variant in enumerate(VARIANTS)]


@pytest.mark.parametrize("has_fused_layers", [True, False])
def test_each_adapter_of_a_pass_is_what_it_would_be_alone(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, has_fused_layers: bool) -> None:
    plan, was_fused = decoder.plan, list[bool]()

    def planned(core: Any) -> Any:
        parts = plan(core) if has_fused_layers else None
        was_fused.append(parts is not None)
        return parts

    monkeypatch.setattr(decoder, "plan", planned)
    assert train_together(members(tmp_path / "together"), model_dir=model, device="cpu") == ["finished"] * 3
    assert set(was_fused) == {has_fused_layers}

    for index, lone in enumerate(members(tmp_path / "lone")):
        run(lone.recipe, lone.run_dir, lone.reporter, model_dir=model)
        together = tmp_path / "together" / str(index)
        assert losses(together) == pytest.approx(losses(lone.run_dir.path), rel=1e-5)
        expected, found = weights(lone.run_dir.path), weights(together)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=2e-5)
        configs = [read_json(folder / "adapter/adapter_config.json") for folder in (together, lone.run_dir.path)]
        assert {key: value for key, value in configs[0].items() if key != "target_modules"} == {k: v for k, v in configs[1].items() if k != "target_modules"}
        assert sorted(configs[0]["target_modules"]) == sorted(configs[1]["target_modules"])


def test_a_pass_that_was_stopped_goes_on_bitwise(tmp_path: Path, model: Path) -> None:
    train_together(members(tmp_path / "whole"), model_dir=model, device="cpu")

    def stop(kind: str, fields: dict[str, Any]) -> None:
        if kind == "metrics" and fields["step"] == 5 and "loss" in fields:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)  # the main thread takes the signal meanwhile

    parts = tmp_path / "parts"
    assert train_together([*members(parts)[:2], member(parts / "2", VARIANTS[2], data_seed=2, listener=stop)], model_dir=model, device="cpu") == ["paused"] * 3
    steps = [sorted(folder.name for folder in (parts / str(i) / "checkpoints").glob("step-*"))[-1] for i in range(3)]
    assert len(set(steps)) == 1
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    # As if the second one had been killed before it could save: all go back to what they have in common.
    import shutil

    shutil.rmtree(parts / "1/checkpoints" / steps[1])
    assert train_together(members(parts), model_dir=model, device="cpu") == ["finished"] * 3

    assert [read_json(parts / str(i) / "training.json")["resumed_at"] for i in range(3)] == [[3]] * 3
    assert all(same_bits(parts / str(i), tmp_path / "whole" / str(i)) for i in range(3))


def test_members_pause_at_their_rung_and_one_that_diverges_leaves_the_others_alone(tmp_path: Path, model: Path) -> None:
    train_together(members(tmp_path / "whole")[:2], model_dir=model, device="cpu")
    bad = {"method": {"type": "lora", "rank": 4}, "learning_rate": 1.0}
    three = [*members(tmp_path / "three", until=4)[:2], member(tmp_path / "three/bad", bad, until=4)]
    token = three[2].run_dir.data / "train.tokens"
    assert token.exists()

    outcomes = train_together(three, model_dir=model, device="cpu")

    assert outcomes[:2] == ["paused", "paused"]
    assert outcomes[2] == "paused" or isinstance(outcomes[2], DivergedError)
    assert train_together(three[:2], model_dir=model, device="cpu") == ["paused", "paused"]
    assert len(losses(tmp_path / "three/0")) == 5
    assert train_together(members(tmp_path / "three")[:2], model_dir=model, device="cpu") == ["finished"] * 2
    assert losses(tmp_path / "three/0") == pytest.approx(losses(tmp_path / "whole/0"), rel=1e-5)


def test_a_lack_of_memory_halves_the_micro_batches_of_all(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from danlu.training import sweep

    train_together(members(tmp_path / "whole")[:2], model_dir=model, device="cpu")
    calls = 0
    compute = sweep.Pass._compute

    def failing(self: Any, asked: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise MemoryError
        return compute(self, asked)

    monkeypatch.setattr(sweep.Pass, "_compute", failing)
    assert train_together(members(tmp_path / "short")[:2], model_dir=model, device="cpu") == ["finished"] * 2

    assert [read_json(tmp_path / f"short/{i}/training.json")["micro_batch_tokens"] for i in range(2)] == [32, 32]
    assert losses(tmp_path / "short/0") == pytest.approx(losses(tmp_path / "whole/0"), rel=1e-5)


def test_a_defect_in_the_pass_is_raised_and_ends_all(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from danlu.training import sweep

    def broken(self: Any, asked: Any) -> Any:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(sweep.Pass, "_compute", broken)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        train_together(members(tmp_path)[:2], model_dir=model, device="cpu")


@pytest.mark.parametrize("has_input_gradient", [False, True])
def test_the_shared_projection_equals_a_product_per_adapter(has_input_gradient: bool) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    base = nn.Sequential(nn.Linear(12, 10))
    configs = {"one": LoraConfig(r=3, lora_alpha=6, target_modules=["0"]), "two": LoraConfig(r=5, lora_alpha=5, target_modules=["0"])}
    configs["one"]._register_custom_module({nn.Linear: SharedLoraLinear})
    shared = get_peft_model(base, configs["one"], adapter_name="one")
    shared.add_adapter("two", configs["two"])
    shared.base_model.set_adapter(["one", "two"])
    layer: Any = base[0]
    for name in configs:
        nn.init.normal_(layer.lora_B[name].weight)
    x = torch.randn(9, 12, requires_grad=has_input_gradient)
    upstream = torch.randn(9, 10)
    trained = [layer.lora_A["one"].weight, layer.lora_B["one"].weight, layer.lora_A["two"].weight, layer.lora_B["two"].weight]
    wanted = [*trained, x] if has_input_gradient else trained

    expected = layer.base_layer(x)
    expected = torch.cat([expected[:4] + 2.0 * (x[:4] @ trained[0].T @ trained[1].T), expected[4:7] + x[4:7] @ trained[2].T @ trained[3].T, expected[7:]])
    expected_gradients = torch.autograd.grad(expected, wanted, upstream)
    with rows_of([("one", 0, 4), ("two", 4, 7), ("no such adapter", 7, 9)]):
        found = layer(x)
    gradients = torch.autograd.grad(found, wanted, upstream)

    torch.testing.assert_close(found, expected)
    for gradient, value in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, value)


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ({"type": "lora", "dropout": 0.1}, {}),
        ({"type": "lora", "use_dora": True}, {}),
        ({"type": "lora", "init": "pissa"}, {}),
        ({"type": "full"}, {}),
        ({"type": "lora"}, {"attn_pdrop": 0.1}),
    ],
)
def test_what_would_not_be_the_same_alone_does_not_share_a_pass(method: dict[str, Any], config: dict[str, Any]) -> None:
    plain = Recipe.model_validate({"base_model": "b", "dataset": "d", "method": {"type": "lora", "rank": 2}})
    other = Recipe.model_validate({"base_model": "b", "dataset": "d", "method": method})

    assert can_share(plain, {"attention_dropout": 0.0})
    assert not can_share(other, config)
