"""The training loop: it learns, measures, keeps the best, stops, and goes on exactly where it was."""

import errno
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.data.pack import TokenFile
from danlu.errors import CheckpointError, DivergedError, OutOfMemoryError
from danlu.training import checkpoint
from danlu.training.batch import PackedBatch
from danlu.training.checkpoint import trained_weights
from danlu.training.forward import reference_nll
from danlu.training.loop import Loop

MakeTrial = Callable[..., Any]
NO_MEMORY = "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether the trained weights are bitwise equal."""
    a, b = trained_weights(one), trained_weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@torch.no_grad()
def loss_by_hand(model: nn.Module, examples: TokenFile) -> float:
    model.eval()
    total, count = 0.0, 0
    for example in examples:
        ids, is_label = torch.from_numpy(example.ids.astype("int64")), torch.from_numpy(example.mask.copy())
        logits = model(input_ids=ids[None]).logits[0, :-1]
        total += F.cross_entropy(logits[is_label[1:]], ids[1:][is_label[1:]], reduction="sum").item()
        count += int(is_label[1:].sum())
    return total / count


@pytest.mark.parametrize(
    ("method", "optim"),
    [
        ({"type": "lora", "rank": 4}, {"learning_rate": 0.02}),
        ({"type": "full"}, {"learning_rate": 0.01}),
        ({"type": "full"}, {"learning_rate": 0.02, "optimizer": "muon"}),
    ],
    ids=["lora-adamw", "full-adamw", "full-muon"],
)
def test_the_loss_falls_and_what_is_logged_is_what_a_textbook_gives(trial: MakeTrial, method: dict[str, Any], optim: dict[str, Any]) -> None:
    one = trial(method=method, optim={**optim, "max_steps": 30}, training={"keep_best": False})
    before = one.loop()
    loop = one.loop()

    assert loop.run() == "finished"

    losses = [loss for _, loss, _ in one.lines if loss is not None]
    validations = [(step, loss) for step, _, loss in one.lines if loss is not None]
    assert len(losses) == 30 and [step for step, _ in validations] == [5, 10, 15, 20, 25, 30]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert validations[-1][1] < 0.9 * validations[0][1]
    assert validations[-1][1] == pytest.approx(loss_by_hand(loop.model, loop.validation_set), rel=1e-5)
    first = [before.train_set[int(i)] for i in first_batch(before)]
    assert losses[0] == pytest.approx(loss_by_hand(before.model, first), rel=1e-5)  # type: ignore[arg-type]


def first_batch(loop: Loop) -> Any:
    from danlu.data.pack import step_batches

    return next(step_batches(len(loop.train_set), global_batch_size=4, seed=loop.recipe.seed, start_step=0, num_steps=1))


def test_the_size_of_the_micro_batch_does_not_change_the_result(trial: MakeTrial) -> None:
    one, other = trial("small", optim={"micro_batch_tokens": 16}), trial("large", optim={"micro_batch_tokens": 4096})
    small, large = one.loop(), other.loop()
    small.run()
    large.run()

    assert [line[0] for line in one.lines] == [line[0] for line in other.lines]
    for (_, loss, validation), (_, other_loss, other_validation) in zip(one.lines, other.lines, strict=True):
        assert (loss or validation) == pytest.approx(other_loss or other_validation, rel=1e-5)
    weights = trained_weights(large.model)
    for name, value in trained_weights(small.model).items():
        torch.testing.assert_close(value, weights[name], rtol=1e-4, atol=1e-5)


def test_it_stops_early_and_ends_with_the_best_weights(trial: MakeTrial) -> None:
    """Validation counts in another stride than training, so that learning makes it worse."""
    one = trial(validation_stride=5, optim={"max_steps": 60, "learning_rate": 0.02}, training={"validate_every_steps": 3, "early_stopping_patience": 2})
    loop = one.loop()

    assert loop.run() == "stopped_early"

    validations = {step: loss for step, _, loss in one.lines if loss is not None}
    best = min(validations, key=validations.__getitem__)
    assert loop.state.step == best + 6 and loop.state.best_step == best and loop.state.best_loss == validations[best]
    assert [event["step"] for event in one.events("early_stop")] == [loop.state.step]
    assert loss_by_hand(loop.model, loop.validation_set) == pytest.approx(validations[best + 6], rel=1e-5)
    assert loop.restore_best() == best
    assert loss_by_hand(loop.model, loop.validation_set) == pytest.approx(validations[best], rel=1e-5)

    again = one.loop()
    assert again.run() == "stopped_early" and again.state.step == loop.state.step
    assert again.restore_best() == best and same(again.model, loop.model)


