"""Rollouts: the model answers the prompts of a step, reward functions judge, and the answers become what is trained on.

An answer is a function of the weights and of (seed, step, example, number of the answer), so a run that goes on from a
checkpoint writes the same ones again, and several processes write each its share of those that one would have written. Answers
that several steps share are kept in a file until they are used up.

Shapes: P prompts, G answers to each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from danlu.data.chat import ChatRenderer
from danlu.data.encode import EncodeAccount, encode_batch
from danlu.data.judge import judge
from danlu.data.pack import EncodedExample, TokenFile, pack
from danlu.errors import TrainingError, is_out_of_memory
from danlu.files import read_jsonl, storage_errors
from danlu.models.generate import Completion, Drawing, generate
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter, truncate_metrics
from danlu.run_dir import RunDir
from danlu.training.batch import PackedBatch
from danlu.training.forward import attention_of, unwrap
from danlu.training.groups import Group
from danlu.training.objective import NllFunction
from danlu.training.parallel import World

T = TypeVar("T")


class Rollouts:
    """Answers of the model to the prompts of one run."""

    def __init__(
        self, recipe: Recipe, run_dir: RunDir, reporter: Reporter, renderer: ChatRenderer, nll: NllFunction, reference: nn.Module | None, world: World
    ) -> None:
        self.recipe, self.run_dir, self.reporter, self.renderer, self.nll, self.reference, self.world = (
            recipe, run_dir, reporter, renderer, nll, reference, world
        )  # fmt: skip
        self.objective: Any = recipe.objective
        self.examples = {name: self._examples(name) for name in ("train", "validation")}
        self.path = run_dir.path / "rollouts.jsonl"
        self._step = -1
        self._groups: list[Group] = []
        self._numbers: dict[str, float] = {}

    def resume(self, step: int) -> None:
        """Forget what was written after `step`."""
        truncate_metrics(self.path, after_step=step)

    def groups(self, model: nn.Module, step: int, indices: Sequence[int], prompts: TokenFile, micro_batch_tokens: int) -> tuple[list[Group], dict[str, float]]:
        """What step `step` (from 0) trains on, and numbers on it; made at the first of the steps that share it."""
        first = step - step % self.objective.num_iterations
        if self._step != first:
            stored = self.run_dir.path / "rollouts" / f"step-{first:06d}.npz"
            if step == first:
                self._groups, self._numbers = self._write(model, first, indices, prompts, micro_batch_tokens)
                if self.objective.num_iterations > 1 and self.world.is_main:
                    _store(stored, self._groups, self._numbers)
                    self._remove_used_up(stored.parent)
            elif self.world.from_main(stored.exists()):
                self._groups, self._numbers = _load(stored)
            else:
                raise TrainingError(
                    f"the answers that step {step + 1} goes on with are not there: {stored}",
                    why="the weights that wrote them have moved since",
                    fix="start the run anew in another folder",
                )
            self._step = first
        return self._groups, self._numbers

    def validate(self, model: nn.Module, prompts: TokenFile) -> tuple[float, dict[str, float]]:
        """Minus the mean reward of greedy answers to the first validation prompts, and numbers on them."""
        count = min(len(prompts), self.objective.num_validation_prompts)
        answers = self._answers(model, [prompts[i].ids.tolist() for i in range(count)], None)
        rewards = [judge(self.objective.rewards, answer.text, self.examples["validation"][i])[0] for i, answer in enumerate(answers)]
        return -float(np.mean(rewards)), {"reward": float(np.mean(rewards)), "completion_tokens": float(np.mean([a.num_tokens for a in answers]))}

    def _examples(self, name: str) -> list[dict[str, Any]]:
        """The examples of a split as the token file has them: those that could not be encoded are left out."""
        recipe = self.recipe
        kept = []
        for example in read_jsonl(self.run_dir.data / f"{name}.jsonl"):
            encoded = encode_batch([example], EncodeAccount(), recipe.objective, self.renderer, int(recipe.data.max_seq_len), recipe.data.truncation)
            kept += [example for _ in encoded]
        return kept

    def _remove_used_up(self, folder: Path) -> None:
        """Remove answers that no checkpoint goes on with."""
        steps = [int(path.name.removeprefix("step-")) for path in self.run_dir.checkpoints.glob("step-*")]
        for path in folder.glob("step-*.npz"):
            if steps and int(path.stem.removeprefix("step-")) + self.objective.num_iterations <= min(steps):
                path.unlink()

    def _answers(self, model: nn.Module, prompts: list[list[int]], drawing: Drawing | None) -> list[Completion]:
        """An answer to each prompt; this process writes its share of them."""
        own = self.world.share([len(prompt) for prompt in prompts])
        drawn = None if drawing is None else replace(drawing, uniform_BT=drawing.uniform_BT[own])
        was_training, random_state = model.training, torch.get_rng_state()
        model.eval()
        found: dict[int, Completion] = {}
        try:
            longest = self.objective.max_completion_tokens
            for batch in generate(model, self.renderer, [prompts[i] for i in own], max_new_tokens=longest, drawing=drawn, on_smaller=self._tell_fewer):
                found |= batch
                self.reporter.progress("answering prompts", len(found), len(own))
        finally:
            model.train(was_training)
            torch.set_rng_state(random_state)
        return self._gathered({index: found[place] for place, index in enumerate(own)})

    def _gathered(self, own: dict[int, T]) -> list[T]:
        """What every process has made of its share, in the order of the whole."""
        whole: dict[int, T] = {}
        for part in self.world.gather(own):
            whole |= part
        return [whole[i] for i in range(len(whole))]

    def _write(self, model: nn.Module, step: int, indices: Sequence[int], prompts: TokenFile, micro_batch_tokens: int) -> tuple[list[Group], dict[str, float]]:
        objective, count = self.objective, self.objective.num_answers
        asked = [(index, number) for index in indices for number in range(count)]
        uniform = np.stack([np.random.default_rng((self.recipe.seed, step, *key)).random(objective.max_completion_tokens) for key in asked])
        answers = self._answers(model, [prompts[index].ids.tolist() for index, _ in asked], Drawing(uniform, objective.temperature, objective.top_p))
        judged = [judge(objective.rewards, answer.text, self.examples["train"][index]) for (index, _), answer in zip(asked, answers, strict=True)]
        rewards_PG = np.array([reward for reward, _ in judged]).reshape(len(indices), count)
        advantages = objective.advantages(rewards_PG).reshape(-1)
        sequences = []
        for (index, number), answer, (reward, scores), advantage in zip(asked, answers, judged, advantages, strict=True):
            prompt = prompts[index].ids
            ids = np.concatenate([prompt, np.asarray(answer.ids, np.uint32)])
            sequences.append(EncodedExample(ids, np.arange(len(ids)) >= len(prompt), tag=float(advantage)))
            self.reporter.append(
                self.path,
                {
                    "step": step + 1, "line": self.examples["train"][index].get("line"), "answer": number, "completion": answer.text, "reward": reward,
                    "scores": scores, "advantage": float(advantage), "num_tokens": answer.num_tokens, "is_cut": answer.is_cut,
                },
            )  # fmt: skip
        sequences = self._with_nats(model, sequences, micro_batch_tokens)
        numbers = {
            "reward": float(rewards_PG.mean()),
            "reward_std": float(rewards_PG.std()),
            "groups_alike": float(np.mean(np.ptp(rewards_PG, axis=1) == 0)),
            "completion_tokens": float(np.mean([answer.num_tokens for answer in answers])),
            "cut_share": float(np.mean([answer.is_cut for answer in answers])),
            **{f"reward_{name}": float(np.mean([scores[name] for _, scores in judged])) for name in judged[0][1]},
        }
        return [[sequence] for sequence in sequences], numbers

    def _with_nats(self, model: nn.Module, sequences: list[EncodedExample], micro_batch_tokens: int) -> list[EncodedExample]:
        """The sequences with what the writing model and the reference make of each token, where the loss asks for it."""
        if self.objective.num_iterations > 1:
            old = self._nats(model, nullcontext(), sequences, micro_batch_tokens)
            sequences = [replace(s, old_nats=n) for s, n in zip(sequences, old, strict=True)]
        if self.objective.beta:
            switched_off: AbstractContextManager[Any] = nullcontext() if self.reference is not None else model.disable_adapter()  # type: ignore[operator]
            nats = self._nats(model if self.reference is None else self.reference, switched_off, sequences, micro_batch_tokens)
            sequences = [replace(s, reference_nats=n) for s, n in zip(sequences, nats, strict=True)]
        return sequences

    def _tell_fewer(self, rows: int) -> None:
        self.reporter.event("out_of_memory", f"out of memory: {rows} prompts are answered at a time; the answers do not change")

    def _nats(self, model: nn.Module, context: AbstractContextManager[Any], sequences: list[EncodedExample], micro_batch_tokens: int) -> list[np.ndarray]:
        def tell(count: int) -> None:
            self.reporter.event("out_of_memory", f"out of memory: answers are measured {count} at a time; the loss does not change")

        own = self.world.share([len(sequence.ids) for sequence in sequences])
        with context, attention_of(unwrap(model), self.recipe.training.path):
            measured = label_nats(
                model, self.nll, [sequences[i] for i in own], micro_batch_tokens=micro_batch_tokens, device=self.world.device, on_smaller=tell
            )
        return self._gathered(dict(zip(own, measured, strict=True)))


@torch.no_grad()
def label_nats(
    model: nn.Module,
    nll: NllFunction,
    sequences: Sequence[EncodedExample],
    *,
    micro_batch_tokens: int,
    device: torch.device,
    on_smaller: Callable[[int], None] = lambda count: None,
) -> list[np.ndarray]:
    """Nats of each label token of each sequence. A batch that memory does not suffice for is taken in halves; `on_smaller` hears how many are tried then."""
    found: list[np.ndarray] = [np.zeros(0, np.float32)] * len(sequences)
    was_training = model.training
    model.eval()
    try:
        waiting = pack([len(s.ids) for s in sequences], micro_batch_tokens)[::-1]
        while waiting:
            members = waiting.pop()
            batch = PackedBatch.from_examples([sequences[i] for i in members], device)
            try:
                nll_L: Tensor = nll(model, batch)
            except (MemoryError, RuntimeError) as error:
                if len(members) == 1 or not is_out_of_memory(error):
                    raise
                waiting += [members[len(members) // 2 :], members[: len(members) // 2]]
                on_smaller(len(waiting[-1]))
                continue
            for row, member in enumerate(members):
                found[member] = nll_L[batch.row_example_L == row].float().cpu().numpy()
    finally:
        model.train(was_training)
    return found


def _store(path: Path, groups: Sequence[Group], numbers: dict[str, float]) -> None:
    """Write the answers so that they are there whole or not at all."""
    arrays: dict[str, Any] = {"names": np.array(list(numbers)), "numbers": np.array(list(numbers.values()))}
    for i, [sequence] in enumerate(groups):
        arrays |= {f"{i}.ids": sequence.ids, f"{i}.mask": sequence.mask, f"{i}.tag": sequence.tag, f"{i}.old": sequence.old_nats}
        if sequence.reference_nats is not None:
            arrays[f"{i}.reference"] = sequence.reference_nats
    staging = path.with_suffix(".tmp")
    with storage_errors(path):
        path.parent.mkdir(exist_ok=True)
        with staging.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staging, path)


def _load(path: Path) -> tuple[list[Group], dict[str, float]]:
    with np.load(path, allow_pickle=False) as arrays:
        numbers = dict(zip(arrays["names"].tolist(), arrays["numbers"].tolist(), strict=True))
        groups: list[Group] = []
        while f"{len(groups)}.ids" in arrays:
            key = len(groups)
            reference = arrays.get(f"{key}.reference")
            sequence = EncodedExample(arrays[f"{key}.ids"], arrays[f"{key}.mask"], tag=float(arrays[f"{key}.tag"]), old_nats=arrays[f"{key}.old"])
            groups.append([replace(sequence, reference_nats=reference)])
    return groups, numbers
