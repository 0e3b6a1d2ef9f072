"""Several adapters trained in one pass over one frozen base model; each is a run of its own, with its own loop and folder.

Every member's `Loop` runs unchanged in a thread; when all have asked for the gradients of their step, the main thread computes these
together: the rows of all members in one packed batch, adapter by adapter (kernels/projection.py). Only one thread runs at a time.
Which member stops, saves or ends never changes what another one learns, but for rounding.
"""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from danlu.data.pack import pack
from danlu.errors import DanluError, NoEffectError
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir
from danlu.training import checkpoint
from danlu.training.batch import PackedBatch
from danlu.training.groups import Group, add_numbers, num_tokens_of
from danlu.training.kernels.projection import rows_of
from danlu.training.kernels.shared import SharedLoraLinear
from danlu.training.loop import Loop
from danlu.training.objective import NllFunction
from danlu.training.run import base_model, complete, likelihood
from danlu.training.signals import stop_signals

SHARED_OBJECTIVES = ("sft", "pretrain")
PASS_FAILED = "the pass of another member failed"
TOGETHER = "set sweep.together to false: they are trained one after another"


@dataclass(frozen=True)
class Member:
    """One adapter of a sweep."""

    recipe: Recipe
    run_dir: RunDir
    reporter: Reporter
    until: int | None = None
    """Pause after this step (a rung); None to train to the end."""


def can_share(recipe: Recipe, config: Mapping[str, Any]) -> bool:
    """Whether the recipe (resolved) can be trained in one pass with others over the same base model, given its config.json."""
    if any(value for name, value in config.items() if "drop" in name and isinstance(value, float)):
        return False  # a model that drops activations itself draws from the generator in another order than alone
    method: Any = recipe.method
    is_plain = method.type == "lora" and method.dropout == 0 and not method.use_dora and method.init == "default"
    is_usual = recipe.training.path == "fast" and recipe.training.compute == "exact"
    changes_inputs = recipe.optim.neftune_alpha is not None or bool(recipe.data.new_tokens)
    return recipe.start_from is None and is_plain and is_usual and not changes_inputs and recipe.objective.type in SHARED_OBJECTIVES


class AdapterView(nn.Module):
    """One adapter of a shared PEFT model, under the parameter names it would have alone."""

    def __init__(self, shared: Any, name: str) -> None:
        super().__init__()
        self._shared = [shared]  # in a list: the shared model is no submodule, its other adapters are none of ours
        self.name = name

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """The adapter's own parameters, called `default` as in a lone run."""
        for name, parameter in self._shared[0].named_parameters(*args, **kwargs):
            if f".{self.name}." in name:
                yield name.replace(f".{self.name}.", ".default."), parameter

    def get_base_model(self) -> Any:
        """The Transformers model below all adapters."""
        return self._shared[0].get_base_model()

    def save_pretrained(self, folder: Path, **options: Any) -> None:
        """Write the adapter as PEFT writes a lone one."""
        self._shared[0].save_pretrained(folder, selected_adapters=[self.name], **options)
        for file in (folder / self.name).iterdir():
            shutil.move(file, folder / file.name)
        (folder / self.name).rmdir()


