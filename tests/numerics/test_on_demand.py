"""Training on rows that are tokenised when a step asks for them: bitwise what it is when all were tokenised before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from danlu.data import tokenise as stage
from danlu.data.chat import ChatRenderer
from danlu.data.convert import examples
from danlu.data.on_demand import OnDemand
from danlu.data.pack import EncodedExample, TokenFile
from danlu.files import read_json, read_jsonl, write_json
from danlu.models.load import load_tokenizer
from danlu.recipe.placement import Placement
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir
from danlu.services.processes import train_in_processes
from danlu.services.tokenising import complete
from danlu.training import run as training
from models import write_model
from rows import write_rows

NUM_ROWS, SPOILED = 24, (4, 5)
"""Two rows are too long to be used; neither is in the sample, which has every third one."""


class Enough(Exception):
    pass


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "one-layer", num_hidden_layers=1, hidden_size=32, intermediate_size=48, num_attention_heads=2)


class Trial:
    """A run folder whose training split was left for later."""

    def __init__(self, folder: Path, model_dir: Path, objective: str, change: Callable[[int, dict[str, Any]], None] | None, **optim: Any) -> None:
        self.model_dir, self.run_dir = model_dir, RunDir.create(folder)
        optim = {"learning_rate": 0.02, "max_steps": 8, "global_batch_size": 4, "micro_batch_tokens": 256, **optim}
        loop = {"validate_every_steps": 4, "checkpoint_every_steps": 2, "dtype": "float32", "early_stopping_patience": None}
        values = {"base_model": "b", "dataset": "d", "method": {"type": "lora", "rank": 4}, "objective": objective, "optim": optim, "training": loop}
        self.recipe = Recipe.model_validate({**values, "data": {"max_seq_len": 64, "format": "alpaca"}})
        write_json(self.run_dir.recipe, self.recipe.to_dict())
        needs: Any = self.recipe.objective.needs
        rows = list(examples(write_rows(folder / "rows.jsonl", needs, NUM_ROWS + 3), needs=needs))
        for number, row in enumerate(rows):
            if number in SPOILED:
                (row["chosen"] if "chosen" in row else row["messages"])[-1]["content"] = "far too long " * 50
            if change is not None:
                change(number, row)
        self.run_dir.data.mkdir()
        for split, some in (("train", rows[:NUM_ROWS]), ("validation", rows[NUM_ROWS:])):
            (self.run_dir.data / f"{split}.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in some))
        self.renderer = ChatRenderer(load_tokenizer(model_dir))
        assert stage.tokenise_a_sample(self.recipe, self.run_dir, self.renderer, NUM_ROWS)
        stage.tokenise(self.recipe, self.run_dir, self.renderer, splits=("validation",))

    def complete(self) -> None:
        complete(self.recipe, self.run_dir, self.model_dir)

    def run(self, *, stop_after: int | None = None, complete_after: int | None = None) -> str:
        def listen(kind: str, fields: dict[str, Any]) -> None:
            if kind == "metrics" and "loss" in fields:
                if fields["step"] == complete_after:
                    self.complete()
                if fields["step"] == stop_after:
                    raise Enough

        return training.run(self.recipe, self.run_dir, Reporter(self.run_dir, listen), model_dir=self.model_dir)

    @property
    def result(self) -> tuple[list[dict[str, Any]], bytes]:
        timing = {"time", "tokens_per_second", "peak_memory_bytes"}
        lines = [{k: v for k, v in line.items() if k not in timing} for line in read_jsonl(self.run_dir.metrics)]
        return lines, (self.run_dir.adapter / "adapter_model.safetensors").read_bytes()


MakeTrial = Callable[..., Trial]


@pytest.fixture
def trial(tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> MakeTrial:
    monkeypatch.setattr(stage, "MAX_AT_ONCE", 20)
    monkeypatch.setattr(stage, "SAMPLE", 8)
    return lambda name="trial", objective="sft", change=None, **optim: Trial(tmp_path / name, model_dir, objective, change, **optim)


def weigh(number: int, row: dict[str, Any]) -> None:
    """Rows whose turns count half, and rows that say nothing of it."""
    if number % 2:
        row["train_on"] = [0.0, 0.5]


def plain(group: list[EncodedExample]) -> list[Any]:
    return [(e.ids.tolist(), e.mask.tolist(), e.tag, np.ones(len(e.ids)).tolist() if e.weights is None else e.weights.tolist()) for e in group if len(e.ids)]


@pytest.mark.parametrize(("objective", "change"), [("sft", None), ("sft", weigh), ("orpo", None), ("reward", None)])
def test_a_row_gives_the_same_tokens_alone_among_others_and_in_the_file(trial: MakeTrial, objective: str, change: Any) -> None:
    one = trial(objective=objective, change=change)
    size = one.recipe.objective.group_size
    early = OnDemand(one.recipe, one.run_dir, one.renderer)
    alone = [plain(group) for index in range(NUM_ROWS) for group in early.groups([index], size)]
    together = [plain(group) for group in early.groups(range(NUM_ROWS), size)]

    one.complete()

    assert len(early) == NUM_ROWS * size and [index for index, group in enumerate(alone) if not group] == [*SPOILED]
    assert alone == together == [plain(group) for group in TokenFile(one.run_dir.data / "train.tokens").groups(range(NUM_ROWS), size)]
    assert together == [plain(group) for group in early.groups(range(NUM_ROWS), size)]  # it reads the file now


@pytest.mark.parametrize(("objective", "change"), [("sft", None), ("sft", weigh), ("simpo", None)])
def test_when_the_tokens_are_made_changes_no_bit_of_the_result(trial: MakeTrial, objective: str, change: Any) -> None:
    before, during, never, resumed = (trial(name, objective, change) for name in ("before", "during", "never", "resumed"))
    before.complete()

    assert before.run() == during.run(complete_after=3) == never.run() == "finished"
    with pytest.raises(Enough):
        resumed.run(stop_after=3)
    with pytest.raises(Enough):
        resumed.run(complete_after=4, stop_after=5)
    resumed.run()

    assert before.result == during.result == never.result == resumed.result
    assert not (never.run_dir.data / "train.tokens").exists()


def test_the_account_of_what_was_left_for_later_is_that_of_all_at_once(trial: MakeTrial) -> None:
    one = trial()
    expected = stage.train_counts(one.run_dir)

    one.complete()
    entries, counts = list(read_jsonl(one.run_dir.data / "tokenised.jsonl")), read_json(one.run_dir.data / "encoded.json")
    stage.tokenise(one.recipe, one.run_dir, one.renderer)

    assert [(entry["split"], entry["action"], entry["line"]) for entry in entries] == [("train", "dropped", number + 1) for number in SPOILED]
    assert counts == read_json(one.run_dir.data / "encoded.json") and entries == list(read_jsonl(one.run_dir.data / "tokenised.jsonl"))
    assert counts["train"]["num_examples"] + counts["train"]["dropped"] == NUM_ROWS == expected["num_rows"]
    assert expected["num_examples"] == NUM_ROWS and list(counts) == ["train", "validation", "test"]


def test_steps_of_which_every_example_is_dropped_keep_their_place_and_move_nothing(trial: MakeTrial) -> None:
    one, resumed = (trial(name, global_batch_size=1, max_steps=NUM_ROWS) for name in ("one", "resumed"))

    assert one.run() == "finished"
    with pytest.raises(Enough):
        resumed.run(stop_after=next(line["step"] for line in one.result[0] if line["step"] > 10))
    resumed.run()

    empty = [event["step"] for event in read_jsonl(one.run_dir.events) if event["kind"] == "empty_step"]
    trained = [line["step"] for line in one.result[0] if "loss" in line]
    assert len(empty) == len(SPOILED) and sorted(empty + trained) == list(range(1, NUM_ROWS + 1))
    assert resumed.result == one.result


def test_the_forecast_speaks_of_all_rows_from_the_sample(trial: MakeTrial) -> None:
    one = trial()
    one.run()

    forecast = one.run_dir.read_record()["forecast"]
    mean = float(stage.train_tokens(one.run_dir).lengths.mean())
    assert forecast["num_steps"] == 8
    assert forecast["num_tokens"] == pytest.approx(mean * NUM_ROWS * 8 / 6, abs=1)


def test_two_processes_tokenise_for_themselves_and_learn_what_one_does(trial: MakeTrial) -> None:
    one, two = trial("one"), trial("two")
    one.run()

    outcome = train_in_processes(two.recipe, two.run_dir, Reporter(two.run_dir), model_dir=two.model_dir, device="cpu", placement=Placement(processes=2))

    assert outcome == "finished" and not (two.run_dir.data / "train.tokens").exists()
    losses = [[line.get("loss", line.get("validation_loss")) for line in each.result[0]] for each in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
