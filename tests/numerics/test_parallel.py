"""Two processes train what one would: the same losses, checkpoints that fit either, and exact after one of them was killed."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from safetensors.torch import load_file

from danlu.data.chat import ChatRenderer
from danlu.data.convert import examples
from danlu.data.pack import EncodedExample, TokenFile, divide
from danlu.data.tokenise import tokenise
from danlu.errors import NoEffectError
from danlu.files import read_jsonl, write_json
from danlu.models.load import load_tokenizer
from danlu.recipe.placement import Placement
from danlu.recipe.recipe import Recipe
from danlu.reporter import SilentReporter
from danlu.run_dir import RunDir

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["danlu.training.run", "peft", "torch.distributed.fsdp", "torch.distributed.tensor", "transformers.models.qwen3.modeling_qwen3"])
LORA, FULL = {"type": "lora", "rank": 4}, {"type": "full"}
NUM_STEPS = 6


class Acting(SilentReporter):
    """Does something after a step; keeps nothing but what process 0 stores."""

    def __init__(self, run_dir: RunDir, rank: int, action: tuple[int, int, int] | None) -> None:
        super().__init__(run_dir)
        self.rank, self.action = rank, action

    def _append(self, path: Path, value: dict[str, Any]) -> None:
        if self.rank == 0:
            super(SilentReporter, self)._append(path, value)

    def metrics(self, **values: Any) -> None:
        super().metrics(**values)
        if self.action is not None and "loss" in values and (self.rank, values["step"]) == self.action[:2]:
            os.kill(os.getpid(), self.action[2])


def take_part(rank: int, size: int, folder: Path, is_sharded: bool, fails_at: int | None, action: tuple[int, int, int] | None) -> None:
    """One process of a run; `action` is (rank, step, signal), `fails_at` a forward pass that finds no memory in process 1."""
    from danlu.recipe.load import validate
    from danlu.training import run as stage
    from danlu.training.forward import fast_nll
    from danlu.training.parallel import World, joined

    torch.set_num_threads(1)
    run_dir = RunDir(folder)
    recipe = validate(dict(read_one(run_dir.recipe)), source="test")
    reporter = Acting(run_dir, rank, action)
    calls = 0

    def nll(model: Any, batch: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if rank == 1 and calls == fails_at:
            raise MemoryError
        return fast_nll(model, batch, **options)

    stage.fast_nll = nll  # type: ignore[assignment]
    if size == 1:
        stage.run(recipe, run_dir, reporter, model_dir=folder.parent / "model", world=World(torch.device("cpu")))
        return
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "GLOO_SOCKET_IFNAME": "lo"}
    with joined("cpu", is_sharded=is_sharded, rendezvous=f"file://{folder}/rendezvous") as world:
        stage.run(recipe, run_dir, reporter, model_dir=folder.parent / "model", world=world)


def read_one(path: Path) -> Any:
    from danlu.files import read_json

    return read_json(path)


def train(
    folder: Path, size: int = 1, *, is_sharded: bool = False, fails_at: int | None = None, action: tuple[int, int, int] | None = None
) -> list[int | None]:
    """Run the training stage of `folder` in `size` processes; when one dies, end the others. Return the exit codes."""
    (folder / "rendezvous").unlink(missing_ok=True)
    processes = [CONTEXT.Process(target=take_part, args=(rank, size, folder, is_sharded, fails_at, action)) for rank in range(size)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        for process in processes:
            process.join(0.05)
        if any(process.exitcode for process in processes):
            for process in processes:
                process.kill()
    return [process.exitcode for process in processes]


class Folders:
    """Run folders over one model and one set of token files."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root = root
        (root / "model").symlink_to(model)

    def make(self, name: str, method: dict[str, Any], *, objective: str = "sft", **optim: Any) -> Path:
        run_dir = RunDir.create(self.root / name)
        TokenFile.write(run_dir.data / "train.tokens", sequences(22, seed=1, objective=objective))
        TokenFile.write(run_dir.data / "validation.tokens", sequences(5, seed=2, objective=objective))
        values = {
            "base_model": "b",
            "dataset": "d",
            "method": method,
            "objective": objective,
            "optim": {"learning_rate": 2e-3, "max_steps": NUM_STEPS, "global_batch_size": 5, "micro_batch_tokens": 48, **optim},
            "data": {"max_seq_len": 64, "format": "alpaca"},
            "training": {"validate_every_steps": 3, "checkpoint_every_steps": 2, "early_stopping_patience": None, "dtype": "float32", "keep_best": False},
        }
        write_json(run_dir.recipe, Recipe.model_validate(values).to_dict())
        return run_dir.path


