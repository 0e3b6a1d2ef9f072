"""When memory runs out: smaller micro batches, the same result; also in the optimizer, in validation, in evaluation, and after a kill."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from danlu.errors import OutOfMemoryError
from danlu.files import read_json, read_jsonl, write_json
from danlu.models import headroom
from danlu.training.batch import PackedBatch
from danlu.training.checkpoint import trained_weights
from danlu.training.forward import reference_nll, score_examples
from danlu.training.loop import Loop
from danlu.training.rollout import label_nats

MakeTrial = Callable[..., Any]
NO_MEMORY = "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = trained_weights(one), trained_weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class _FailsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        raise RuntimeError(NO_MEMORY)


def failing_once(loop: Loop, place: str) -> None:
    """Let memory run out once in the middle of the run, in the forward pass, the backward pass, or a validation."""
    left = [1]

    def nll(model: nn.Module, batch: PackedBatch) -> Tensor:
        found = reference_nll(model, batch)
        if loop.state.step == 5 and left[0] and model.training is (place != "validation"):
            left[0] -= 1
            if place == "backward":
                return _FailsBackward.apply(found)
            raise RuntimeError(NO_MEMORY)
        return found

    loop.nll = nll


@pytest.mark.parametrize("place", ["forward", "backward", "validation"])
def test_wherever_memory_runs_out_the_run_ends_as_it_would_have(trial: MakeTrial, place: str) -> None:
    whole, one = trial("whole"), trial("one")
    expected = whole.loop()
    expected.run()
    loop = one.loop()
    failing_once(loop, place)

    assert loop.run() == "finished"

    assert loop.state.micro_batch_tokens == 32 and len(one.events("out_of_memory")) == 1
    assert [step for step, _, _ in one.lines] == [step for step, _, _ in whole.lines]
    for (_, loss, validation), (_, other_loss, other_validation) in zip(one.lines, whole.lines, strict=True):
        assert (loss or validation) == pytest.approx(other_loss or other_validation, rel=1e-5)


def failing_optimizer(loop: Loop, *, moves: bool, times: int = 1) -> None:
    """Let the optimizer run out of memory in step 7: before it has moved anything, or after it has moved some weights."""
    make, left = loop.make_optimizer, [times]

    def failing(optimizer: Any) -> Any:
        step = optimizer.step

        def out_of_memory(rate: float, norm: float) -> float:
            if loop.state.step != 6 or not left[0]:
                return float(step(rate, norm))
            left[0] -= 1
            if moves:
                with torch.no_grad():
                    next(iter(optimizer.parameters.values())).add_(1.0)
            raise MemoryError

        optimizer.step = out_of_memory
        return optimizer

    loop.make_optimizer = lambda model: failing(make(model))  # type: ignore[method-assign]
    failing(loop.optimizer)


@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
@pytest.mark.parametrize("moves", [False, True], ids=["nothing moved", "some weights moved"])
def test_an_optimizer_step_without_memory_is_done_again_bitwise(trial: MakeTrial, moves: bool, optimizer: str) -> None:
    whole, one = (trial(name, optim={"optimizer": optimizer}) for name in ("whole", "one"))
    expected = whole.loop()
    expected.run()
    loop = one.loop()
    failing_optimizer(loop, moves=moves)

    assert loop.run() == "finished"

    assert same(loop.model, expected.model)
    assert one.lines == whole.lines
    assert loop.state.resumed_at == ([4] if moves else []) and loop.state.micro_batch_tokens == 64
    assert [event["message"] for event in one.events("out_of_memory")] == ["out of memory in the optimizer: the step is done again"]


def test_without_a_checkpoint_half_a_step_ends_the_run_and_says_what_to_do(trial: MakeTrial) -> None:
    one = trial(training={"checkpoint_every_steps": None})
    loop = one.loop()
    failing_optimizer(loop, moves=True)

    with pytest.raises(OutOfMemoryError, match="in the middle of optimizer step 7") as caught:
        loop.run()

    assert "start the same command again" in caught.value.fix


def test_an_optimizer_that_never_finds_memory_is_told(trial: MakeTrial) -> None:
    loop = trial().loop()
    failing_optimizer(loop, moves=False, times=100)

    with pytest.raises(OutOfMemoryError, match="does not fit in memory by itself") as caught:
        loop.run()

    assert "optimizer" in caught.value.why


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A /proc whose count of kills for lack of memory can be set."""
    proc = tmp_path / "proc"
    (proc / "sys/kernel/random").mkdir(parents=True)
    (proc / "sys/kernel/random/boot_id").write_text("this-boot\n")
    monkeypatch.setattr(headroom, "PROC", proc)

    def set_kills(count: int) -> None:
        (proc / "vmstat").write_text(f"nr_free_pages 7\noom_kill {count}\n")

    set_kills(3)
    return set_kills