class Pass:
    """Where the members' threads meet: what they ask for is computed by the main thread, their gradients when all have asked."""

    def __init__(self, model: Any, nll: NllFunction, device: torch.device) -> None:
        self.model, self.nll, self.device = model, nll, device
        self.turn = threading.Condition()
        self.num_running = 0
        self.asked: dict[int, tuple[MemberLoop, Sequence[Group], Mapping[str, float]]] = {}
        self.calls: dict[int, Callable[[], Tensor]] = {}
        self.answers: dict[int, Any] = {}
        self.is_broken = False
        self.stop: threading.Event = threading.Event()
        self.is_stopping = False
        self.is_save_due = False
        self._last_save = time.monotonic()

    def gradients(self, loop: MemberLoop, groups: Sequence[Group], totals: Mapping[str, float]) -> tuple[float, dict[str, float]]:
        """Wait for the others and return this member's loss and numbers of the step; called with `turn` held."""
        self.asked[loop.index] = (loop, groups, totals)
        return self._answer_for(loop.index)

    def on_main(self, index: int, work: Callable[[], Tensor]) -> Tensor:
        """Have `work` done by the main thread, in this thread's gradient mode; called with `turn` held."""
        is_grad_enabled = torch.is_grad_enabled()

        def in_mode() -> Tensor:
            with torch.set_grad_enabled(is_grad_enabled):
                return work()

        self.calls[index] = in_mode
        return self._answer_for(index)

    def _answer_for(self, index: int) -> Any:
        self.turn.notify_all()
        while index not in self.answers:
            if self.is_broken:
                raise RuntimeError(PASS_FAILED)
            self.turn.wait()
        answer = self.answers.pop(index)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def leave(self) -> None:
        """Say that a member needs nothing more; called with `turn` held."""
        self.num_running -= 1
        self.turn.notify_all()

    def serve(self) -> None:
        """Compute what the members ask for until all have left.

        One thread computes everything: memory that threads free stays with the thread (glibc's arenas), and would be held once by each.
        """
        with self.turn:
            try:
                while self.num_running:
                    if self.calls:
                        self._call(*self.calls.popitem())
                    elif self.asked and len(self.asked) == self.num_running:
                        self._step_of_all()
                    else:
                        self.turn.wait(0.2)  # with a limit, so that signals are seen
                    self.turn.notify_all()
            finally:
                self.is_broken = self.num_running > 0
                self.turn.notify_all()

    def _call(self, index: int, work: Callable[[], Tensor]) -> None:
        try:
            self.answers[index] = work()
        except (MemoryError, RuntimeError) as error:
            self.answers[index] = type(error)(*error.args)

    def _step_of_all(self) -> None:
        asked = [self.asked[index] for index in sorted(self.asked)]
        self.asked = {}
        # Told to all at the same step, so that they stay together.
        self.is_stopping = self.stop.is_set()
        self.is_save_due = time.monotonic() - self._last_save > min(loop.recipe.training.checkpoint_every_seconds for loop, _, _ in asked)
        if self.is_save_due:
            self._last_save = time.monotonic()
        try:
            for (loop, _, _), answer in zip(asked, self._compute(asked), strict=True):
                self.answers[loop.index] = answer
        except (MemoryError, RuntimeError) as error:  # each member decides what to do about it, as it would alone
            for loop, _, _ in asked:
                self.answers[loop.index] = type(error)(*error.args)

    def _compute(self, asked: Sequence[tuple[MemberLoop, Sequence[Group], Mapping[str, float]]]) -> list[tuple[float, dict[str, float]]]:
        """Add the gradients of every member's step; return each one's loss and numbers."""
        owned = [(number, group) for number, (_, groups, _) in enumerate(asked) for group in groups]
        losses, numbers = [0.0] * len(asked), [dict[str, float]() for _ in asked]
        capacity = min(loop.state.micro_batch_tokens for loop, _, _ in asked)
        for members in pack([num_tokens_of(group) for _, group in owned], capacity):
            by_member = {
                number: [sequence for _, group in some for sequence in group]
                for number, some in itertools.groupby((owned[i] for i in sorted(members)), key=lambda one: one[0])
            }
            batches = {number: PackedBatch.from_examples(sequences, self.device) for number, sequences in by_member.items()}
            whole = PackedBatch.from_examples([sequence for sequences in by_member.values() for sequence in sequences], self.device)
            if not whole.num_label_tokens:
                continue
            ends = list(itertools.accumulate(len(batch.ids_T) for batch in batches.values()))
            names = [asked[number][0].adapter for number in batches]
            with rows_of(list(zip(names, [0, *ends], ends, strict=False))):
                nll_L = self.nll(self.model, whole)
            parts = nll_L.split([batch.num_label_tokens for batch in batches.values()])
            total: Tensor | None = None
            for (number, batch), part_L in zip(batches.items(), parts, strict=True):
                loop, _, totals = asked[number]
                if not batch.num_label_tokens:
                    continue
                loss, more = loop.objective.loss(loop.model, batch, totals, lambda model, same, part_L=part_L: part_L)
                losses[number] += float(loss.detach())
                add_numbers(numbers[number], more)
                total = loss if total is None else total + loss
            assert total is not None
            total.backward()
        return list(zip(losses, numbers, strict=True))


