"""Samples while training: they say what the model writes, and leave the training as it is, bit by bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from danlu.data.chat import ChatRenderer
from danlu.files import read_jsonl
from danlu.models.generate import generate
from danlu.models.load import load_tokenizer
from danlu.recipe.load import load_recipe
from danlu.run_dir import RunDir
from danlu.services import pipeline
from danlu.services.runs import run
from danlu.training.checkpoint import trained_weights
from danlu.training.loop import Loop
from danlu.training.samples import Sampler
from models import recipe_values

EVERYTHING = {"sample_time_share": 1000.0, "sample_max_new_tokens": 6}
MakeTrial = Callable[..., Any]


def trained(folder: Path, model: Path, rows: Path, **values: Any) -> RunDir:
    values = {"evaluation": {"suites": []}, **values}
    return run(load_recipe(values=recipe_values(model, rows, **values)), run_dir=folder).run_dir


def samples(run_dir: RunDir) -> list[dict[str, Any]]:
    return [event for event in read_jsonl(run_dir.events) if event["kind"] == "sample"]


@pytest.mark.parametrize(
    "method", [{"type": "lora", "rank": 4}, {"type": "lora", "rank": 4, "dropout": 0.2}, {"type": "full"}], ids=["lora", "dropout", "full"]
)
def test_weights_and_losses_are_bitwise_those_of_a_run_without_samples(tmp_path: Path, small_model: Path, rows_file: Path, method: dict[str, Any]) -> None:
    name = "adapter/adapter_model.safetensors" if method["type"] == "lora" else "model/model.safetensors"
    with_samples = trained(tmp_path / "with", small_model, rows_file, method=method, training={"sample_every_steps": 1, **EVERYTHING})
    without = trained(tmp_path / "without", small_model, rows_file, method=method, training={"sample_every_steps": None})

    assert [event["step"] for event in samples(with_samples)] == list(range(9)) and samples(without) == []
    assert (with_samples.path / name).read_bytes() == (without.path / name).read_bytes()
    losses = [[(row["step"], row.get("loss"), row.get("validation_loss")) for row in read_jsonl(one.metrics)] for one in (with_samples, without)]
    assert losses[0] == losses[1]


def test_the_answers_are_those_of_the_base_model_and_of_the_tuned_one(tmp_path: Path, small_model: Path, rows_file: Path) -> None:
    training = {"sample_every_steps": 4, "sample_prompts": ["Which colour has door 3?", "天门山？"], "keep_best": False, **EVERYTHING}
    run_dir = trained(tmp_path / "run", small_model, rows_file, training=training)
    recipe = pipeline.resolved(run_dir)
    renderer = ChatRenderer(load_tokenizer(small_model))
    ids = [renderer.prompt_ids([{"role": "user", "content": prompt}]) for prompt in recipe.training.sample_prompts]
    pair = pipeline.open_pair(run_dir, recipe, small_model)

    first, _, last = samples(run_dir)
    for event, models in ((first, pair.base), (last, pair.tuned)):
        with models() as model:
            [expected] = list(generate(model, renderer, ids, max_new_tokens=6))
        assert [item["text"] for item in event["items"]] == [expected[0].text, expected[1].text]
        assert [item["prompt"] for item in event["items"]] == recipe.training.sample_prompts
    assert (first["step"], last["step"]) == (0, 8)
    assert [item["text"] for item in first["items"]] != [item["text"] for item in last["items"]]


def test_the_first_validation_rows_are_asked_by_default_and_shown_in_the_report(tmp_path: Path, small_model: Path, rows_file: Path) -> None:
    run_dir = trained(tmp_path / "run", small_model, rows_file, training=EVERYTHING)

    asked = [row["messages"] for row in read_jsonl(run_dir.data / "validation.jsonl")][:3]
    assert [event["step"] for event in samples(run_dir)] == [0, 2, 4, 6, 8]
    assert [(i["prompt"], i["reference"]) for i in samples(run_dir)[0]["items"]] == [(m[0]["content"], m[1]["content"]) for m in asked]
    html = run_dir.report_html.read_text("utf-8")
    assert "What it wrote while it learned" in html and "第 8 步" in html and asked[0][0]["content"] in html


def test_plain_text_is_gone_on_with(tmp_path: Path, small_model: Path) -> None:
    words = [start + end for start in ("stone", "river", "lamp", "boat", "mill") for end in ("way", "side", "man", "light")]
    texts = [" ".join(words[(n * k * k + k) % len(words)] for k in range(1, 40)) + f" {n}." for n in range(90)]
    (tmp_path / "text.txt").write_text("\n\n".join(texts))
    run_dir = trained(tmp_path / "run", small_model, tmp_path / "text.txt", objective={"type": "pretrain"}, training=EVERYTHING)

    texts = [row["text"] for row in read_jsonl(run_dir.data / "validation.jsonl")]
    items = samples(run_dir)[-1]["items"]
    assert items and all(any((item["prompt"] + item["reference"]).strip() in text for text in texts) for item in items)


def test_what_would_take_too_long_is_left_out_and_that_is_said(tmp_path: Path, small_model: Path, rows_file: Path) -> None:
    run_dir = trained(tmp_path / "run", small_model, rows_file, training={"sample_time_share": 0.01})

    [stopped] = [event for event in read_jsonl(run_dir.events) if event["kind"] == "samples_stopped"]
    assert stopped["message"] == "no samples from step 0 on: they would take more than 1 % of the training time"
    assert samples(run_dir) == []


def sampled(trial: Any, answer: Callable[[Any], list[dict[str, Any]]]) -> Loop:
    loop: Loop = trial.loop()
    loop.after_step = Sampler(trial.recipe, trial.run_dir, loop.reporter, answer)
    return loop


ITEM = {"prompt": "p", "reference": None, "text": "t", "num_tokens": 1, "is_cut": False}


def test_running_out_of_memory_while_answering_ends_the_samples_not_the_training(trial: MakeTrial) -> None:
    one = trial(training={"sample_every_steps": 2, "sample_time_share": 1000.0})
    calls = []

    def answer(model: Any) -> list[dict[str, Any]]:
        calls.append(model.training)
        if len(calls) == 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return [ITEM]

    loop = sampled(one, answer)
    assert loop.run() == "finished" and loop.model.training
    assert calls == [False] * 3
    assert [event["step"] for event in one.events("sample")] == [0, 2]
    assert [event["message"] for event in one.events("samples_stopped")] == ["no samples from step 4 on: memory ran out while answering"]


def test_any_other_error_is_not_hidden(trial: MakeTrial) -> None:
    one = trial(training={"sample_every_steps": 2, "sample_time_share": 1000.0})

    def answer(model: Any) -> list[dict[str, Any]]:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        sampled(one, answer).run()


def test_a_resumed_run_does_not_sample_a_step_twice(trial: MakeTrial) -> None:
    one = trial(training={"sample_every_steps": 3, "sample_time_share": 1000.0, "checkpoint_every_steps": 4})

    def killed_at_seven(model: Any) -> list[dict[str, Any]]:
        if len(one.events("sample")) == 3:
            raise KeyboardInterrupt
        return [ITEM]

    with pytest.raises(KeyboardInterrupt):
        sampled(one, killed_at_seven).run()
    sampled(one, lambda model: [ITEM]).run()

    assert [event["step"] for event in one.events("sample")] == [0, 3, 6, 9, 12]


def test_random_numbers_drawn_while_answering_are_given_back(trial: MakeTrial) -> None:
    one, other = (
        trial(name, method={"type": "lora", "rank": 4, "dropout": 0.5}, training={"sample_every_steps": 1, "sample_time_share": 1000.0}) for name in "ab"
    )

    def gamble(model: Any) -> list[dict[str, Any]]:
        torch.rand(100)
        return [ITEM]

    loop, bare = sampled(one, gamble), other.loop()
    loop.run()
    bare.run()
    weights = trained_weights(bare.model)
    assert all(torch.equal(weight, weights[name]) for name, weight in trained_weights(loop.model).items())
