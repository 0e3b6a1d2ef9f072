"""The one training loop: steps, validation, checkpoints, stopping, resume.

Its result is a function of the recipe and the token files alone: killed at any instant and started again it
ends with bitwise the same weights (CPU). It knows the model only through `forward`, the method and the objective.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import nn

from danlu.data.on_demand import OnDemand
from danlu.data.pack import EncodedExample, TokenFile, pack, step_batches
from danlu.errors import CheckpointError, DivergedError, StorageError
from danlu.models import headroom
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter, truncate_metrics
from danlu.run_dir import RunDir
from danlu.training import checkpoint, probe
from danlu.training.batch import PackedBatch
from danlu.training.groups import Group, add_numbers, batches_of, first_groups, num_tokens_of
from danlu.training.objective import MeasuringObjective, NllFunction, Objective, num_label_tokens
from danlu.training.optim import Optimizer, learning_rate
from danlu.training.parallel import World, part_like, whole
from danlu.training.probe import peak_memory_bytes
from danlu.training.recovery import Recovery
from danlu.training.signals import stop_signals
from danlu.training.state import LoopState, lower_is_better

if TYPE_CHECKING:
    from danlu.training.rollout import Rollouts

MAX_VALIDATION_TOKENS = 100_000
"""A validation looks at the first examples up to this many tokens, so that it stays a small part of the run."""


class Loop:
    """One training run over token files."""

    def __init__(
        self,
        recipe: Recipe,
        run_dir: RunDir,
        reporter: Reporter,
        model: nn.Module,
        nll: NllFunction,
        device: torch.device,
        world: World | None = None,
        train_set: TokenFile | OnDemand | None = None,
    ) -> None:
        self.recipe, self.run_dir, self.reporter, self.model, self.nll, self.device = recipe, run_dir, reporter, model, nll, device
        self.world = world or World(device)
        self.objective: Objective = recipe.objective  # type: ignore[assignment]
        self.train_set = TokenFile(run_dir.data / "train.tokens") if train_set is None else train_set
        self.validation_set = TokenFile(run_dir.data / "validation.tokens")
        self.optimizer = self.make_optimizer(model)
        self.num_examples = len(self.train_set) // self.objective.group_size
        steps_per_epoch = math.ceil(self.num_examples / int(recipe.optim.global_batch_size)) * recipe.objective.num_repeats
        self.num_steps = recipe.optim.max_steps or max(1, math.ceil(float(recipe.optim.num_epochs) * steps_per_epoch))
        self.steps_per_epoch = steps_per_epoch
        self.state = LoopState(micro_batch_tokens=int(recipe.optim.micro_batch_tokens), num_processes=self.world.num_processes)
        self._last_save = time.monotonic()
        self.memory = Recovery(self)
        self.process_bytes: int | None = None
        """What the process held before the model was loaded, where that was measured."""
        self.until: int | None = None
        """Pause after this step (a rung of a sweep)."""
        self.rollouts: Rollouts | None = None
        """Who lets the model write what is trained on, for objectives that learn so."""
        self.score: Callable[[nn.Module], float] | None = None
        """Mean of the metric that `training.best_by` names, over answers of the model."""
        self.after_step: Callable[[Loop], None] = lambda loop: None
        """Called before the first step and after every one, in the main process; must leave the weights and the loop as they are."""

    def make_optimizer(self, model: nn.Module) -> Optimizer:
        """An optimizer of the recipe over the trained parameters of `model`."""
        return Optimizer(model, self.recipe.optim, self.recipe.method.learning_rate_factor)

    def run(self) -> str:
        """Train to the end; return `finished`, `stopped_early` or `paused`."""
        self.resume()
        self.memory.heed_kill()
        self.model.train()
        with headroom.alive(self.memory.mark, self.state.micro_batch_tokens) if self.world.is_main else nullcontext():
            if self.state.step == 0:
                self._forecast()
                self._look()
            if self._is_patience_over() and self.state.step < self.num_steps:  # killed between the decision and its result
                return "stopped_early"
            return self._run_steps()

    def _batches(self) -> Iterator[list[int]]:
        """The examples of each step from the present one on."""
        repeats = self.recipe.objective.num_repeats
        batches = step_batches(
            self.num_examples,
            global_batch_size=int(self.recipe.optim.global_batch_size),
            seed=self.recipe.seed,
            start_step=self.state.step // repeats,
            num_steps=math.ceil(self.num_steps / repeats),
        )
        steps = ([int(i) for i in indices] for indices in batches for _ in range(repeats))
        return islice(steps, self.state.step % repeats, self.state.step % repeats + self.num_steps - self.state.step)

    def _run_steps(self) -> str:
        with stop_signals() as stop:
            batches = self._batches()
            while (indices := next(batches, None)) is not None:
                if not self._step(indices):
                    batches = self._batches()
                    continue
                is_last = self.state.step == self.num_steps
                if len(self.validation_set) and (is_last or self.state.step % int(self.recipe.training.validate_every_steps) == 0):
                    self._validate()
                self._look()
                is_over = self._is_patience_over() and not is_last
                if is_over:
                    patience = self.recipe.training.early_stopping_patience
                    self.reporter.event("early_stop", f"no better validation {self.recipe.training.best_by} for {patience} validations", step=self.state.step)
                reason = "by signal" if self.world.any(stop.is_set()) else self.pause_reason()
                if is_last or is_over or reason or self.world.from_main(self._is_save_due()):
                    self._save()
                if reason:
                    self.reporter.event("paused", f"stopped {reason} after step {self.state.step}; start the same command to go on", step=self.state.step)
                    return "paused"
                if is_over:
                    return "stopped_early"
        return "finished"

    def pause_reason(self) -> str | None:
        """Why to pause after this step without a signal, or None."""
        return "at a rung of its sweep" if self.until is not None and self.until <= self.state.step < self.num_steps else None

    def restore_best(self) -> int | None:
        """Put the weights of the best validation back; return its step, or None when the last weights are kept."""
        best = self.run_dir.checkpoints / "best"
        if not self.recipe.training.keep_best or self.state.best_step is None or self.state.best_step == self.state.step:
            return None
        try:
            weights = checkpoint.load(best).weights
        except CheckpointError as error:
            what = f"the weights of step {self.state.best_step} are damaged ({error.why}); those of the last step are kept"
            self.reporter.event("alarm", what, step=self.state.step)
            return None
        checkpoint.restore_weights(self.model, weights)
        return self.state.best_step

    def _look(self) -> None:
        if self.world.is_main and not self.world.is_sharded:
            self.after_step(self)

    def _step(self, indices: list[int]) -> bool:
        """One optimizer step; False when memory ran out in the middle of moving the weights and the newest checkpoint was put back."""
        start = time.monotonic()
        groups, written = self._groups(indices)
        if not groups:
            return self._pass_over()
        sequences = [sequence for group in groups for sequence in group]
        share = [groups[i] for i in self.world.share([num_tokens_of(group) for group in groups])]
        longest = max(num_tokens_of(group) for group in groups)
        rate = learning_rate(self.recipe.optim, self.state.step, self.num_steps)
        num_failures = 0
        while True:
            trained, totals = self.counted(share, sequences)
            loss, numbers = self._over_the_world(*self.memory.until_it_fits(functools.partial(self.forward_backward, trained, totals), longest))
            self.world.sum_gradients(self.optimizer.parameters.values())
            self._check_finite("loss", loss)
            grad_norm = self.memory.move(rate)
            if not self.world.any(grad_norm is None):
                break
            # Where one process has moved its weights and another could not, none is where the others are.
            if self.world.any(self.memory.is_harmed or grad_norm is not None):
                self.memory.go_back()
                return False
            num_failures += 1
            if num_failures > 1:  # the first time the step is repeated as it was
                self.memory.halve_micro_batch(longest, "the optimizer found no memory for its state")
        assert grad_norm is not None
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
            **written,
            learning_rate=rate,
            grad_norm=grad_norm,
            num_tokens=self.state.num_tokens,
            tokens_per_second=round(num_tokens / seconds, 1),
            peak_memory_bytes=peak_memory_bytes(self.device),
        )
        return True

    def _groups(self, indices: list[int]) -> tuple[list[Group], dict[str, float]]:
        """What the step is trained on: examples, or what the model wrote to them (with numbers on that)."""
        if self.rollouts is None:
            return [group for group in self.train_set.groups(indices, self.objective.group_size) if num_tokens_of(group)], {}
        assert isinstance(self.train_set, TokenFile)
        return self.rollouts.groups(self.model, self.state.step, indices, self.train_set, self.state.micro_batch_tokens)

    def _pass_over(self) -> bool:
        """A step of which tokenising has dropped every example: it has its place in the schedule and moves nothing."""
        self.state.step += 1
        self.reporter.event("empty_step", f"no example of step {self.state.step} can be used: it changes nothing", step=self.state.step)
        return True

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            step, rate = self.state.step + 1, learning_rate(self.recipe.optim, self.state.step, self.num_steps)
            self.reporter.event("not_finite", f"the {what} became {value}", step=step, what=what, value=str(value), learning_rate=rate)
            raise DivergedError(
                f"the {what} became {value} at step {self.state.step + 1}",
                why="usually a learning rate that is too high, or broken weights",
                fix=f"lower optim.learning_rate (now {self.recipe.optim.learning_rate}) by 3 to 10 times",
            )

    def counted(self, share: Sequence[Group], sequences: Sequence[EncodedExample]) -> tuple[list[Group], dict[str, float]]:
        """What of this process's `share` is trained on, and the totals of the step, measured with the model where the objective wants that."""
        totals = self.objective.totals(sequences)
        if not hasattr(self.objective, "measure"):
            return list(share), totals
        objective: MeasuringObjective = self.objective  # type: ignore[assignment]
        splits = [objective.split(group) for group in share]
        measured = [group for _, group in splits if group]
        longest = max((num_tokens_of(group) for group in measured), default=0)
        numbers = self.memory.until_it_fits(lambda: self._measured(objective, measured), longest)
        return [group for group, _ in splits], totals | {name: totals.get(name, 0.0) + value for name, value in self.world.sum(numbers).items()}

    @torch.no_grad()
    def _measured(self, objective: MeasuringObjective, groups: Sequence[Group]) -> dict[str, float]:
        numbers: dict[str, float] = {}
        was_training = self.model.training
        self.model.eval()
        try:
            for batch in batches_of(groups, self.state.micro_batch_tokens, self.device):
                add_numbers(numbers, objective.measure(self.model, batch, self.nll))
        finally:
            self.model.train(was_training)
        return numbers

    def forward_backward(self, groups: Sequence[Group], totals: Mapping[str, float]) -> tuple[float, dict[str, float]]:
        """Add the gradients of this process's share of one step; return its part of the loss and of what else the objective measured."""
        total = 0.0
        numbers: dict[str, float] = {}
        packs = pack([num_tokens_of(group) for group in groups], self.state.micro_batch_tokens)
        others = first_groups(self.train_set.sample, self.objective.group_size, max_tokens=1) if self.world.is_sharded else []
        for number in range(self.world.num_passes(len(packs))):
            is_own = number < len(packs)
            members = [groups[i] for i in packs[number]] if is_own else others
            batch = PackedBatch.from_examples([sequence for group in members for sequence in group], self.device)
            # Dropout depends on (seed, step, micro batch) only, so that a resumed run draws the same masks.
            draw = number * self.world.num_processes + self.world.process_rank
            torch.manual_seed((self.recipe.seed * 1_000_003 + self.state.step) * 1009 + draw)
            if batch.num_label_tokens == 0 and not self.world.is_sharded:
                continue
            loss, parts = self.objective.loss(self.model, batch, totals, self.nll)
            if not is_own:
                (loss * 0.0).backward()
                continue
            loss.backward()
            total += float(loss.detach())
            add_numbers(numbers, parts)
        return total, numbers

    def _over_the_world(self, loss: float, numbers: Mapping[str, float]) -> tuple[float, dict[str, float]]:
        """Loss and numbers summed over the processes."""
        total = self.world.sum({"": loss, **numbers})
        return total.pop(""), total

    @torch.no_grad()
    def _validate(self) -> None:
        self.model.eval()
        loss, numbers = self._validated() if self.rollouts is None else self.rollouts.validate(self.model, self.validation_set)
        if self.score is not None:
            numbers = {**numbers, self.recipe.training.best_by: self.score(self.model)}
        self.model.train()
        value = lower_is_better(self.recipe, loss, numbers)
        is_best = math.isfinite(loss) and math.isfinite(value) and (self.state.lowest is None or value < self.state.lowest)
        self.reporter.metrics(step=self.state.step, validation_loss=loss, is_best=is_best, **{f"validation_{name}": value for name, value in numbers.items()})
        if not is_best:
            self.state.validations_without_gain += 1
            return
        self.state.validations_without_gain = 0
        content = checkpoint.Checkpoint(checkpoint.trained_weights(self.model), {}, {"step": self.state.step})
        # A fault that passes shall not cost the best weights; what could not be kept cannot be the best that is kept.
        if not self.recipe.training.keep_best or self._try_save("best", content, tries=2):
            self.state.best_loss, self.state.best_value, self.state.best_step = loss, value, self.state.step

    def _validated(self) -> tuple[float, dict[str, float]]:
        """Loss of the first validation examples, and what else the objective measured."""
        groups = first_groups(self.validation_set, self.objective.group_size, max_tokens=MAX_VALIDATION_TOKENS)
        share = [groups[i] for i in self.world.share([num_tokens_of(group) for group in groups])]
        trained, totals = self.counted(share, [sequence for group in groups for sequence in group])
        longest = max(num_tokens_of(group) for group in groups)
        return self._over_the_world(*self.memory.until_it_fits(lambda: self._validation_loss(trained, totals), longest))

    def _validation_loss(self, groups: Sequence[Group], totals: Mapping[str, float]) -> tuple[float, dict[str, float]]:
        """This process's part of a validation."""
        loss = 0.0
        numbers: dict[str, float] = {}
        batches = list(batches_of(groups, self.state.micro_batch_tokens, self.device))
        for number in range(self.world.num_passes(len(batches))):
            is_own = number < len(batches)
            batch = batches[number] if is_own else PackedBatch.from_examples(self.validation_set.group(0, self.objective.group_size), self.device)
            part, parts = self.objective.loss(self.model, batch, totals, self.nll)
            if is_own:
                loss += float(part)
                add_numbers(numbers, parts)
        return loss, numbers

    def _is_patience_over(self) -> bool:
        patience = self.recipe.training.early_stopping_patience
        return isinstance(patience, int) and self.state.validations_without_gain >= patience

    def _forecast(self) -> None:
        """Say before the start how long it will take and how much memory it will hold, from a formula and a short measurement."""
        if self.rollouts is not None:
            return  # LIMIT: only the formula's forecast, which takes answers for as long as they may become (docs/limits.md#training)
        known = self.run_dir.read_record().get("forecast") or {}
        found = probe.measured(self, process_bytes=self.process_bytes, price_per_hour=known.get("price_per_hour"))
        found = {**known, **found}
        if self.world.is_main:
            self.run_dir.update_record(forecast=found)
        if found.get("training_seconds") is not None:
            minutes, gib = found["training_seconds"] / 60, found["peak_memory_bytes"] / 2**30
            self.reporter.event("forecast", f"forecast: {self.num_steps} steps, at most {minutes:.1f} minutes, {gib:.2f} GiB", **found)

    def _is_save_due(self) -> bool:
        every = self.recipe.training.checkpoint_every_steps
        return bool(every and self.state.step % every == 0) or time.monotonic() - self._last_save > self.recipe.training.checkpoint_every_seconds

    def _save(self) -> None:
        optimizer = {name: whole(value) for name, value in self.optimizer.state().items()}
        content = checkpoint.Checkpoint(checkpoint.trained_weights(self.model), optimizer, asdict(self.state))
        if self._try_save(f"step-{self.state.step:06d}", content) and self.world.is_main:
            checkpoint.rotate(self.run_dir.checkpoints)
        self._last_save = time.monotonic()

    def _try_save(self, name: str, content: checkpoint.Checkpoint, *, tries: int = 1) -> bool:
        """Write a checkpoint (the main process does); return whether it was written."""
        try:
            if self.world.is_main:
                checkpoint.save(self.run_dir.checkpoints / name, content, tries=tries)
            return not self.world.any(False)
        except StorageError as error:
            self.reporter.event("alarm", f"checkpoint {name} could not be written ({error.why}); training goes on with the older one", step=self.state.step)
            return not self.world.any(True)

    def resume(self) -> None:
        """Go on from the newest checkpoint that verifies, where there is one."""
        folder, rejected = checkpoint.newest_valid(self.run_dir.checkpoints) if self.world.is_main else (None, [])
        folder = self.world.from_main(folder)
        for bad, reason in rejected:
            self.reporter.event("alarm", f"checkpoint {bad.name} is not used: {reason}")
        if folder is not None:
            saved = checkpoint.load(folder)
            checkpoint.restore_weights(self.model, saved.weights)
            parameters = self.optimizer.parameters
            self.optimizer.restore({key: part_like(value, parameters[key.rsplit("|", 1)[0]]) for key, value in saved.optimizer.items()})
            self.state = LoopState(**saved.state)
            self.state.resumed_at.append(self.state.step)
            others = ""
            if self.state.num_processes != self.world.num_processes:
                others = f", with {self.world.num_processes} processes instead of {self.state.num_processes}: the same losses to rounding, not bitwise"
            self.state.num_processes = self.world.num_processes
            self.reporter.event("resumed", f"going on after step {self.state.step} of {self.num_steps}{others}", step=self.state.step)
        if self.world.is_main:
            truncate_metrics(self.run_dir.metrics, after_step=self.state.step)
            if self.rollouts is not None:
                self.rollouts.resume(self.state.step)
