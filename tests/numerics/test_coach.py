"""The coach on real tiny trainings with an injected fault: it names the fault, and names nothing in healthy runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from danlu.data.pack import EncodedExample, TokenFile
from danlu.errors import DivergedError
from danlu.files import read_json, read_jsonl, write_json
from danlu.recipe.load import load_recipe
from danlu.recipe.recipe import Recipe
from danlu.services.runs import run
from danlu.training.coach import Coach, diagnose
from danlu.training.forward import reference_nll
from danlu.training.loop import Loop
from models import recipe_values

MakeTrial = Callable[..., Any]
VOCABULARY, END = 48, 0
FULL = {"type": "full"}
LORA = {"type": "lora", "rank": 4}
USUAL = {"lora": 0.01, "full": 0.003}
"""Rates at which the tiny model learns well; in a run they come from the recommendation."""


def counting(count: int, *, stride: int = 1, seed: int) -> list[EncodedExample]:
    """Sequences that count on by `stride`; three tokens of prompt, and one token that ends them all."""
    draw = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        length = int(draw.integers(6, 20))
        ids = ((draw.integers(VOCABULARY) + stride * np.arange(length)) % VOCABULARY).astype(np.uint32)
        ids[-1] = END
        examples.append(EncodedExample(ids, np.arange(length) >= 3))
    return examples


def noise(count: int, *, seed: int, length: int = 12) -> list[EncodedExample]:
    """Sequences of tokens drawn at random, in which nothing follows from anything but that they end."""
    draw = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        ids = draw.integers(VOCABULARY, size=length).astype(np.uint32)
        ids[-1] = END
        examples.append(EncodedExample(ids, np.arange(length) >= 3))
    return examples


def without_end(examples: list[EncodedExample]) -> list[EncodedExample]:
    """The same without the token that ends them."""
    return [EncodedExample(e.ids[:-1], e.mask[:-1]) for e in examples]


class Patient:
    """A trained trial: what the coach says afterwards, and what it said on the way."""

    def __init__(
        self,
        trial: Any,
        train: list[EncodedExample],
        validation: list[EncodedExample],
        *,
        usual: float | None,
        nll: Any = reference_nll,
        change: Callable[[Loop], None] = lambda loop: None,
    ) -> None:
        self.trial, self.run_dir, self.recipe = trial, trial.run_dir, trial.recipe
        for name, examples in (("train", train), ("validation", validation)):
            TokenFile.write(self.run_dir.data / f"{name}.tokens", examples)
        counts = {"num_examples": len(train), "num_tokens": sum(len(e.ids) for e in train), "truncated": 0, "dropped": 0}
        write_json(self.run_dir.data / "encoded.json", {"train": counts, "validation": {"num_examples": len(validation)}})
        write_json(self.run_dir.data / "accounting.json", {"rows_in": len(train) + len(validation), "used": len(train) + len(validation)})
        self.run_dir.update_record(facts={"usual_learning_rate": usual})
        self.nll, self.change = nll, change

    def loop(self) -> Loop:
        """A loop with a coach beside it."""
        loop: Loop = self.trial.loop(self.nll)
        self.change(loop)
        coach = Coach(self.recipe, self.run_dir, loop.reporter)
        loop.reporter.listen(coach)
        coach.begin()
        return loop

    def train(self) -> "Patient":
        """Train to the end, be it a bitter one."""
        loop = self.loop()
        try:
            outcome = loop.run()
        except DivergedError:
            return self
        best = loop.restore_best()
        write_json(self.run_dir.path / "training.json", {"outcome": outcome, "kept_step": best or loop.state.step})
        return self

    @property
    def names(self) -> list[str]:
        """What is said of the run afterwards."""
        return [diagnosis.name for diagnosis in diagnose(self.recipe, self.run_dir)]

    @property
    def standing(self) -> list[str]:
        """What was said live and not taken back."""
        said: dict[str, bool] = {}
        for event in self.events:
            said[event["name"]] = event["status"] == "found"
        return [name for name, holds in said.items() if holds]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for event in read_jsonl(self.run_dir.events) if event["kind"] == "coach"]


@pytest.fixture
def patient(trial: MakeTrial) -> Callable[..., Patient]:
    """Make an untrained patient; the keywords of `Patient` and parts of the recipe."""

    def make(
        train: list[EncodedExample] | None = None,
        validation: list[EncodedExample] | None = None,
        *,
        method: dict[str, Any] = LORA,
        nll: Any = reference_nll,
        change: Callable[[Loop], None] = lambda loop: None,
        name: str = "patient",
        **optim: Any,
    ) -> Patient:
        usual = USUAL[method["type"]]
        one = trial(
            name,
            method=method,
            optim={"max_steps": 60, "global_batch_size": 8, "learning_rate": usual, **optim},
            training={"validate_every_steps": 6, "checkpoint_every_steps": 20},
        )
        data = counting(200, seed=1) if train is None else train, counting(24, seed=2) if validation is None else validation
        return Patient(one, *data, usual=usual, nll=nll, change=change)

    return make


MakePatient = Callable[..., Patient]


def even_head(loop: Loop) -> None:
    """Let the model begin by finding every token equally likely, which is all there is to know of noise."""
    with torch.no_grad():
        loop.model.get_output_embeddings().weight.mul_(1e-3)  # type: ignore[operator, union-attr]


def break_a_weight(loop: Loop) -> None:
    with torch.no_grad():
        next(p for p in loop.model.parameters() if p.requires_grad).fill_(float("inf"))


def small_memory(fits: int) -> Any:
    """A forward pass that runs out of memory beyond `fits` tokens."""

    def nll(model: nn.Module, batch: Any) -> Tensor:
        if len(batch.ids_T) > fits:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return reference_nll(model, batch)

    return nll


FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora-rate-x100": ("learning_rate_too_high", {"learning_rate": 1.0}),
    "full-rate-x100": ("learning_rate_too_high", {"method": FULL, "learning_rate": 0.3}),
    "full-rate-x300": ("divergence", {"method": FULL, "learning_rate": 1.0, "scheduler": "constant", "max_steps": 30}),
    "lora-rate-x0.001": ("learning_rate_too_low", {"learning_rate": 1e-5}),
    "full-rate-x0.001": ("learning_rate_too_low", {"method": FULL, "learning_rate": 3e-6}),
    "infinite-weight": ("not_finite", {"change": break_a_weight}),
    "nothing-to-learn": (
        "loss_flat",
        {"train": noise(250, seed=5, length=60), "validation": noise(12, seed=6, length=60), "change": even_head, "max_steps": 24},
    ),
    "answers-of-noise": (
        "memorisation",
        {"train": noise(64, seed=5), "validation": noise(40, seed=6), "method": FULL, "learning_rate": 0.01, "max_steps": 200},
    ),
    "labels-shuffled": ("validation_not_improving", {"train": counting(80, seed=1), "validation": counting(24, stride=5, seed=2)}),
    "too-many-passes": (
        "overfitting",
        {
            "train": counting(40, seed=1) + noise(20, seed=3),
            "validation": counting(30, seed=7) + noise(15, seed=9),
            "method": FULL,
            "learning_rate": 0.01,
            "max_steps": 90,
        },
    ),
    "clip-to-nothing": ("gradient_clipping_always", {"max_grad_norm": 1e-9}),
    "two-validation-rows": ("validation_too_small", {"validation": counting(2, seed=2)}),
    "no-validation-rows": ("no_validation", {"validation": []}),
    "twelve-rows": ("data_too_small", {"train": counting(12, seed=1), "max_steps": 20}),
    "no-end-token": ("no_end_of_turn", {"train": without_end(counting(200, seed=1)), "validation": without_end(counting(24, seed=2))}),
    "memory-runs-out": ("micro_batch_halved_often", {"nll": small_memory(40), "micro_batch_tokens": 256}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_injected_fault_is_named_and_nothing_else_is(patient: MakePatient, fault: str) -> None:
    name, options = FAULTS[fault]
    one = patient(**options).train()

    assert one.names == [name]
    assert one.standing == [name]
    [diagnosis] = diagnose(one.recipe, one.run_dir)
    assert all(text for texts in (diagnosis.what, diagnosis.why, diagnosis.fix) for text in texts)
    assert all(isinstance(value, int | float) for value in diagnosis.evidence.values()) and diagnosis.evidence
    recipe_with(one.recipe, diagnosis.changes)


def recipe_with(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """What the button of a studio does with the changes; refused when one names no setting or a bad value."""
    return load_recipe(values=recipe.to_dict(), overrides=[f"{path}={value}" for path, value in changes.items()])


HEALTHY: dict[str, dict[str, Any]] = {
    "lora": {},
    "lora-other-data": {"train": counting(150, stride=3, seed=11), "validation": counting(20, stride=3, seed=12)},
    "lora-three-times-the-rate": {"learning_rate": 0.03},
    "full": {"method": FULL},
    "full-muon": {"method": FULL, "optimizer": "muon", "learning_rate": 0.01},
    "full-linear-one-pass": {"method": FULL, "train": counting(600, seed=21), "scheduler": "linear", "learning_rate": 0.006},
    "small-batches": {"global_batch_size": 2, "max_steps": 120, "learning_rate": 0.005},
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_is_not_accused(patient: MakePatient, name: str) -> None:
    one = patient(**HEALTHY[name]).train()

    assert one.names == [] and one.events == []


def test_the_suggested_rate_cures(patient: MakePatient) -> None:
    """The button is pressed until nothing is said any more."""
    rate, names = 1.0, ["learning_rate_too_high"]
    for attempt in range(4):
        one = patient(method=FULL, learning_rate=rate, name=f"try{attempt}").train()
        names = one.names
        if not names:
            break
        rate = diagnose(one.recipe, one.run_dir)[0].changes["optim.learning_rate"]

    assert names == [] and rate < 0.1


def test_what_is_said_is_the_same_after_a_resume(patient: MakePatient) -> None:
    """Killed after step 33 with the last checkpoint at 20: the steps between are trained again, and nothing is said twice."""
    options = FAULTS["too-many-passes"][1] | {"max_steps": 60}
    whole = patient(**options, name="whole").train()
    one = patient(**options, name="killed")
    loop = one.loop()
    loop.after_step = stop_at(33)
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert [row["step"] for row in read_jsonl(one.run_dir.metrics)][-1] == 33

    one.train()

    said = [(event["step"], event["name"], event["status"], event["evidence"]) for event in one.events]
    assert said == [(event["step"], event["name"], event["status"], event["evidence"]) for event in whole.events]
    assert [d.to_dict() for d in diagnose(one.recipe, one.run_dir)] == [d.to_dict() for d in diagnose(whole.recipe, whole.run_dir)]


def stop_at(step: int) -> Callable[[Loop], None]:
    def after_step(loop: Loop) -> None:
        if loop.state.step == step:
            raise KeyboardInterrupt

    return after_step


def test_a_diagnosis_that_no_longer_holds_is_taken_back(patient: MakePatient) -> None:
    one = patient(method=FULL, learning_rate=1.0, scheduler="linear", max_steps=60).train()

    said = [(event["name"], event["status"]) for event in one.events]
    assert ("divergence", "found") in said and ("divergence", "resolved") in said
    resolved = next(event for event in one.events if event["status"] == "resolved")
    assert resolved["en"].startswith("No longer so: The training loss") and resolved["zh"].startswith("已不再如此：")


def test_the_coach_costs_the_training_nothing(patient: MakePatient) -> None:
    loop, bare = patient(name="with", max_steps=20).loop(), patient(name="without", max_steps=20).trial.loop()
    loop.run()
    bare.run()

    assert all(torch.equal(a, b) for a, b in zip(loop.model.parameters(), bare.model.parameters(), strict=True))


ROWS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "ninety-percent-duplicates": (
        "duplicates_dominating",
        [{"instruction": f"Which colour has door {n % 80}?", "output": f"Door {n % 80} is {('red', 'green', 'blue')[n % 80 % 3]}."} for n in range(800)],
    ),
    "template-in-the-prompt": (
        "wrong_template",
        [{"instruction": f"Human: Which colour has door {n}?\nAssistant:", "output": f"Door {n} is {('red', 'green')[n % 2]}."} for n in range(130)],
    ),
    "template-in-the-answer": (
        "wrong_template",
        [{"instruction": f"{n} 号门是什么颜色？", "output": f"助手：{n} 号门是{'红绿蓝'[n % 3]}色。\n用户：谢谢"} for n in range(130)],
    ),
    "cut-prompts": (
        "many_shortened",
        [{"instruction": f"Door {n}. " + f"room {n} " * 40, "output": f"Door {n} is {('red', 'green')[n % 2]}."} for n in range(130)],
    ),
}


@pytest.mark.parametrize("fault", ROWS)
def test_a_fault_of_the_rows_is_named_by_a_whole_run(tmp_path: Path, small_model: Path, fault: str) -> None:
    import orjson

    name, rows = ROWS[fault]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    values = recipe_values(small_model, tmp_path / "rows.jsonl", evaluation={"suites": []}, data={"max_seq_len": 48})
    result = run(load_recipe(values=values), run_dir=tmp_path / "run")

    assert result.report is not None
    found = {diagnosis["name"]: diagnosis for diagnosis in result.report["coach"]}
    assert set(found) - {"validation_too_small"} == {name}
    assert read_json(result.run_dir.report_json)["coach"] == result.report["coach"]
    assert found[name]["what"]["zh"] in result.run_dir.report_html.read_text("utf-8")
    said = [event["name"] for event in read_jsonl(result.run_dir.events) if event["kind"] == "coach"]
    assert sorted(said) == sorted(found)


def test_rows_of_which_nothing_is_trained_on_are_named(tmp_path: Path, small_model: Path) -> None:
    """A template whose marks for the answers cover nothing: every label is masked, and the run stops with the reason."""
    import shutil

    import orjson

    from danlu.errors import TooFewExamplesError
    from danlu.services.runs import coach

    model = shutil.copytree(small_model, tmp_path / "model")
    config = orjson.loads((model / "tokenizer_config.json").read_bytes())
    config["chat_template"] = "{% for m in messages %}{{ m['content'] }}{% generation %}{% endgeneration %}{% endfor %}"
    (model / "tokenizer_config.json").write_bytes(orjson.dumps(config))
    rows = [{"instruction": f"Which colour has door {n}?", "output": f"Door {n} is red."} for n in range(60)]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))

    with pytest.raises(TooFewExamplesError, match="after tokenising"):
        run(load_recipe(values=recipe_values(model, tmp_path / "rows.jsonl")), run_dir=tmp_path / "run")

    run_dir, diagnoses = coach(str(tmp_path / "run"))
    assert [d["name"] for d in diagnoses] == ["all_labels_masked"]
    assert [event["name"] for event in read_jsonl(run_dir.events) if event["kind"] == "coach"] == ["all_labels_masked"]
