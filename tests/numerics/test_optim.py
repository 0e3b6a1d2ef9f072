"""The learning-rate schedule and the optimizer, against their definitions."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from danlu.recipe.recipe import OptimConfig
from danlu.training.optim import Optimizer, learning_rate


def rates(num_steps: int = 10, **values: Any) -> list[float]:
    config = OptimConfig(learning_rate=1.0, **values)
    return [learning_rate(config, step, num_steps) for step in range(num_steps)]


def test_it_rises_in_equal_parts_to_the_peak() -> None:
    assert rates(warmup_ratio=0.4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates(warmup_ratio=1.0, scheduler="constant") == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates(warmup_ratio=0.0)[0] == 1.0
    assert rates(num_steps=3, warmup_ratio=0.03)[0] == 1.0


def test_cosine_falls_along_half_a_wave() -> None:
    found = rates(warmup_ratio=0.2, scheduler="cosine")

    assert found[2:] == pytest.approx([0.5 * (1 + math.cos(math.pi * n / 8)) for n in range(8)])
    assert found[6] == pytest.approx(0.5)


def test_linear_falls_in_equal_parts() -> None:
    assert rates(warmup_ratio=0.0, scheduler="linear") == pytest.approx([1 - n / 10 for n in range(10)])


def test_constant_stays_at_the_peak() -> None:
    assert rates(warmup_ratio=0.1, scheduler="constant") == [1.0] * 10


@pytest.mark.parametrize("scheduler", ["cosine", "linear"])
def test_the_smallest_rate_is_a_share_of_the_peak(scheduler: str) -> None:
    plain, lifted = (rates(num_steps=1000, warmup_ratio=0.0, scheduler=scheduler, min_learning_rate_ratio=share) for share in (0.0, 0.25))

    assert lifted == pytest.approx([0.25 + 0.75 * rate for rate in plain])
    assert lifted[-1] == pytest.approx(0.25, abs=1e-3) and min(lifted) >= 0.25


class Net(nn.Module):
    """An embedding, a matrix, a bias and a norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.linear, self.norm = nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4)

    def forward(self) -> torch.Tensor:
        return self.norm(self.linear(self.embedding.weight)).square().sum()


def test_adamw_is_the_textbooks() -> None:
    """Loshchilov & Hutter 2019, algorithm 2, on the first two steps; decay on the matrix only."""
    net = Net()
    optimizer = Optimizer(net, OptimConfig(weight_decay=0.1, beta1=0.8, beta2=0.9))
    state = {name: (p.detach().clone().double(), 0.0, 0.0) for name, p in net.named_parameters()}

    for step in (1, 2):
        net().backward()
        gradients = {name: p.grad.double() for name, p in net.named_parameters() if p.grad is not None}
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
        assert optimizer.step(0.05, max_grad_norm=1.5) == pytest.approx(norm, rel=1e-5)
        for name, gradient in gradients.items():
            value, first, second = state[name]
            clipped = gradient * min(1.0, 1.5 / norm)
            value = value * (1 - 0.05 * 0.1) if name == "linear.weight" else value
            first, second = 0.8 * first + 0.2 * clipped, 0.9 * second + 0.1 * clipped**2
            value = value - 0.05 * (first / (1 - 0.8**step)) / ((second / (1 - 0.9**step)).sqrt() + 1e-8)
            state[name] = (value, first, second)

    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.detach().double(), state[name][0], rtol=1e-4, atol=1e-5)
        assert parameter.grad is None


def test_muon_moves_matrices_and_adamw_the_rest() -> None:
    net = Net()
    optimizer = Optimizer(net, OptimConfig(optimizer="muon"))
    net().backward()
    optimizer.step(0.01, 1.0)

    assert sorted(key for key in optimizer.state() if "momentum" in key) == ["linear.weight|momentum_buffer"]
    assert {key.split("|")[0] for key in optimizer.state() if "exp_avg" in key} == {"embedding.weight", "linear.bias", "norm.weight", "norm.bias"}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_restored_optimizer_goes_on_bitwise(kind: str) -> None:
    nets = [Net(), Net()]
    optimizers = [Optimizer(net, OptimConfig(optimizer=kind)) for net in nets]

    def step(which: int) -> None:
        nets[which]().backward()
        optimizers[which].step(0.01, 1.0)

    step(0)
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers[1].restore({key: value.clone() for key, value in optimizers[0].state().items()})
    step(0)
    step(1)

    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
