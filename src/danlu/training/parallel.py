"""Several processes that train one model together; with one process every call here is the identity.

Each process takes its share of every step's examples, which all of them see in the same order, so that the sum of
their gradients is that of the whole step: the loss does not depend on how many they are.

Replicated: each process holds the whole model and the few trained gradients are summed after the step's last backward
pass (Li et al. 2020, arXiv:2006.15704, without its overlap of communication: an adapter's gradients are small).
Sharded: each process holds a part of every weight, FSDP2 gathers a layer while it is computed (Zhao et al. 2023,
arXiv:2304.11277) and sums the gradients; the fused decoder, which reads weights without calling layers, is not used then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from danlu.data.pack import divide
from danlu.training.batch import PackedBatch
from danlu.training.objective import NllFunction

T = TypeVar("T")
BUCKET_NUMBERS = 64 * 2**20
"""Most gradient numbers that are summed in one message; an adapter's fit into one."""


class World:
    """The processes of a run, seen from one of them."""

    def __init__(self, device: torch.device, *, process_rank: int = 0, num_processes: int = 1, is_sharded: bool = False) -> None:
        self.device, self.process_rank, self.num_processes, self.is_sharded = device, process_rank, num_processes, is_sharded

    @property
    def is_main(self) -> bool:
        """Whether this process writes metrics, events, checkpoints and results."""
        return self.process_rank == 0

    def gather(self, value: T) -> list[T]:
        """The value of every process, in their order."""
        if self.num_processes == 1:
            return [value]
        values: list[Any] = [None] * self.num_processes
        dist.all_gather_object(values, value)
        return values

    def from_main(self, value: T) -> T:
        """The value of the main process."""
        return self.gather(value if self.is_main else None)[0]  # type: ignore[return-value]

    def any(self, flag: bool) -> bool:
        """Whether it holds in any process."""
        return any(self.gather(flag))

    def sum(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Each number summed over the processes, in their order, so that all get bitwise the same."""
        total: dict[str, float] = {}
        for part in self.gather(dict(numbers)):
            for name, number in part.items():
                total[name] = total.get(name, 0.0) + number
        return total

    def share(self, sizes: Sequence[int]) -> list[int]:
        """Which of the items (given by their tokens) this process takes."""
        return divide(sizes, self.num_processes)[self.process_rank]

    def num_passes(self, num_own: int) -> int:
        """Forward passes this process has to make when it needs `num_own`: sharded layers are gathered by all at once."""
        return max(self.gather(num_own)) if self.is_sharded else num_own

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of replicated processes.

        There is no DistributedDataParallel wrapper: it would sum once per backward pass, hook into a forward that the fast
        path does not call, and hide parameter names. Gradients go through one flat buffer (a few for whole models)
        together with one flag each: a parameter that has a gradient in no process has none afterwards.
        """
        if self.num_processes == 1 or self.is_sharded:
            return
        for bucket in _buckets(parameters):
            flags = [float(p.grad is not None) for p in bucket]
            pieces = [p.new_zeros(p.numel(), dtype=torch.float32) if p.grad is None else p.grad.reshape(-1).float() for p in bucket]
            flat = torch.cat([*pieces, torch.tensor(flags, device=self.device)])
            dist.all_reduce(flat)
            *sums, seen = flat.split([*(p.numel() for p in bucket), len(bucket)])
            for parameter, total, count in zip(bucket, sums, seen.tolist(), strict=True):
                parameter.grad = total.view_as(parameter).to(parameter.dtype) if count else None


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and sum(p.numel() for p in bucket) + parameter.numel() > BUCKET_NUMBERS:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


@contextmanager
def joined(device: str, *, is_sharded: bool | None, rendezvous: str = "env://", timeout: timedelta = timedelta(minutes=30)) -> Iterator[World]:
    """Meet the other processes, found by RANK, WORLD_SIZE and LOCAL_RANK of the environment (torchrun sets them).

    `timeout` is how long the others may take to come, and to answer. `is_sharded` None: told later, by the main process.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device("cuda", local_rank) if device == "cuda" else torch.device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo", init_method=rendezvous, rank=rank, world_size=size, timeout=timeout)
    try:
        yield World(place, process_rank=rank, num_processes=size, is_sharded=bool(is_sharded))
    finally:
        dist.destroy_process_group()


class _WholePass(nn.Module):
    """What FSDP2 wraps: its forward is everything that happens to a batch, so embedding and head are gathered around all of it."""

    def __init__(self, model: nn.Module, nll: NllFunction) -> None:
        super().__init__()
        self.model, self.nll = model, nll

    def forward(self, batch: PackedBatch) -> Tensor:
        return self.nll(self.model, batch)


def shard(model: nn.Module, nll: NllFunction, world: World) -> NllFunction:
    """Divide every weight of `model` over the processes, layer by layer; return the `nll` to be used from now on.

    Gradients are summed, not averaged, over the processes.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    mesh = init_device_mesh(world.device.type, (world.num_processes,))
    whole_pass = _WholePass(model, nll)
    layers = _layers(model)
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(whole_pass, mesh=mesh, reshard_after_forward=False)
    for module in (*layers, whole_pass):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    assert all(isinstance(p, DTensor) for p in model.parameters()), "a weight that FSDP2 left whole would train unsharded"
    return lambda _, batch: whole_pass(batch)


def _layers(model: nn.Module) -> list[Any]:
    """The repeated blocks of a decoder: the longest list of modules in it."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=lambda layers: len(layers), default=[])


def whole(tensor: Tensor) -> Tensor:
    """The tensor of which each process holds a part, gathered on the CPU; other tensors as they are. All processes have to call it."""
    gather: Callable[[], Tensor] | None = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather().cpu()


def part_like(tensor: Tensor, other: Tensor) -> Tensor:
    """This process's part of the whole `tensor`, divided as `other` is."""
    mesh = getattr(other, "device_mesh", None)
    if mesh is None or tensor.shape != other.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(other.device), mesh, other.placements, src_data_rank=None)  # type: ignore[attr-defined]
