"""The one training loop: steps, validation, checkpoints, stopping, resume.

Its result is a function of the recipe and the token files alone: killed at any instant and started again it
ends with bitwise the same weights (CPU). It knows the model only through `forward`, the method and the objective.
"""

from __future__ import annotations

import math
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from danlu.data.pack import EncodedExample, TokenFile, pack, step_batches
from danlu.errors import CheckpointError, DivergedError, OutOfMemoryError, StorageError, is_out_of_memory
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter, truncate_metrics
from danlu.run_dir import RunDir
from danlu.training import checkpoint
from danlu.training.batch import PackedBatch
from danlu.training.objective import NllFunction, Objective, num_label_tokens
from danlu.training.optim import Optimizer, learning_rate

Group = list[EncodedExample]
"""The sequences of one example (two for a pair)."""

MAX_VALIDATION_TOKENS = 100_000
"""A validation looks at the first examples up to this many tokens, so that it stays a small part of the run."""


@dataclass
class LoopState:
    """The loop's own numbers; stored in every checkpoint."""

    step: int = 0
    num_tokens: int = 0
    num_label_tokens: int = 0
    training_seconds: float = 0.0
    best_step: int | None = None
    best_loss: float | None = None
    validations_without_gain: int = 0
    micro_batch_tokens: int = 0
    resumed_at: list[int] = field(default_factory=list)


FORECAST_EXAMPLES = 10_000
"""Examples among which the forecast looks for its longest micro batch."""


