"""From a data file to a proved, exported result with what methods add to the usual path: new tokens, quantised weights, virtual tokens."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from danlu.errors import MissingExtraError, NoEffectError
from danlu.files import read_json, read_jsonl
from danlu.models.generate import generate
from danlu.models.load import load_tokenizer
from danlu.models.pair import ModelPair
from danlu.recipe.load import load_recipe
from danlu.services import exports, pipeline
from danlu.services.chat import ChatOptions, ChatSession
from danlu.services.runs import run
from models import recipe_values, write_model

NEW = ["<lock>", "<open>"]
QUICK = {"max_generations": 2, "max_new_tokens": 4, "suites": ["heldout"]}


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"instruction": f"Door {n}?", "output": f"It is <{('lock', 'open')[n % 2]}>."} for n in range(40)]
    path = tmp_path_factory.mktemp("rows") / "doors.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    return path


@torch.no_grad()
def logits(model: Any, ids: list[int]) -> torch.Tensor:
    return model.eval()(input_ids=torch.tensor([ids])).logits[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(
    "method",
    [{"type": "lora", "rank": 4}, {"type": "full"}, {"type": "lora_plus_full", "rank": 4}, {"type": "qlora", "rank": 4}],
    ids=lambda method: method["type"],
)
def test_new_tokens_are_learnt_and_load_in_stock_libraries(method: dict[str, Any], is_tied: bool, doors: Path, tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", tie_word_embeddings=is_tied)
    values = recipe_values(base, doors, method=method, data={"new_tokens": NEW}, evaluation=QUICK)

    result = run(load_recipe(values=values), run_dir=tmp_path / "run")

    recipe = pipeline.resolved(result.run_dir)
    folder = result.run_dir.adapter if recipe.method.makes_adapter else result.run_dir.model
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.convert_tokens_to_ids(NEW)
    assert ids == [8000, 8001] and tokenizer.tokenize("<lock>.")[0] == "<lock>"
    trained_on = {int(i) for row in read_jsonl(result.run_dir.data / "train.jsonl") for i in tokenizer(row["messages"][-1]["content"])["input_ids"]}
    assert trained_on.issuperset(ids)
    losses = [line["loss"] for line in read_jsonl(result.run_dir.metrics) if "loss" in line]
    assert losses[-1] < losses[0]

    prompt = [5, 8001, 300, 8000, 7]
    pair = pipeline.open_pair(result.run_dir, recipe, base)
    with pair.base() as before:
        rows = before.get_input_embeddings().weight
        mean = AutoModelForCausalLM.from_pretrained(base).get_input_embeddings().weight.mean(0)
        torch.testing.assert_close(rows[8000].detach(), mean.detach(), rtol=1e-4, atol=1e-6)
    with pair.tuned() as tuned:
        expected = logits(tuned, prompt)
        learnt = tuned.get_input_embeddings().weight.detach()[8000]
    assert float((learnt - mean.detach()).abs().max()) > 1e-4
    if method["type"] != "qlora":  # its stock loading is in the matrix
        if recipe.method.makes_adapter:
            stock = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
            stock.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            stock = PeftModel.from_pretrained(stock, folder)
        else:
            stock = AutoModelForCausalLM.from_pretrained(folder)
        torch.testing.assert_close(logits(stock, prompt), expected, rtol=1e-4, atol=1e-4)
    merged = exports.export(result.run_dir, "merged")
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(merged), prompt), expected, rtol=1e-3, atol=1e-3)
    assert len(AutoTokenizer.from_pretrained(merged)) == 8002


def test_a_new_token_that_is_none_is_refused(doors: Path, tmp_path: Path, small_model: Path) -> None:
    known = load_tokenizer(small_model).convert_ids_to_tokens(300)

    with pytest.raises(NoEffectError, match="is a token of the base model already"):
        run(load_recipe(values=recipe_values(small_model, doors, data={"new_tokens": [known]})), run_dir=tmp_path / "run")


METHODS_ALL_THE_WAY: list[dict[str, Any]] = [
    {"type": "qlora", "rank": 4},
    {"type": "p_tuning", "num_virtual_tokens": 4},
    {"type": "p_tuning_v2", "num_virtual_tokens": 4},
    {"type": "freeze", "num_layers": 1},
]


@pytest.mark.parametrize("method", METHODS_ALL_THE_WAY, ids=lambda method: method["type"])
def test_a_result_is_proved_talked_to_and_exported(method: dict[str, Any], doors: Path, tmp_path: Path, small_model: Path) -> None:
    values = recipe_values(small_model, doors, method=method, evaluation=QUICK)

    result = run(load_recipe(values=values), run_dir=tmp_path / "run")

    assert result.report is not None
    assert result.report["metrics"]["nll_per_token"]["delta"] != 0, result.report
    session = ChatSession(str(result.run_dir.path))
    options = ChatOptions(temperature=0, max_new_tokens=3)
    answers = {}
    for side in ("base", "tuned"):
        session.reset()
        answers[side] = "".join(session.ask("Door 3?", ChatOptions(model=side, temperature=0, max_new_tokens=3)))
    session.reset()
    assert "".join(session.ask("Door 3?", options)) == answers["tuned"]
    prompt = session.pair.renderer.prompt_ids([{"role": "user", "content": "Door 3?"}])
    with session.pair.tuned() as tuned:
        [written] = [answer.text for batch in generate(tuned, session.pair.renderer, [prompt], max_new_tokens=3) for answer in batch.values()]
    assert written == answers["tuned"].strip()
    if method["type"] in ("p_tuning", "p_tuning_v2"):
        with pytest.raises(NoEffectError, match="cannot be merged"):
            exports.export(result.run_dir, "merged")
    else:
        merged = exports.export(result.run_dir, "merged")
        assert read_json(merged / "verification.json")["passed"]
        assert "quantization_config" not in read_json(merged / "config.json")
        assert ("loaded in 4 bits for training" in (merged / "README.md").read_text("utf-8")) == (method["type"] == "qlora")
    if method["type"] != "freeze":
        adapter = exports.export(result.run_dir, "adapter")
        card = (adapter / "README.md").read_text("utf-8")
        assert f"- {method['type']}" in card and str(tmp_path) not in (adapter / "adapter_config.json").read_text("utf-8")


@pytest.mark.parametrize("values", [{"method": "qlora"}, {"optim": {"optimizer": "adamw_8bit", "max_steps": 1}}], ids=["qlora", "adamw_8bit"])
def test_without_bitsandbytes_a_run_says_what_to_install_before_it_starts(
    values: dict[str, Any], doors: Path, tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as where it is not installed

    with pytest.raises(MissingExtraError, match="needs bitsandbytes, which is not installed") as caught:
        run(load_recipe(values={**recipe_values(small_model, doors), **values}), run_dir=tmp_path / "run")

    assert "pip install 'danlu[quant]', or set" in caught.value.fix
    assert not (tmp_path / "run/recipe.json").exists()


def test_too_many_virtual_tokens_are_refused_before_the_start(doors: Path, tmp_path: Path, small_model: Path) -> None:
    with pytest.raises(NoEffectError, match="leaves room for 2 tokens of an example"):
        run(load_recipe(values=recipe_values(small_model, doors, method={"type": "prompt_tuning", "num_virtual_tokens": 510})), run_dir=tmp_path / "run")


def test_answers_may_not_be_longer_than_virtual_tokens_leave_room_for(small_model: Path, tmp_path: Path) -> None:
    from danlu.models.generate import max_positions
    from danlu.models.load import load_model
    from danlu.recipe.base import METHODS

    method: Any = METHODS.parse({"type": "p_tuning_v2", "num_virtual_tokens": 12})
    method.save(method.apply(load_model(small_model), fused=False), tmp_path)
    load_tokenizer(small_model).save_pretrained(tmp_path)

    with ModelPair(small_model, adapter_dir=tmp_path).tuned() as tuned:
        assert max_positions(tuned) == 500