def test_a_run_that_the_kernel_killed_goes_on_with_half_the_micro_batch(trial: MakeTrial, kernel: Callable[[int], None]) -> None:
    one = trial()
    mark = one.run_dir.path / "alive.json"
    headroom.renew(mark, 64)  # what a killed process leaves
    kernel(4)

    loop = one.loop()
    assert loop.run() == "finished"

    assert loop.state.micro_batch_tokens == 32
    [event] = one.events("out_of_memory")
    assert event["message"] == "the system ended this run for lack of memory: going on with 32 tokens per forward pass"
    assert not mark.exists()


@pytest.mark.parametrize("reason", ["another kill -9", "another start of the machine", "no mark", "half a mark"])
def test_a_run_that_died_otherwise_goes_on_as_it_was(trial: MakeTrial, kernel: Callable[[int], None], reason: str) -> None:
    one = trial()
    mark = one.run_dir.path / "alive.json"
    if reason != "no mark":
        headroom.renew(mark, 64)
    if reason != "another kill -9":
        kernel(4)
    if reason == "another start of the machine":
        write_json(mark, read_json(mark) | {"boot_id": "another"})
    if reason == "half a mark":
        mark.write_bytes(mark.read_bytes()[:20])

    loop = one.loop()
    assert loop.run() == "finished"

    assert loop.state.micro_batch_tokens == 64 and one.events("out_of_memory") == []


def test_scores_are_the_same_when_batches_have_to_be_halved(trial: MakeTrial) -> None:
    """The model refuses more than 24 tokens at a time."""
    loop = trial().loop()
    examples = [loop.train_set[i] for i in range(12)]
    settings: dict[str, Any] = {"device": "cpu", "path": "reference"}
    expected = score_examples(loop.model, examples, micro_batch_tokens=64, **settings)
    heard: list[int] = []

    def refuse(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].numel() > 24:
            raise MemoryError

    handle = loop.model.register_forward_pre_hook(refuse, with_kwargs=True)
    found = score_examples(loop.model, examples, micro_batch_tokens=64, on_smaller=heard.append, **settings)
    handle.remove()

    assert heard
    assert found[0] == pytest.approx(expected[0], rel=1e-5) and found[1].tolist() == expected[1].tolist()


def test_answers_are_the_same_when_batches_have_to_be_halved(small_model: Path) -> None:
    from danlu.data.chat import ChatRenderer
    from danlu.models.generate import generate
    from danlu.models.load import load_model, load_tokenizer

    model, renderer = load_model(small_model, dtype=torch.float32).eval(), ChatRenderer(load_tokenizer(small_model))
    prompts = [[5, 6, 7 + n, 8] for n in range(7)]

    def answers(**options: Any) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for batch in generate(model, renderer, prompts, max_new_tokens=6, **options):
            found |= batch
        return found

    expected, heard = answers(), list[int]()

    def refuse(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].shape[0] > 2:
            raise RuntimeError(NO_MEMORY)

    handle = model.register_forward_pre_hook(refuse, with_kwargs=True)
    found = answers(on_smaller=heard.append)
    handle.remove()

    assert found == expected and heard == [4, 2, 2]


def test_answers_are_measured_the_same_when_batches_have_to_be_halved(trial: MakeTrial) -> None:
    """What grpo asks the model about its own answers; no more than 24 tokens at a time find memory."""
    loop = trial().loop()
    sequences = [loop.train_set[i] for i in range(9)]
    heard: list[int] = []

    def refuse(model: nn.Module, batch: PackedBatch) -> Tensor:
        if len(batch.ids_T) > 24:
            raise RuntimeError(NO_MEMORY)
        return reference_nll(model, batch)

    expected = label_nats(loop.model, reference_nll, sequences, micro_batch_tokens=64, device=loop.device)
    found = label_nats(loop.model, refuse, sequences, micro_batch_tokens=64, device=loop.device, on_smaller=heard.append)

    assert heard and loop.model.training
    assert [len(nats) for nats in found] == [int(s.mask.sum()) for s in sequences]
    assert np.concatenate(found) == pytest.approx(np.concatenate(expected), rel=1e-5)