def sequences(count: int, *, seed: int, objective: str) -> list[EncodedExample]:
    """Of `count` examples: one sequence each, or the two answers to a prompt that pairs have; kto measures the second."""
    draw = np.random.default_rng(seed)
    found = []
    for number in range(count):
        prompt = draw.integers(3, 500, int(draw.integers(3, 15)))
        tags = {"sft": (0.0,), "kto": ((-1.0, 1.0)[number % 2], 0.0)}.get(objective, (0.0, 0.0))
        for tag in tags:
            ids = np.concatenate([prompt, draw.integers(3, 500, int(draw.integers(3, 15)))]).astype(np.uint32)
            found.append(EncodedExample(ids, np.arange(len(ids)) >= len(prompt), tag))
    return found


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


@pytest.fixture
def folders(tmp_path: Path, model: Path) -> Folders:
    return Folders(tmp_path, model)


def losses(folder: Path) -> list[float]:
    return [line.get("loss", line.get("validation_loss")) for line in read_jsonl(folder / "metrics.jsonl")]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    [file] = [*folder.glob("adapter/*.safetensors"), *folder.glob("model/*.safetensors")]
    return load_file(file)


def assert_same_bits(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert losses(one) == losses(other)


def assert_close(one: Path, other: Path, *, absolute: float = 0.0) -> None:
    assert losses(one) == pytest.approx(losses(other), rel=1e-6, abs=absolute)
    a, b = weights(one), weights(other)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("method", "is_sharded"), [(LORA, False), (FULL, False), (LORA, True), (FULL, True)], ids=["lora", "full", "lora-fsdp2", "full-fsdp2"])
def test_two_processes_train_what_one_does_and_take_over_from_each_other(folders: Folders, method: dict[str, Any], is_sharded: bool) -> None:
    one, two, mixed = (folders.make(name, method) for name in ("one", "two", "mixed"))

    assert train(one) == [0]
    assert train(two, 2, is_sharded=is_sharded) == [0, 0]
    assert len(losses(one)) == NUM_STEPS + 2
    assert_close(two, one)

    # The signal reaches one process only: both stop after the same step.
    assert train(mixed, 2, is_sharded=is_sharded, action=(1, 2, signal.SIGTERM)) == [0, 0]
    assert len(losses(mixed)) == 2 and not (mixed / "training.json").exists()
    assert train(mixed, 1, action=(0, 4, signal.SIGTERM)) == [0]
    assert train(mixed, 2, is_sharded=is_sharded) == [0, 0]
    assert read_one(mixed / "training.json")["resumed_at"] == [2, 4]
    assert_close(mixed, one)
    told = [line["message"] for line in read_jsonl(mixed / "events.jsonl") if line["kind"] == "resumed"]
    assert told[0].endswith("with 1 processes instead of 2: the same losses to rounding, not bitwise")


@pytest.mark.parametrize(("method", "is_sharded", "victim"), [(LORA | {"dropout": 0.2}, False, 1), (FULL, True, 0)], ids=["lora-dropout", "full-fsdp2"])
def test_when_one_process_is_killed_the_run_goes_on_bitwise(folders: Folders, method: dict[str, Any], is_sharded: bool, victim: int) -> None:
    whole, killed = folders.make("whole", method), folders.make("killed", method)
    train(whole, 2, is_sharded=is_sharded)

    codes = train(killed, 2, is_sharded=is_sharded, action=(victim, 5, signal.SIGKILL))
    assert codes[victim] == -signal.SIGKILL and not (killed / "training.json").exists()
    assert train(killed, 2, is_sharded=is_sharded) == [0, 0]

    assert_same_bits(killed, whole)


def test_lion_moves_divided_weights_as_whole_ones(folders: Folders) -> None:
    one, two = (folders.make(name, FULL, optimizer="lion", learning_rate=1e-4, max_steps=3) for name in ("one", "two"))

    assert train(one) == [0] and train(two, 2, is_sharded=True) == [0, 0]

    assert losses(one) == pytest.approx(losses(two), rel=1e-5)  # where a moment is nearly zero, rounding decides its sign
    assert losses(one)[0] != losses(one)[-2]


@pytest.mark.parametrize("objective", ["dpo", "orpo", "simpo", "kto", "reward"])
def test_two_processes_learn_preferences_as_one_does(folders: Folders, objective: str) -> None:
    one, two = (folders.make(name, LORA, objective=objective, max_steps=3) for name in ("one", "two"))

    assert train(one) == [0] and train(two, 2) == [0, 0]

    assert len(losses(one)) == 4
    assert_close(two, one)
    references = [np.load(folder / "data/train.tokens/reference.npy") for folder in (one, two) if objective in ("dpo", "kto")]
    assert all(np.array_equal(references[0], other) and other.all() for other in references)