class MemberLoop(Loop):
    """The loop of one member; it asks the pass for its gradients."""

    def __init__(self, member: Member, index: int, shared: Pass) -> None:
        self.shared, self.index, self.adapter = shared, index, f"member{index}"
        view = AdapterView(shared.model, self.adapter)
        super().__init__(member.recipe, member.run_dir, member.reporter, view, self._own_nll, shared.device)
        self.until = member.until

    def _own_nll(self, model: nn.Module, batch: PackedBatch) -> Tensor:
        def work() -> Tensor:
            with rows_of([(self.adapter, 0, len(batch.ids_T))]):
                return self.shared.nll(self.shared.model, batch)

        return self.shared.on_main(self.index, work)

    def forward_backward(self, groups: Sequence[Group], totals: Mapping[str, float]) -> tuple[float, dict[str, float]]:
        return self.shared.gradients(self, groups, totals)

    def pause_reason(self) -> str | None:
        return "by signal" if self.shared.is_stopping else super().pause_reason()

    def _forecast(self) -> None:
        """What one member takes cannot be measured among others."""

    def _is_save_due(self) -> bool:
        every = self.recipe.training.checkpoint_every_steps
        return bool(every and self.state.step % every == 0) or self.shared.is_save_due


def train_together(members: Sequence[Member], *, model_dir: Path, device: str) -> list[str | DanluError]:
    """Train the members that are not done in one pass; return each one's outcome, or the error that ended it.

    Outcomes are those of `danlu.training.run.run`; a member that reached its rung is `paused`.
    """
    outcomes: list[Any] = ["finished" if (member.run_dir.path / "training.json").exists() else None for member in members]
    waiting = [index for index, outcome in enumerate(outcomes) if outcome is None]
    step = align([members[index].run_dir for index in waiting]) if waiting else 0
    for index in waiting:
        until = members[index].until
        if until is not None and step >= until:
            outcomes[index] = "paused"
    waiting = [index for index in waiting if outcomes[index] is None]
    if not waiting:
        return outcomes
    first = members[waiting[0]].recipe
    shared = Pass(_with_adapters(first, [(i, members[i].recipe) for i in waiting], model_dir, device), likelihood(first), torch.device(device))
    loops = {index: MemberLoop(members[index], index, shared) for index in waiting}
    shared.num_running = len(loops)

    def run(index: int) -> None:
        with shared.turn:
            try:
                members[index].reporter.stage("training")
                outcomes[index] = complete(loops[index], loops[index].run(), model_dir)
            except DanluError as error:
                members[index].run_dir.update_record(state="failed", error=error.what)
                outcomes[index] = error
            finally:
                if outcomes[index] is None:  # a defect: the others pause
                    shared.stop.set()
                shared.leave()

    with stop_signals() as shared.stop, ThreadPoolExecutor(len(waiting)) as pool:
        threads = [pool.submit(run, index) for index in waiting]
        shared.serve()
    errors = [error for thread in threads if (error := thread.exception()) is not None]
    if errors:
        raise next((error for error in errors if str(error) != PASS_FAILED), errors[0])
    return outcomes


def align(run_dirs: Sequence[RunDir]) -> int:
    """Take all members back to the newest step of which every one has a checkpoint, so that a killed pass goes on as it was; return it."""
    steps = []
    for run_dir in run_dirs:
        folders = [folder for folder in run_dir.checkpoints.glob("step-*") if checkpoint.problem(folder) is None]
        steps.append({int(folder.name.removeprefix("step-")) for folder in folders} | {0})
    common = max(set.intersection(*steps))
    for run_dir in run_dirs:
        for folder in run_dir.checkpoints.glob("step-*"):
            if int(folder.name.removeprefix("step-")) > common:
                shutil.rmtree(folder)
    return common


def _with_adapters(first: Recipe, members: Sequence[tuple[int, Recipe]], model_dir: Path, device: str) -> Any:
    """The base model with every member's adapter, each drawn from its own seed as in a lone run."""
    from peft import LoraConfig, get_peft_model

    model, _ = base_model(first, model_dir, device)
    configs = [LoraConfig(**recipe.method.peft_options(model, ())) for _, recipe in members]  # type: ignore[attr-defined]
    configs[0]._register_custom_module({nn.Linear: SharedLoraLinear})
    names = [f"member{index}" for index, _ in members]
    for name, config, (_, recipe) in zip(names, configs, members, strict=True):
        torch.manual_seed(recipe.seed)
        if name == names[0]:
            model = get_peft_model(model, config, adapter_name=name, autocast_adapter_dtype=True)
        else:
            model.add_adapter(name, config)
    model.base_model.set_adapter(names)
    odd = next((type(module).__name__ for module in model.modules() if hasattr(module, "lora_A") and not isinstance(module, SharedLoraLinear)), None)
    if odd is not None:
        raise NoEffectError(
            "adapters over this base model cannot be trained in one pass", why=f"it has layers that the shared kernel does not compute ({odd})", fix=TOGETHER
        )
    return model.train()