class Loop:
    """One training run over token files."""

    def __init__(self, recipe: Recipe, run_dir: RunDir, reporter: Reporter, model: nn.Module, nll: NllFunction, device: torch.device) -> None:
        self.recipe, self.run_dir, self.reporter, self.model, self.nll, self.device = recipe, run_dir, reporter, model, nll, device
        self.objective: Objective = recipe.objective  # type: ignore[assignment]
        self.train_set = TokenFile(run_dir.data / "train.tokens")
        self.validation_set = TokenFile(run_dir.data / "validation.tokens")
        self.optimizer = Optimizer(model, recipe.optim)
        self.num_examples = len(self.train_set) // self.objective.group_size
        steps_per_epoch = math.ceil(self.num_examples / int(recipe.optim.global_batch_size))
        self.num_steps = recipe.optim.max_steps or max(1, math.ceil(float(recipe.optim.num_epochs) * steps_per_epoch))
        self.steps_per_epoch = steps_per_epoch
        self.state = LoopState(micro_batch_tokens=int(recipe.optim.micro_batch_tokens))
        self._last_save = time.monotonic()
        self.after_step: Callable[[Loop], None] = lambda loop: None
        """Called before the first step and after every one; must leave the weights and the loop as they are."""

    def run(self) -> str:
        """Train to the end; return `finished`, `stopped_early` or `paused`."""
        self._resume()
        self.model.train()
        if self.state.step == 0:
            self._forecast()
            self.after_step(self)
        if self._is_patience_over() and self.state.step < self.num_steps:  # killed between the decision and its result
            return "stopped_early"
        with _stop_signals() as stop:
            batches = step_batches(
                self.num_examples,
                global_batch_size=int(self.recipe.optim.global_batch_size),
                seed=self.recipe.seed,
                start_step=self.state.step,
                num_steps=self.num_steps,
            )
            for indices in batches:
                self._step([int(i) for i in indices])
                is_last = self.state.step == self.num_steps
                if len(self.validation_set) and (is_last or self.state.step % int(self.recipe.training.validate_every_steps) == 0):
                    self._validate()
                self.after_step(self)
                is_over = self._is_patience_over() and not is_last
                if is_over:
                    patience = self.recipe.training.early_stopping_patience
                    self.reporter.event("early_stop", f"no better validation loss for {patience} validations", step=self.state.step)
                if is_last or is_over or self._is_save_due() or stop.is_set():
                    self._save()
                if stop.is_set():
                    self.reporter.event("paused", f"stopped by signal after step {self.state.step}; start the same command to go on", step=self.state.step)
                    return "paused"
                if is_over:
                    return "stopped_early"
        return "finished"

    def restore_best(self) -> int | None:
        """Put the weights of the best validation back; return its step, or None when the last weights are kept."""
        best = self.run_dir.checkpoints / "best"
        if not self.recipe.training.keep_best or self.state.best_step is None or self.state.best_step == self.state.step:
            return None
        try:
            weights = checkpoint.load(best).weights
        except CheckpointError as error:
            self.reporter.event(
                "alarm", f"the weights of step {self.state.best_step} are damaged ({error.why}); those of the last step are kept", step=self.state.step
            )
            return None
        checkpoint.restore_weights(self.model, weights)
        return self.state.best_step

    def _step(self, indices: list[int]) -> None:
        start = time.monotonic()
        groups = [self.train_set.group(i, self.objective.group_size) for i in indices]
        sequences = [sequence for group in groups for sequence in group]
        while True:
            try:
                loss, numbers = self._forward_backward(groups, self.objective.totals(sequences))
                break
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve_micro_batch(max(num_tokens_of(group) for group in groups), error)
        self._check_finite("loss", loss)
        rate = learning_rate(self.recipe.optim, self.state.step, self.num_steps)
        grad_norm = self.optimizer.step(rate, self.recipe.optim.max_grad_norm)
        self._check_finite("gradient", grad_norm)
        self.state.step += 1
        num_tokens = num_tokens_of(sequences)
        self.state.num_tokens += num_tokens
        self.state.num_label_tokens += num_label_tokens(sequences)
        seconds = time.monotonic() - start
        self.state.training_seconds += seconds
        self.reporter.metrics(
            step=self.state.step,
            num_steps=self.num_steps,
            epoch=round(self.state.step / self.steps_per_epoch, 4),
            loss=loss,
            **numbers,
            learning_rate=rate,
            grad_norm=grad_norm,
            num_tokens=self.state.num_tokens,
            tokens_per_second=round(num_tokens / seconds, 1),
            peak_memory_bytes=peak_memory_bytes(self.device),
        )

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            step, rate = self.state.step + 1, learning_rate(self.recipe.optim, self.state.step, self.num_steps)
            self.reporter.event("not_finite", f"the {what} became {value}", step=step, what=what, value=str(value), learning_rate=rate)
            raise DivergedError(
                f"the {what} became {value} at step {self.state.step + 1}",
                why="usually a learning rate that is too high, or broken weights",
                fix=f"lower optim.learning_rate (now {self.recipe.optim.learning_rate}) by 3 to 10 times",
            )

    def _forward_backward(self, groups: Sequence[Group], totals: Mapping[str, float]) -> tuple[float, dict[str, float]]:
        """Add the gradients of one step; return its loss and what else the objective measured."""
        total = 0.0
        numbers: dict[str, float] = {}
        for number, members in enumerate(pack([num_tokens_of(group) for group in groups], self.state.micro_batch_tokens)):
            batch = PackedBatch.from_examples([sequence for i in members for sequence in groups[i]], self.device)
            # Dropout depends on (seed, step, micro batch) only, so that a resumed run draws the same masks.
            torch.manual_seed((self.recipe.seed * 1_000_003 + self.state.step) * 1009 + number)
            if batch.num_label_tokens == 0:
                continue
            loss, parts = self.objective.loss(self.model, batch, totals, self.nll)
            loss.backward()
            total += float(loss.detach())
            add_numbers(numbers, parts)
        return total, numbers

    def _halve_micro_batch(self, longest: int, error: BaseException) -> None:
        self.optimizer.zero_grad()
        if self.state.micro_batch_tokens <= longest:
            raise OutOfMemoryError(
                f"an example of {longest} tokens does not fit in memory by itself",
                why=str(error).splitlines()[0],
                fix=f"set data.max_seq_len below {longest}, or use a smaller base model or method lora",
            ) from error
        self.state.micro_batch_tokens = max(longest, self.state.micro_batch_tokens // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.reporter.event(
            "out_of_memory",
            f"out of memory: going on with {self.state.micro_batch_tokens} tokens per forward pass; the loss does not change",
            step=self.state.step,
        )

    @torch.no_grad()
    def _validate(self) -> None:
        self.model.eval()
        groups = first_groups(self.validation_set, self.objective.group_size, max_tokens=MAX_VALIDATION_TOKENS)
        totals = self.objective.totals([sequence for group in groups for sequence in group])
        loss = 0.0
        numbers: dict[str, float] = {}
        for batch in batches_of(groups, self.state.micro_batch_tokens, self.device):
            part, parts = self.objective.loss(self.model, batch, totals, self.nll)
            loss += float(part)
            add_numbers(numbers, parts)
        self.model.train()
        is_best = math.isfinite(loss) and (self.state.best_loss is None or loss < self.state.best_loss)
        self.reporter.metrics(step=self.state.step, validation_loss=loss, is_best=is_best, **{f"validation_{name}": value for name, value in numbers.items()})
        if not is_best:
            self.state.validations_without_gain += 1
            return
        self.state.validations_without_gain = 0
        content = checkpoint.Checkpoint(checkpoint.trained_weights(self.model), {}, {"step": self.state.step})
        if not self.recipe.training.keep_best or self._try_save("best", content):  # what could not be kept cannot be the best that is kept
            self.state.best_loss, self.state.best_step = loss, self.state.step

    def _is_patience_over(self) -> bool:
        patience = self.recipe.training.early_stopping_patience
        return patience is not None and self.state.validations_without_gain >= patience

    def _forecast(self) -> None:
        """Say before the start how long it will take and how much memory it will hold, from one measured micro batch."""
        lengths = self.train_set.lengths.reshape(-1, self.objective.group_size).sum(1)
        groups: list[Group] = []
        size = 0
        for index in sorted(range(min(len(lengths), FORECAST_EXAMPLES)), key=lambda i: -int(lengths[i])):
            if not groups or size + int(lengths[index]) <= self.state.micro_batch_tokens:
                groups.append(self.train_set.group(index, self.objective.group_size))
                size += int(lengths[index])
        try:
            seconds = []
            for _ in range(2):  # the first one warms up
                start = time.monotonic()
                self._forward_backward(groups, self.objective.totals([sequence for group in groups for sequence in group]))
                seconds.append(time.monotonic() - start)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return  # the first step will halve the micro batch and say so
        finally:
            self.optimizer.zero_grad()
        num_trained = sum(p.numel() for p in self.optimizer.parameters.values())
        epochs = self.num_steps / self.steps_per_epoch
        forecast = {
            "num_tokens": round(float(lengths.sum()) * epochs),
            "training_seconds": round(float(lengths.sum()) * epochs / size * min(seconds), 1),
            "peak_memory_bytes": peak_memory_bytes(self.device) + 8 * num_trained,
        }
        self.run_dir.update_record(forecast=forecast)
        minutes, gib = forecast["training_seconds"] / 60, forecast["peak_memory_bytes"] / 2**30
        self.reporter.event("forecast", f"forecast: {self.num_steps} steps, at most {minutes:.1f} minutes, {gib:.2f} GiB", **forecast)

    def _is_save_due(self) -> bool:
        every = self.recipe.training.checkpoint_every_steps
        return bool(every and self.state.step % every == 0) or time.monotonic() - self._last_save > self.recipe.training.checkpoint_every_seconds

    def _save(self) -> None:
        content = checkpoint.Checkpoint(checkpoint.trained_weights(self.model), self.optimizer.state(), asdict(self.state))
        if self._try_save(f"step-{self.state.step:06d}", content):
            checkpoint.rotate(self.run_dir.checkpoints)
        self._last_save = time.monotonic()

    def _try_save(self, name: str, content: checkpoint.Checkpoint) -> bool:
        try:
            checkpoint.save(self.run_dir.checkpoints / name, content)
            return True
        except StorageError as error:
            self.reporter.event("alarm", f"checkpoint {name} could not be written ({error.why}); training goes on with the older one", step=self.state.step)
            return False

    def _resume(self) -> None:
        folder, rejected = checkpoint.newest_valid(self.run_dir.checkpoints)
        for bad, reason in rejected:
            self.reporter.event("alarm", f"checkpoint {bad.name} is not used: {reason}")
        if folder is not None:
            saved = checkpoint.load(folder)
            checkpoint.restore_weights(self.model, saved.weights)
            self.optimizer.restore(saved.optimizer)
            self.state = LoopState(**saved.state)
            self.state.resumed_at.append(self.state.step)
            self.reporter.event("resumed", f"going on after step {self.state.step} of {self.num_steps}", step=self.state.step)
        truncate_metrics(self.run_dir.metrics, after_step=self.state.step)