def test_the_best_step_and_the_stop_can_follow_a_metric_instead_of_the_loss(trial: MakeTrial) -> None:
    """The loss falls at every validation; the metric rises until step 6 only. Stopped in between, it ends the same."""
    scores = {3: 0.2, 6: 0.5, 9: 0.4, 12: 0.5}
    training = {"validate_every_steps": 3, "early_stopping_patience": 2, "best_by": "rouge_l"}

    def loop_of(one: Any) -> Loop:
        loop: Loop = one.loop()
        loop.score = lambda model: scores[loop.state.step] if not model.training else 0.0
        return loop

    one, stopped = (trial(name, optim={"max_steps": 60}, training=training) for name in ("whole", "stopped"))
    loop = loop_of(one)
    assert loop.run() == "stopped_early"

    losses = {step: loss for step, _, loss in one.lines if loss is not None}
    assert list(losses) == [3, 6, 9, 12] and min(losses, key=losses.__getitem__) == 12
    assert (loop.state.best_step, loop.state.best_loss, loop.state.best_value) == (6, losses[6], -0.5)
    assert "no better validation rouge_l" in one.events("early_stop")[0]["message"]
    first = loop_of(stopped)
    first.until = 7
    assert first.run() == "paused"
    again = loop_of(stopped)
    assert again.run() == "stopped_early" and again.state.best_step == 6
    assert again.restore_best() == loop.restore_best() == 6 and same(again.model, loop.model)


def test_without_validation_rows_the_last_weights_are_kept(trial: MakeTrial) -> None:
    one = trial(num_validation=0)
    loop = one.loop()

    assert loop.run() == "finished"
    assert loop.restore_best() is None
    assert all(validation is None for _, _, validation in one.lines)
    assert one.checkpoints == ["step-000008", "step-000012"]


def paused_at(one: Any, step: int) -> Loop:
    """Run until SIGTERM in the middle of that step."""
    loop: Loop = one.loop()

    def nll(model: nn.Module, batch: PackedBatch) -> Tensor:
        if model.training and loop.state.step == step - 1 and len(one.lines):
            os.kill(os.getpid(), signal.SIGTERM)
        return reference_nll(model, batch)

    loop.nll = nll
    assert loop.run() == "paused"
    assert loop.state.step == step
    return loop


@pytest.mark.parametrize(
    ("method", "optim"),
    [({"type": "lora", "rank": 4, "dropout": 0.2}, {}), ({"type": "full"}, {}), ({"type": "full"}, {"optimizer": "muon", "weight_decay": 0.1})],
    ids=["lora-dropout", "full", "muon"],
)
def test_a_run_that_was_told_to_stop_goes_on_bitwise(trial: MakeTrial, method: dict[str, Any], optim: dict[str, Any]) -> None:
    whole, parts = trial("whole", method=method, optim=optim), trial("parts", method=method, optim=optim)
    expected = whole.loop()
    expected.run()

    for step in (2, 7):
        paused_at(parts, step)
        assert parts.events("paused")[-1]["step"] == step
    last = parts.loop()
    assert last.run() == "finished"

    assert last.state.resumed_at == [2, 7]
    assert same(last.model, expected.model)
    assert parts.lines == whole.lines
    assert last.state.best_step == expected.state.best_step
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_in_the_last_step_pauses_before_what_comes_after(trial: MakeTrial) -> None:
    one = trial()
    paused_at(one, 12)
    before = one.lines

    loop = one.loop()
    assert loop.run() == "finished"
    assert one.lines == before and loop.state.step == 12


def failing(times: int, error: Exception) -> Callable[[nn.Module, PackedBatch], Tensor]:
    """An nll that fails so often, after the forecast and the first micro batches."""
    calls = 0

    def nll(model: nn.Module, batch: PackedBatch) -> Tensor:
        nonlocal calls
        calls += 1
        if 10 < calls <= 10 + times:
            raise error
        return reference_nll(model, batch)

    return nll


