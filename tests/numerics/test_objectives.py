"""The suite of every objective, also of those that a plug-in brings: data to trained weights on a model that takes milliseconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch

from danlu.data.chat import ChatRenderer
from danlu.data.convert import examples
from danlu.data.encode import encode_to_file
from danlu.data.pack import TokenFile
from danlu.files import read_jsonl
from danlu.models.load import load_tokenizer
from danlu.recipe.base import OBJECTIVES
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir
from danlu.training import run as training
from danlu.training.checkpoint import load
from models import write_model
from rows import write_rows

NAMES = list(OBJECTIVES)
OPTIONS: dict[str, dict[str, Any]] = {
    "grpo": {
        "num_answers": 8,
        "max_completion_tokens": 6,
        "num_iterations": 2,
        "beta": 0.02,
        "temperature": 0.1,
        "num_validation_prompts": 4,
        "rewards": [{"type": "length", "minimum": 30}],
    },
}
"""Settings that an objective cannot do without."""


class Enough(Exception):
    pass


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "one-layer", num_hidden_layers=1, hidden_size=32, intermediate_size=48, num_attention_heads=2)


class Trial:
    """Runs of one objective over the rows of its kind."""

    def __init__(self, folder: Path, model_dir: Path, objective: str, *, needs: str | None = None, **values: Any) -> None:
        self.model_dir, self.folder = model_dir, folder
        optim = {"learning_rate": 0.02, "max_steps": 6, "global_batch_size": 4, "micro_batch_tokens": 512, "warmup_ratio": 0.0, **values.pop("optim", {})}
        loop = {"validate_every_steps": 4, "checkpoint_every_steps": 2, "dtype": "float32", "early_stopping_patience": None, **values.pop("training", {})}
        values = {
            "base_model": str(model_dir), "dataset": "d", "method": {"type": "lora", "rank": 4}, "objective": {"type": objective, **OPTIONS.get(objective, {})},
            "optim": optim, "training": loop, "data": {"max_seq_len": 128}, **values,
        }  # fmt: skip
        self.recipe = Recipe.model_validate(values)
        self.run_dir = RunDir.create(folder)
        (folder / "data").mkdir(exist_ok=True)
        self.renderer = ChatRenderer(load_tokenizer(model_dir))
        self.needs = needs or self.recipe.objective.needs
        self.account = self.encode("train", 12)
        self.encode("validation", 4)

    def encode(self, split: str, count: int) -> Any:
        rows = list(examples(write_rows(self.folder / f"{split}.rows.jsonl", self.needs, count), needs=self.recipe.objective.needs))  # type: ignore[arg-type]
        (self.run_dir.data / f"{split}.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        return encode_to_file(
            rows,
            self.run_dir.data / f"{split}.tokens",
            objective=self.recipe.objective,
            renderer=self.renderer,
            max_seq_len=int(self.recipe.data.max_seq_len),
            truncation="oldest_turns",
            note=lambda entry: None,
        )

    def run(self, *, stop_after: int | None = None) -> str:
        def listen(kind: str, fields: dict[str, Any]) -> None:
            if kind == "metrics" and fields["step"] == stop_after and "loss" in fields:
                raise Enough

        return training.run(self.recipe, self.run_dir, Reporter(self.run_dir, listen), model_dir=self.model_dir)

    @property
    def lines(self) -> list[dict[str, Any]]:
        timing = {"time", "tokens_per_second", "peak_memory_bytes"}
        return [{k: v for k, v in line.items() if k not in timing} for line in read_jsonl(self.run_dir.metrics)]

    @property
    def losses(self) -> list[float]:
        return [line["loss"] for line in self.lines if "loss" in line]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return load(sorted(self.run_dir.checkpoints.glob("step-*"))[-1]).weights


MakeTrial = Callable[..., Trial]


@pytest.fixture
def trial(tmp_path: Path, model_dir: Path) -> MakeTrial:
    return lambda objective, name="trial", **values: Trial(tmp_path / name, model_dir, objective, **values)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("objective", NAMES)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_loss_falls(trial: MakeTrial, objective: str, method: str) -> None:
    rate = {"lora": 0.02, "full": 0.003}[method]
    one = trial(objective, method={"type": method}, optim={"max_steps": 12, "learning_rate": rate, "global_batch_size": 12})

    assert one.run() == "finished"

    if OBJECTIVES[objective].is_online:  # its loss is taken on other answers at every step; what rises is the reward
        rewards = [line["reward"] for line in one.lines if "loss" in line]
        assert rewards[-1] > rewards[0] + 0.2
        return
    validations = [line["validation_loss"] for line in one.lines if "validation_loss" in line]
    assert one.losses[-1] < one.losses[0]
    assert validations[-1] < validations[0]


@pytest.mark.parametrize("objective", NAMES)
def test_a_killed_run_goes_on_bitwise(trial: MakeTrial, objective: str) -> None:
    whole, parts = trial(objective, "whole"), trial(objective, "parts")
    whole.run()
    for step in (1, 3, 5):
        with pytest.raises(Enough):
            parts.run(stop_after=step)

    assert parts.run() == "finished"

    assert same(parts.weights, whole.weights)
    assert parts.lines == whole.lines


@pytest.mark.parametrize("objective", NAMES)
def test_neither_the_micro_batch_nor_the_path_changes_the_loss(trial: MakeTrial, objective: str) -> None:
    one = trial(objective, "large", optim={"max_steps": 3})
    small = trial(objective, "small", optim={"max_steps": 3, "micro_batch_tokens": 16})
    reference = trial(objective, "reference", optim={"max_steps": 3}, training={"path": "reference"})
    for each in (one, small, reference):
        each.run()

    for line, small_line, reference_line in zip(one.lines, small.lines, reference.lines, strict=True):
        assert small_line == pytest.approx(line, rel=1e-4, abs=1e-6)
        assert reference_line == pytest.approx(line, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("objective", [name for name in NAMES if OBJECTIVES[name].needs not in ("text", "prompt")])
def test_only_answers_are_trained_on(trial: MakeTrial, objective: str) -> None:
    one = trial(objective)
    prompts = [one.renderer.prompt_ids(e["messages"][:1]) for e in examples(one.folder / "train.rows.jsonl", needs=one.recipe.objective.needs)]
    by_question = {tuple(prompt) for prompt in prompts}

    for sequence in TokenFile(one.run_dir.data / "train.tokens"):
        first = int(np.argmax(sequence.mask))
        assert tuple(int(i) for i in sequence.ids[:first]) in by_question
        answer = one.renderer.tokenizer.decode(sequence.ids[sequence.mask])
        assert answer.startswith(("Door", "Nobody")) and answer.rstrip("\n").endswith("<|im_end|>")


@pytest.mark.parametrize("objective", [name for name in NAMES if OBJECTIVES[name].has_reference])
def test_the_reference_is_the_model_before_training_and_is_computed_once(trial: MakeTrial, objective: str, model_dir: Path) -> None:
    from danlu.models.load import load_model
    from danlu.training.forward import score_examples

    one = trial(objective)
    with pytest.raises(Enough):
        one.run(stop_after=3)
    path = one.run_dir.data / "train.tokens" / "reference.npy"
    written = path.read_bytes()
    tokens = TokenFile(path.parent)
    expected, _ = score_examples(load_model(model_dir), list(tokens), micro_batch_tokens=64, device="cpu", path="reference")
    assert [s.reference for s in tokens] == pytest.approx(expected, rel=1e-5)
    path.unlink()

    one.run()

    assert path.read_bytes() == written  # made again from the base model, not from the weights that had moved
    assert TokenFile(one.run_dir.data / "validation.tokens")[0].reference > 0


def test_too_little_memory_for_the_reference_makes_the_micro_batch_smaller(trial: MakeTrial, model_dir: Path) -> None:
    from danlu.models.load import load_model
    from danlu.training.forward import reference_nll
    from danlu.training.reference import add_references

    one, calls, heard = trial("dpo"), [], []

    def nll(model: Any, batch: Any) -> Any:
        calls.append(sum(batch.lengths))
        if sum(batch.lengths) > 200:
            raise MemoryError
        return reference_nll(model, batch)

    reporter = Reporter(one.run_dir, lambda kind, fields: heard.append(kind))
    add_references(one.run_dir, reporter, load_model(model_dir), nll, micro_batch_tokens=512, device=torch.device("cpu"))

    assert heard.count("out_of_memory") == 2 and max(calls) > 200 >= calls[-1]
    assert all(sequence.reference > 0 for sequence in TokenFile(one.run_dir.data / "train.tokens"))


def test_pairs_stay_whole_and_share_a_shortened_prompt(trial: MakeTrial) -> None:
    one = trial("dpo")
    long = {"line": 7, "messages": [{"role": "user", "content": "word " * 300}], "chosen": [{"role": "assistant", "content": "yes"}],
            "rejected": [{"role": "assistant", "content": "no, never, not at all"}]}  # fmt: skip
    hopeless = long | {"line": 8, "rejected": [{"role": "assistant", "content": "no " * 300}]}
    noted: list[dict[str, Any]] = []
    path = one.run_dir.data / "odd.tokens"
    account = encode_to_file(
        [long, hopeless], path, objective=one.recipe.objective, renderer=one.renderer, max_seq_len=64, truncation="oldest_turns", note=noted.append
    )

    chosen, rejected = TokenFile(path)
    first = int(np.argmax(chosen.mask))
    assert np.array_equal(chosen.ids[:first], rejected.ids[:first]) and max(len(chosen.ids), len(rejected.ids)) <= 64
    assert (account.num_examples, account.num_truncated, account.num_dropped) == (1, 1, 1)
    assert [(entry["line"], entry["action"]) for entry in noted] == [(7, "truncated"), (8, "dropped")]


def test_kto_reads_pairs_as_two_marked_answers(trial: MakeTrial) -> None:
    one = trial("kto", needs="preference")
    tokens = TokenFile(one.run_dir.data / "train.tokens")

    assert one.account.num_examples == 12 and len(tokens) == 48
    assert [s.tag for s in tokens][:4] == [1.0, 0.0, -1.0, 0.0]
    for own, measured, other in zip(list(tokens)[0::2], list(tokens)[1::2], [*list(tokens)[2::2], tokens[0]], strict=True):
        first, other_first, begin = (int(np.argmax(s.mask)) for s in (own, other, measured))
        assert np.array_equal(measured.ids[:begin], own.ids[:first]) and np.array_equal(measured.ids[begin:], other.ids[other_first:])


def test_turns_count_by_their_weight(trial: MakeTrial, model_dir: Path) -> None:
    from danlu.models.load import load_model
    from danlu.training.batch import PackedBatch
    from danlu.training.forward import reference_nll

    one = trial("sft")
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c"}, {"role": "user", "content": "d"}, {"role": "assistant", "content": "e"}]
    example = {"line": 1, "messages": turns, "train_on": [0.0, 0.5, 0.0, 2.0]}
    path = one.run_dir.data / "weighed.tokens"
    encode_to_file([example], path, objective=one.recipe.objective, renderer=one.renderer, max_seq_len=64, truncation="drop", note=lambda entry: None)
    sequence = TokenFile(path)[0]
    batch, model = PackedBatch.from_examples([sequence]), load_model(model_dir)
    assert sequence.weights is not None
    weights = sequence.weights[1:][sequence.mask[1:]]
    assert set(weights.tolist()) == {0.5, 2.0}

    objective: Any = one.recipe.objective
    loss, _ = objective.loss(model, batch, objective.totals([sequence]), reference_nll)

    nll = reference_nll(model, batch).detach().numpy()
    assert loss.item() == pytest.approx(float((nll * weights).sum() / weights.sum()), rel=1e-5)
