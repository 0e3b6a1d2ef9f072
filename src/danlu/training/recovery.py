"""What the loop does when memory runs out: smaller micro batches, the optimizer's step once more, or back to the newest checkpoint.

The result stays that of a run with enough memory: exactly where a step is repeated, to rounding where its micro batches are smaller.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from danlu.errors import OutOfMemoryError, is_out_of_memory
from danlu.models import headroom
from danlu.training import checkpoint, probe

if TYPE_CHECKING:
    from danlu.training.loop import Loop

Result = TypeVar("Result")


class Recovery:
    """The memory of one loop."""

    def __init__(self, loop: Loop) -> None:
        self.loop: Loop = weakref.proxy(loop)  # a circle would keep the model in memory after the loop is done with
        self.mark = loop.run_dir.path / headroom.MARK
        """There while the run is: what the kernel kills leaves it behind."""
        self.is_harmed = False
        """Whether an optimizer step that ran out of memory had moved anything."""

    def until_it_fits(self, work: Callable[[], Result], longest: int) -> Result:
        """Do `work` again with micro batches of half the size whenever memory runs out in a process, down to one example of `longest` tokens."""
        while True:
            why, result = "", None
            try:
                result = work()
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or isinstance(error, OutOfMemoryError):
                    raise
                why = (str(error).strip() or type(error).__name__).splitlines()[0]
            # Out of the except block the traceback, whose frames hold the tensors of the failed pass, is gone.
            # Sharded processes wait for each other in the middle of a pass: there the first one ends them all.
            if not (bool(why) if self.loop.world.is_sharded else self.loop.world.any(bool(why))):
                return result  # type: ignore[return-value]
            self.halve_micro_batch(longest, why or "another process ran out of memory")

    def halve_micro_batch(self, longest: int, why: str) -> None:
        """Go on with micro batches of half the size, at least one example of `longest` tokens.

        Raises:
            OutOfMemoryError: they are as small as that already.
        """
        self.loop.optimizer.zero_grad()
        self._free_memory()
        if self.loop.world.is_sharded:
            raise OutOfMemoryError(
                f"{self.loop.state.micro_batch_tokens} tokens per forward pass do not fit in memory",
                why=why,
                fix=f"set optim.micro_batch_tokens to {self.loop.state.micro_batch_tokens // 2}, or use more processes",
            )
        if self.loop.state.micro_batch_tokens <= longest:
            raise OutOfMemoryError(
                f"an example of {longest} tokens does not fit in memory by itself",
                why=why,
                fix=f"set data.max_seq_len below {longest}, or use a smaller base model or method lora{self._what_would_fit()}",
            )
        self.loop.state.micro_batch_tokens = max(longest, self.loop.state.micro_batch_tokens // 2)
        if self.loop.world.is_main:
            headroom.renew(self.mark, self.loop.state.micro_batch_tokens)
        self.loop.reporter.event(
            "out_of_memory",
            f"out of memory: going on with {self.loop.state.micro_batch_tokens} tokens per forward pass; the loss does not change",
            step=self.loop.state.step,
        )

    def _free_memory(self) -> None:
        gc.collect()
        if self.loop.device.type == "cuda":
            torch.cuda.empty_cache()

    def _what_would_fit(self) -> str:
        """The forecast's alternatives as settings, for the end of a sentence."""
        found = probe.formula(self.loop, process_bytes=self.loop.process_bytes)
        options = [] if found is None else [alternative for alternative in found.alternatives if set(alternative.changes) - {"optim.micro_batch_tokens"}]
        if not options:
            return ""
        settings = (" ".join(f"{path}={value}" for path, value in option.changes.items()) + f" ({option.peak_bytes / 2**30:.2f} GiB)" for option in options[:2])
        return "; by the forecast this would fit: " + ", or ".join(settings)

    def move(self, rate: float) -> float | None:
        """One step of the optimizer; return the gradient's norm, or None when memory ran out, with `is_harmed` saying whether anything moved."""
        before = self.loop.optimizer.state()
        marks = self._marks(before)
        try:
            return self.loop.optimizer.step(rate, self.loop.recipe.optim.max_grad_norm)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        self.is_harmed = self._marks(before) != marks
        # State that was made in the failed step may be there in part: a new optimizer gets what was there before (the same tensors).
        self.loop.optimizer.zero_grad()
        self.loop.optimizer = self.loop.make_optimizer(self.loop.model)
        self.loop.optimizer.restore(before)
        self._free_memory()
        self.loop.reporter.event("out_of_memory", "out of memory in the optimizer: the step is done again", step=self.loop.state.step)
        return None

    def _marks(self, state: Mapping[str, Tensor]) -> list[int]:
        """Counts of the in-place changes of every trained weight and of the optimizer's state."""
        return [tensor._version for tensor in (*self.loop.optimizer.parameters.values(), *state.values())]

    def go_back(self) -> None:
        """After a step that moved some weights and not others: on from the newest checkpoint, as a run that was killed would."""
        tokens = self.loop.state.micro_batch_tokens
        if self.loop.world.from_main(self.loop.world.is_main and checkpoint.newest_valid(self.loop.run_dir.checkpoints)[0] is None):
            raise OutOfMemoryError(
                f"memory ran out in the middle of optimizer step {self.loop.state.step + 1}",
                why="some weights had moved, others not, and there is no checkpoint yet to go back to",
                fix=f"start the same command again: it begins anew; to need less, use method lora or optimizer adamw{self._what_would_fit()}",
            )
        self.loop.optimizer = self.loop.make_optimizer(self.loop.model)
        self.loop.resume()
        self.loop.state.micro_batch_tokens = tokens

    def heed_kill(self) -> None:
        """Start with smaller micro batches when the kernel killed this run for lack of memory."""
        tokens = self.loop.world.from_main(headroom.killed_at(self.mark) if self.loop.world.is_main else None)
        if tokens is None:
            return
        self.loop.state.micro_batch_tokens = max(probe.MIN_TOKENS, min(self.loop.state.micro_batch_tokens, tokens) // 2)
        self.loop.reporter.event(
            "out_of_memory",
            f"the system ended this run for lack of memory: going on with {self.loop.state.micro_batch_tokens} tokens per forward pass",
            step=self.loop.state.step,
        )
