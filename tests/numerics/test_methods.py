"""Methods and objectives on real model folders: they train, save, and load as plain Transformers and PEFT read them."""

from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from danlu.errors import ModelError, NoEffectError
from danlu.files import read_json, read_jsonl
from danlu.models.load import load_model
from danlu.models.pair import ModelPair, load_adapter
from danlu.recipe.load import load_recipe
from danlu.run_dir import RunDir
from danlu.services import exports, pipeline
from danlu.services.runs import run
from models import recipe_values, write_model

IDS = torch.tensor([[5, 300, 41, 7, 2999, 12, 6, 801]])


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits  # type: ignore[no-any-return]


def test_the_adapter_of_a_run_gives_the_same_logits_in_stock_peft(finished_run: Path, small_model: Path) -> None:
    run_dir = RunDir(finished_run)
    stock = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(small_model, dtype=torch.float32), run_dir.adapter)
    pair = pipeline.open_pair(run_dir, pipeline.resolved(run_dir), small_model)

    with pair.tuned() as tuned:
        torch.testing.assert_close(logits(tuned), logits(stock), rtol=1e-5, atol=1e-5)
    with pair.base() as base, stock.disable_adapter():
        torch.testing.assert_close(logits(base), logits(stock), rtol=1e-5, atol=1e-5)
    assert float((logits(stock) - logits(AutoModelForCausalLM.from_pretrained(small_model))).abs().max()) > 1e-2


@pytest.mark.parametrize(
    "options",
    [
        {"r": 3, "lora_alpha": 7, "target_modules": ["q_proj", "down_proj"]},
        {"r": 4, "target_modules": "all-linear", "use_rslora": True},
        {"r": 2, "target_modules": ["v_proj"], "use_dora": True},
    ],
    ids=["lora", "rslora", "dora"],
)
def test_an_adapter_made_with_stock_peft_gives_the_same_logits_here(tmp_path: Path, small_model: Path, options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    stock = get_peft_model(AutoModelForCausalLM.from_pretrained(small_model), LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **options))
    stock.save_pretrained(tmp_path)

    ours = load_adapter(load_model(small_model), tmp_path)

    torch.testing.assert_close(logits(ours), logits(stock), rtol=1e-5, atol=1e-5)
    with stock.disable_adapter():
        assert float((logits(ours) - logits(stock)).abs().max()) > 1e-2


def test_what_is_no_adapter_and_the_adapter_of_another_model_are_refused(tmp_path: Path, finished_run: Path) -> None:
    wide = load_model(write_model(tmp_path / "wide", hidden_size=96))

    with pytest.raises(ModelError, match="does not fit this base model"):
        load_adapter(wide, finished_run / "adapter")
    with pytest.raises(ModelError, match="is not an adapter"):
        load_adapter(wide, tmp_path)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_full_tuning_changes_every_weight_and_saves_a_whole_model(tmp_path: Path, small_model: Path, rows_file: Path, optimizer: str) -> None:
    optim = {"max_steps": 4, "global_batch_size": 4, "learning_rate": 0.01, "optimizer": optimizer}
    values = recipe_values(small_model, rows_file, method="full", optim=optim, evaluation={"metrics": [], "suites": ["heldout"]})

    result = run(load_recipe(values=values), run_dir=tmp_path / "run")

    before = AutoModelForCausalLM.from_pretrained(small_model).state_dict()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run/model")
    assert [name for name, value in model.state_dict().items() if torch.equal(value, before[name])] == []
    assert result.report is not None and result.report["metrics"]["nll_per_token"]["delta"] < 0
    merged = exports.export(result.run_dir, "merged")
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(merged)), logits(model), rtol=0, atol=0)
    with pytest.raises(NoEffectError, match="has no adapter"):
        exports.export(result.run_dir, "adapter")
    assert [path.name for path in result.run_dir.exports.iterdir()] == ["merged"]


def test_pretraining_learns_from_plain_text(tmp_path: Path, small_model: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_bytes(b"\n".join(orjson.dumps({"text": f"Door {n} is open. " * 12}) for n in range(40)))
    optim = {"max_steps": 8, "global_batch_size": 4, "learning_rate": 0.01}
    values = recipe_values(small_model, text, objective="pretrain", optim=optim, data={"max_seq_len": 64})

    result = run(load_recipe(values=values), run_dir=tmp_path / "run")

    losses = [line["loss"] for line in read_jsonl(result.run_dir.metrics) if "loss" in line]
    assert losses[-1] < 0.9 * losses[0]
    assert result.report is not None and result.report["verdict"]["delta"] < -1
    assert result.report["metrics"].keys() == {"nll_per_token", "perplexity", "nll_per_byte"}
    assert read_json(exports.export(result.run_dir, "adapter") / "verification.json")["num_prompts"] > 0


def test_a_new_model_is_made_from_a_configuration_alone(tmp_path: Path, small_model: Path, rows_file: Path) -> None:
    blank = tmp_path / "blank"
    blank.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (blank / name).write_bytes((small_model / name).read_bytes())
    values = recipe_values(blank, rows_file, method={"type": "full", "init": "random"})

    result = run(load_recipe(values=values), run_dir=tmp_path / "run")

    assert result.report is not None and result.report["verdict"] is None
    losses = [line["loss"] for line in read_jsonl(result.run_dir.metrics) if "loss" in line]
    assert losses[-1] < losses[0]
    merged = exports.export(result.run_dir, "merged")
    assert AutoTokenizer.from_pretrained(merged).chat_template
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(merged)), logits(AutoModelForCausalLM.from_pretrained(tmp_path / "run/model")), rtol=0, atol=0
    )


def test_base_and_tuned_of_full_tuning_are_two_models(tmp_path: Path, small_model: Path) -> None:
    other = write_model(tmp_path / "other", seed=5)
    pair = ModelPair(small_model, model_dir=other)

    with pair.base() as base, pair.tuned() as tuned:
        assert torch.equal(logits(base), logits(AutoModelForCausalLM.from_pretrained(small_model)))
        assert torch.equal(logits(tuned), logits(AutoModelForCausalLM.from_pretrained(other)))