PROGRAM = """
import ctypes, json, os, resource, sys
from pathlib import Path
import torch
from danlu.models.headroom import status_bytes
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir
from danlu.training import run as training
from danlu.training.loop import Loop

folder, model, room = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
recipe, run_dir = Recipe.model_validate(json.loads(sys.argv[4])), RunDir(folder)
forecast = Loop._forecast
def limited(loop):
    small = [loop.train_set.group(0, 1)]
    loop.forward_backward(small, loop.objective.totals(small[0]))  # everything is loaded and warm now: what comes is tensors
    loop.optimizer.zero_grad()
    if room:
        limit(room)
def limit(room):
    if group is None:
        resource.setrlimit(resource.RLIMIT_AS, (status_bytes("VmSize") + room, resource.RLIM_INFINITY))
    else:
        # What was touched stays (MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT): else the libraries' code is evicted and read again for minutes, and nobody killed.
        assert ctypes.CDLL(None).mlockall(1 | 2 | 4) == 0
        (group / "memory.limit_in_bytes").write_text(str(int((group / "memory.usage_in_bytes").read_text()) + room))
group = Path(sys.argv[5]) if len(sys.argv) > 5 else None
if group is not None:
    (group / "memory.limit_in_bytes").write_text("-1")
    (group / "cgroup.procs").write_text(str(os.getpid()))
Loop._forecast = limited
print(training.run(recipe, run_dir, Reporter(run_dir), model_dir=model))
"""


def limited_run(folder: Path, model: Path, *, room: int, group: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Training in a process of its own that gets `room` bytes beyond what it holds when it is warm: of address space, or in a control group."""
    import numpy as np

    from danlu.data.pack import EncodedExample, TokenFile

    draw = np.random.default_rng(0)
    examples = [EncodedExample(draw.integers(3, 8000, 250).astype(np.uint32), np.arange(250) >= 100) for _ in range(64)]
    TokenFile.write(folder / "data/train.tokens", examples)
    TokenFile.write(folder / "data/validation.tokens", examples[:2])
    optim = {"learning_rate": 1e-3, "max_steps": 2, "global_batch_size": 64, "micro_batch_tokens": 16384}
    training = {"dtype": "float32", "validate_every_steps": 2, "early_stopping_patience": None}
    recipe = {"base_model": str(model), "dataset": "d", "method": {"type": "full"}, "optim": optim, "training": training}
    variables = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(folder), str(model), str(room), json.dumps(recipe), *([str(group)] if group else [])]
    return subprocess.run(command, env=variables, capture_output=True, text=True)


@pytest.mark.slow
def test_a_process_with_too_little_address_space_ends_finished(tmp_path: Path, small_model: Path) -> None:
    """A real limit of the system, met by real allocations: a micro batch of 16,000 tokens wants more than there is."""
    done = limited_run(tmp_path, small_model, room=100 * 2**20)
    assert done.returncode == 0, done.stderr[-2000:]
    result = read_json(tmp_path / "training.json")
    events = [event for event in read_jsonl(tmp_path / "events.jsonl") if event["kind"] == "out_of_memory"]

    assert done.stdout.strip().splitlines()[-1] == "finished" and result["step"] == 2
    assert events and result["micro_batch_tokens"] < 16384


@pytest.fixture
def control_group() -> Iterator[Path]:
    """A control group of its own with a limit of memory that can be set (version 1, as root)."""
    folder = Path(f"/sys/fs/cgroup/memory/danlu-test-{os.getpid()}")
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        if not (folder / "memory.limit_in_bytes").exists():
            pytest.skip("control groups here have no limit of memory")
        yield folder
    finally:
        folder.rmdir()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_process_that_the_kernel_really_kills_ends_finished_when_started_again(tmp_path: Path, small_model: Path, control_group: Path) -> None:
    codes = []
    while len(codes) < 6 and 0 not in codes:
        codes.append(limited_run(tmp_path, small_model, room=120 * 2**20, group=control_group).returncode)
    events = [event["message"] for event in read_jsonl(tmp_path / "events.jsonl") if event["kind"] == "out_of_memory"]

    assert codes[-1] == 0 and set(codes[:-1]) == {-9}
    assert len(events) == len(codes) - 1 and all("the system ended this run for lack of memory" in message for message in events)
    assert read_json(tmp_path / "training.json")["micro_batch_tokens"] == 16384 // 2 ** len(events)
