"""Where a recipe is trained: how many processes, and what each of them holds. Never part of the recipe or its fingerprint.

The same recipe gives the same losses (to rounding) wherever it is placed; run.json records the placement of each attempt.
"""

from typing import Literal

from pydantic import Field

from danlu.errors import NoEffectError
from danlu.recipe.base import StrictModel
from danlu.recipe.recipe import Recipe

DIVISIBLE = ("adamw", "lion")
"""Optimizers that treat each weight by itself, whatever stands beside it."""


class Placement(StrictModel):
    """One process per device."""

    processes: int = Field(1, ge=1, le=4096)
    """Processes that train together, each on a GPU of its own (or on the processor where there is no GPU)."""
    sharding: Literal["auto", "replicate", "shard"] = "auto"
    """`replicate`: each process holds the whole model. `shard`: each holds a part of every weight (FSDP2). `auto`: adapters replicate, whole models shard."""

    def is_sharded(self, recipe: Recipe) -> bool:
        """Whether the weights are divided over the processes."""
        if self.processes == 1:
            return False
        return self.sharding == "shard" or (self.sharding == "auto" and not recipe.method.makes_adapter)

    def check(self, recipe: Recipe, *, num_gpus: int, num_machines: int = 1) -> None:
        """Refuse what cannot work; `recipe` is resolved.

        Raises:
            NoEffectError: more processes than a step has examples or the machine has GPUs, or sharding that this recipe cannot have.
        """
        batch = int(recipe.optim.global_batch_size)
        if self.processes > batch:
            raise NoEffectError(
                f"{self.processes} processes cannot share a step of {batch} examples",
                why="each process takes whole examples of every step, and some would get none",
                fix=f"use at most {batch} processes, or set optim.global_batch_size to {self.processes} or more",
            )
        if num_gpus and self.processes > num_gpus * num_machines:
            raise NoEffectError(
                f"{self.processes} processes do not fit on {num_gpus * num_machines} GPUs",
                why="each process needs a GPU of its own",
                fix=f"use --processes {num_gpus * num_machines}",
            )
        if self.is_sharded(recipe) and recipe.objective.is_online:
            raise NoEffectError(
                f"objective {recipe.objective.type} cannot be trained sharded",
                why="each process writes answers of its own, and needs the whole model for it",
                fix="use --sharding replicate",
            )
        if self.is_sharded(recipe) and recipe.objective.makes_reward_model:
            raise NoEffectError(
                f"objective {recipe.objective.type} cannot be trained sharded", why="its head is new and is not divided", fix="use --sharding replicate"
            )
        if self.sharding == "shard" and self.processes == 1:
            raise NoEffectError("--sharding shard has no effect with one process", why="there is nothing to divide the weights over", fix="add --processes 2")
        if self.is_sharded(recipe) and recipe.optim.optimizer not in DIVISIBLE:
            raise NoEffectError(
                f"optim.optimizer {recipe.optim.optimizer} does not work on weights that are divided over processes",
                why="it needs whole matrices (or a state that cannot be divided)",
                fix="use optim.optimizer adamw or lion, or --sharding replicate",
            )
        if self.is_sharded(recipe) and recipe.method.quantisation is not None:
            raise NoEffectError(
                f"method {recipe.method.type} cannot divide its weights over processes",
                why="quantised weights are no plain tensors",
                fix="use --sharding replicate, or method lora",
            )