def first_groups(tokens: TokenFile, group_size: int, *, max_tokens: int) -> list[Group]:
    """The first examples of a token file, up to `max_tokens` tokens (at least one example)."""
    groups: list[Group] = []
    seen = 0
    for index in range(len(tokens) // group_size):
        group = tokens.group(index, group_size)
        if groups and seen + num_tokens_of(group) > max_tokens:
            break
        groups.append(group)
        seen += num_tokens_of(group)
    return groups


def batches_of(groups: Sequence[Group], micro_batch_tokens: int, device: torch.device) -> Iterator[PackedBatch]:
    """Packed batches of at most `micro_batch_tokens` tokens; examples keep their order and are never split."""
    members: Group = []
    for group in groups:
        if members and num_tokens_of(members) + num_tokens_of(group) > micro_batch_tokens:
            yield PackedBatch.from_examples(members, device)
            members = []
        members = members + group
    if members:
        yield PackedBatch.from_examples(members, device)


def num_tokens_of(sequences: Sequence[EncodedExample]) -> int:
    """Tokens of all sequences."""
    return sum(len(sequence.ids) for sequence in sequences)


def add_numbers(numbers: dict[str, float], parts: Mapping[str, Tensor]) -> None:
    """Add the parts of one batch to the numbers of the step."""
    for name, part in parts.items():
        numbers[name] = numbers.get(name, 0.0) + float(part)


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held so far: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Turn SIGTERM and the first Ctrl-C into an event; a second Ctrl-C ends the process at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