@pytest.fixture
def prompts(tmp_path: Path) -> Callable[[str], Path]:
    """Run folders of a `grpo` run: one layer, seven prompts, three answers to each, two steps on the same answers."""
    from models import write_model
    from rows import write_rows

    sizes = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "initializer_range": 0.3}
    folder = write_model(tmp_path / "model", **sizes)
    renderer = ChatRenderer(load_tokenizer(folder))
    rows = list(examples(write_rows(tmp_path / "rows.jsonl", "prompt", 10), needs="prompt"))

    def make(name: str) -> Path:
        run_dir = RunDir.create(tmp_path / name)
        objective = {"type": "grpo", "rewards": [{"type": "length", "minimum": 40}], "num_answers": 3, "max_completion_tokens": 6, "beta": 0.1}
        values = {
            "base_model": "b",
            "dataset": "d",
            "method": LORA,
            "objective": {**objective, "num_iterations": 2, "num_validation_prompts": 3},
            "optim": {"learning_rate": 2e-3, "max_steps": NUM_STEPS, "global_batch_size": 3, "micro_batch_tokens": 96},
            "data": {"max_seq_len": 64, "format": "prompt"},
            "training": {"validate_every_steps": 3, "checkpoint_every_steps": 1, "early_stopping_patience": None, "dtype": "float32", "keep_best": False},
        }
        recipe = Recipe.model_validate(values)
        write_json(run_dir.recipe, recipe.to_dict())
        run_dir.data.mkdir()
        for split, some in (("train", rows[:7]), ("validation", rows[7:]), ("test", [])):
            (run_dir.data / f"{split}.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in some))
        tokenise(recipe, run_dir, renderer)
        return run_dir.path

    return make


def answers(folder: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(folder / "rollouts.jsonl"))


def test_two_processes_write_the_answers_that_one_writes_and_learn_the_same_from_them(prompts: Callable[[str], Path]) -> None:
    one, two, killed = prompts("one"), prompts("two"), prompts("killed")

    assert train(one) == [0] and train(two, 2) == [0, 0]
    assert len(losses(one)) == NUM_STEPS + 2 and len({line["reward"] for line in answers(one)}) > 3
    assert_close(two, one, absolute=1e-6)  # better and worse answers cancel out in the loss: its addends are as large as one
    told = [[(line["step"], line["answer"], line["completion"], line["reward"]) for line in answers(folder)] for folder in (one, two)]
    assert told[0] == told[1] and len(told[0]) == 7 * 3

    # Killed between two steps on the same answers: both go on with those that are kept.
    assert train(killed, 2, action=(1, 3, signal.SIGKILL))[1] == -signal.SIGKILL
    assert train(killed, 2) == [0, 0]
    assert_same_bits(killed, two)
    assert answers(killed) == answers(two)


def test_a_lack_of_memory_in_one_process_halves_the_micro_batch_of_all(folders: Folders) -> None:
    whole, short = folders.make("whole", LORA), folders.make("short", LORA)
    train(whole, 2)

    assert train(short, 2, fails_at=9) == [0, 0]

    assert [line["message"] for line in read_jsonl(short / "events.jsonl") if line["kind"] == "out_of_memory"]
    assert losses(short) == pytest.approx(losses(whole), rel=1e-6)


@pytest.mark.parametrize("num_parts", [1, 2, 3, 8])
def test_examples_are_divided_once_in_order_and_evenly(num_parts: int) -> None:
    sizes = np.random.default_rng(0).integers(10, 400, 40).tolist()

    parts = divide(sizes, num_parts)

    assert sorted(i for part in parts for i in part) == list(range(40))
    assert all(part == sorted(part) for part in parts)
    loads = [sum(sizes[i] for i in part) for part in parts]
    assert max(loads) - min(loads) <= max(sizes)
    assert divide([5], num_parts)[0] == [0]


def recipe(**optim: Any) -> Recipe:
    chosen = {name: optim.pop(name, usual) for name, usual in (("method", "lora"), ("objective", "sft"))}
    return Recipe.model_validate({"base_model": "b", "dataset": "d", **chosen, "optim": {"global_batch_size": 4, **optim}})


@pytest.mark.parametrize(
    ("placement", "num_gpus", "given", "fix"),
    [
        ({"processes": 5}, 0, {}, "use at most 4 processes, or set optim.global_batch_size to 5 or more"),
        ({"processes": 3}, 2, {}, "use --processes 2"),
        ({"sharding": "shard"}, 0, {}, "add --processes 2"),
        ({"processes": 2}, 0, {"objective": "grpo", "method": "full"}, "use --sharding replicate"),
        ({"processes": 2}, 0, {"objective": "reward", "method": "full"}, "use --sharding replicate"),
        ({"processes": 2}, 0, {"method": "full", "optimizer": "muon"}, "use optim.optimizer adamw or lion, or --sharding replicate"),
    ],
)
def test_a_placement_that_cannot_work_is_refused(placement: dict[str, Any], num_gpus: int, given: dict[str, Any], fix: str) -> None:
    with pytest.raises(NoEffectError) as caught:
        Placement.model_validate(placement).check(recipe(**given), num_gpus=num_gpus)

    assert caught.value.fix == fix