@pytest.mark.parametrize("error", [RuntimeError(NO_MEMORY), MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")])
def test_out_of_memory_halves_the_micro_batch_and_not_the_loss(trial: MakeTrial, error: Exception) -> None:
    whole, one = trial("whole"), trial("one")
    expected = whole.loop()
    expected.run()
    loop = one.loop(failing(1, error))

    assert loop.run() == "finished"

    assert loop.state.micro_batch_tokens == 32
    assert [event["message"] for event in one.events("out_of_memory")] == ["out of memory: going on with 32 tokens per forward pass; the loss does not change"]
    for (step, loss, validation), (other_step, other_loss, other_validation) in zip(one.lines, whole.lines, strict=True):
        assert step == other_step and (loss or validation) == pytest.approx(other_loss or other_validation, rel=1e-5)


def test_when_not_even_one_example_fits_it_is_told(trial: MakeTrial) -> None:
    one = trial()

    with pytest.raises(OutOfMemoryError, match="does not fit in memory by itself") as caught:
        one.loop(failing(1000, RuntimeError(NO_MEMORY))).run()

    assert "alloc_cpu" in caught.value.why and "data.max_seq_len below" in caught.value.fix
    assert len(one.events("out_of_memory")) == 2


def test_another_error_is_not_taken_for_a_lack_of_memory(trial: MakeTrial) -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        trial().loop(failing(1, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))).run()


def test_a_loss_that_is_not_a_number_ends_the_run_and_the_older_checkpoint_stays(trial: MakeTrial) -> None:
    one = trial()
    loop = one.loop()
    loop.nll = lambda model, batch: reference_nll(model, batch) * (math.nan if loop.state.step == 6 else 1)

    with pytest.raises(DivergedError, match="the loss became nan at step 7") as caught:
        loop.run()

    assert "now 0.01" in caught.value.fix
    assert [name for name in one.checkpoints if name != "best"] == ["step-000004"]
    assert max(step for step, _, _ in one.lines) == 6


def test_a_gradient_that_is_not_finite_moves_no_weight(trial: MakeTrial) -> None:
    one = trial()
    loop = one.loop()
    before = {name: value.clone() for name, value in trained_weights(loop.model).items()}

    def nll(model: nn.Module, batch: PackedBatch) -> Tensor:
        found = reference_nll(model, batch)
        return found + (found.sum() * 0).sqrt()  # adds 0, with an infinite slope

    loop.nll = nll

    with pytest.raises(DivergedError, match="the gradient became nan at step 1"):
        loop.run()

    assert all(torch.equal(value, before[name]) for name, value in trained_weights(loop.model).items())


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("place", ["save_file", "os.replace", "seal"])
def test_a_full_disk_does_not_end_training(trial: MakeTrial, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    whole, one = trial("whole"), trial("one")
    expected = whole.loop()
    expected.run()
    loop = one.loop()

    def nll(model: nn.Module, batch: PackedBatch) -> Tensor:
        if loop.state.step == 6:
            owner, name = (checkpoint.os, "replace") if place == "os.replace" else (checkpoint, place)
            monkeypatch.setattr(owner, name, no_space)
        return reference_nll(model, batch)

    loop.nll = nll
    assert loop.run() == "finished"
    monkeypatch.undo()

    alarms = [event["message"] for event in one.events("alarm")]
    assert [alarm.split()[1] for alarm in alarms] == ["step-000008", "best", "best", "step-000012"]
    assert all("No space left on device" in alarm and "goes on with the older one" in alarm for alarm in alarms)
    assert same(loop.model, expected.model)
    assert one.checkpoints == ["best", "step-000004"]
    assert all(checkpoint.problem(one.run_dir.checkpoints / name) is None for name in one.checkpoints)
    assert loop.restore_best() == 5
    assert loss_by_hand(loop.model, loop.validation_set) == pytest.approx({step: v for step, _, v in one.lines if v}[5], rel=1e-5)

    later = one.loop()
    assert later.run() == "finished" and later.state.resumed_at == [4]
    assert same(later.model, expected.model)


def test_what_safetensors_cannot_write_is_a_full_disk_too(tmp_path: Path, small_file_limit: None) -> None:
    from danlu.errors import StorageError

    with pytest.raises(StorageError, match="cannot write") as caught:
        checkpoint.save(tmp_path / "step-000001", checkpoint.Checkpoint({"a": torch.zeros(10_000)}, {}, {}))

    assert caught.value.why == "File too large"
    assert list(tmp_path.iterdir()) == []


def flip_a_bit(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def cut_short(folder: Path) -> None:
    path = folder / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "bit flip": (flip_a_bit, "weights.safetensors does not match its checksum"),
    "cut short": (cut_short, "optimizer.safetensors is missing or has the wrong size"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "no valid manifest (FileNotFoundError)"),
    "half a manifest": (lambda folder: (folder / "manifest.json").write_bytes(b'{"files": {'), "no valid manifest (JSONDecodeError)"),
    "no state": (lambda folder: (folder / "state.json").unlink(), "state.json is missing or has the wrong size"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_not_used_and_that_is_said(trial: MakeTrial, name: str) -> None:
    damage, reason = DAMAGE[name]
    whole, one = trial("whole"), trial("one")
    expected = whole.loop()
    expected.run()
    paused_at(one, 9)
    assert one.checkpoints == ["best", "step-000008", "step-000009"]
    damage(one.run_dir.checkpoints / "step-000009")

    loop = one.loop()
    assert loop.run() == "finished"

    assert [event["message"] for event in one.events("alarm")] == [f"checkpoint step-000009 is not used: {reason}"]
    assert loop.state.resumed_at == [8]
    assert same(loop.model, expected.model) and one.lines == whole.lines


def test_when_no_checkpoint_verifies_the_run_begins_anew(trial: MakeTrial) -> None:
    whole, one = trial("whole"), trial("one")
    expected = whole.loop()
    expected.run()
    paused_at(one, 9)
    for folder in one.run_dir.checkpoints.glob("step-*"):
        flip_a_bit(folder)

    loop = one.loop()
    assert loop.run() == "finished"
    assert len(one.events("alarm")) == 2 and loop.state.resumed_at == []
    assert same(loop.model, expected.model) and one.lines == whole.lines


def test_damaged_best_weights_are_never_kept(trial: MakeTrial) -> None:
    one = trial(validation_stride=5, optim={"learning_rate": 0.02}, training={"validate_every_steps": 3})
    loop = one.loop()
    loop.run()
    flip_a_bit(one.run_dir.checkpoints / "best")

    assert loop.state.best_step is not None and loop.state.best_step < 12
    last = {name: weight.clone() for name, weight in trained_weights(loop.model).items()}
    assert loop.restore_best() is None
    assert all(torch.equal(weight, last[name]) for name, weight in trained_weights(loop.model).items())
    [alarm] = one.events("alarm")
    assert f"the weights of step {loop.state.best_step} are damaged" in alarm["message"]


def test_a_checkpoint_of_another_method_is_refused(trial: MakeTrial) -> None:
    one = trial()
    paused_at(one, 4)
    other = trial(method={"type": "full"})

    with pytest.raises(CheckpointError, match="another model or method"):
        other.loop().run()


def test_the_forecast_is_recorded_before_the_first_step(trial: MakeTrial) -> None:
    one = trial(optim={"max_steps": 16})
    one.loop().run()
    [event] = one.events("forecast")
    kinds = [kind for kind, _ in one.heard]

    recorded = one.run_dir.read_record()["forecast"]
    assert recorded == {key: event[key] for key in recorded}
    assert recorded["num_tokens"] == 2 * int(TokenFile(one.run_dir.data / "train.tokens").lengths.sum())  # 30 rows in batches of 4: 8 steps an epoch
    assert recorded["training_seconds"] >= 0 and recorded["peak_memory_bytes"] > 1 << 20
    parts = {key: value for key, value in recorded["memory"].items() if key.endswith("_bytes") and key != "peak_bytes"}
    assert sum(parts.values()) == recorded["memory"]["peak_bytes"] == recorded["peak_memory_bytes"]
    assert recorded["trained_parameters"] == sum(p.numel() for p in one.loop().optimizer.parameters.values())
    assert kinds.index("forecast") < kinds.index("metrics")
