"""The learning-rate schedule and the optimizer, against their definitions."""

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from danlu.errors import NoEffectError
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


def test_polynomial_falls_with_a_power_of_what_is_left() -> None:
    assert rates(warmup_ratio=0.0, scheduler="polynomial") == pytest.approx([(1 - n / 10) ** 2 for n in range(10)])
    assert rates(warmup_ratio=0.0, scheduler="polynomial", scheduler_power=1.0) == pytest.approx(rates(warmup_ratio=0.0, scheduler="linear"))


def test_inverse_sqrt_is_the_transformers_own_schedule() -> None:
    """Vaswani et al. 2017, eq. 3, scaled to a peak of 1: min(n^-0.5, n w^-1.5) w^0.5."""
    assert rates(warmup_ratio=0.4, scheduler="inverse_sqrt") == pytest.approx([min(n**-0.5, n * 4**-1.5) * 2 for n in range(1, 11)])


def test_wsd_stays_at_the_peak_and_falls_at_the_end() -> None:
    found = rates(warmup_ratio=0.2, scheduler="wsd", scheduler_decay_ratio=0.4)

    assert found[2:7] == [1.0] * 5
    assert found[6:] == pytest.approx([1 - math.sqrt(n / 4) for n in range(4)])
    assert rates(num_steps=100, warmup_ratio=0.0, scheduler="wsd")[:81] == [1.0] * 81


def test_cosine_with_restarts_begins_anew_at_the_peak() -> None:
    found = rates(warmup_ratio=0.0, scheduler="cosine_restarts")

    assert found == pytest.approx([0.5 * (1 + math.cos(math.pi * n / 5)) for n in range(5)] * 2)
    assert rates(scheduler="cosine_restarts", scheduler_cycles=1) == pytest.approx(rates(scheduler="cosine"))


@pytest.mark.parametrize(
    "values",
    [
        {"scheduler_power": 2.0},
        {"scheduler_cycles": 2, "scheduler": "linear"},
        {"scheduler_decay_ratio": 0.1},
        {"min_learning_rate_ratio": 0.1, "scheduler": "constant"},
        {"scheduler": "inverse_sqrt", "warmup_ratio": 0.0},
        {"scheduler": "wsd", "warmup_ratio": 0.5, "scheduler_decay_ratio": 0.6},
        {"optimizer": "adafactor", "beta2": 0.9},
    ],
    ids=lambda values: "-".join(values),
)
def test_a_setting_without_effect_is_refused_with_what_to_change(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="has no effect|have no effect|set warmup_ratio|lower one of them"):
        OptimConfig(**values)


@pytest.mark.parametrize("scheduler", ["cosine", "linear", "polynomial"])
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


def test_lion_is_algorithm_2_of_its_paper() -> None:
    """Chen et al. 2023: the sign of the interpolated moment, decay on the matrix only, beta2 0.99 where nothing is set."""
    net = Net()
    optimizer = Optimizer(net, OptimConfig(optimizer="lion", weight_decay=0.1))
    expected = {name: (p.detach().clone(), torch.zeros_like(p)) for name, p in net.named_parameters()}

    for _ in range(3):
        net().backward()
        gradients = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
        optimizer.step(0.02, max_grad_norm=1e9)
        for name, gradient in gradients.items():
            value, moment = expected[name]
            decay = 0.1 if name == "linear.weight" else 0.0
            value = value - 0.02 * ((0.9 * moment + 0.1 * gradient).sign() + decay * value)
            expected[name] = (value, 0.99 * moment + 0.01 * gradient)

    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name][0])


def test_adafactor_is_algorithm_4_of_its_paper_without_the_parameters_own_scale() -> None:
    """Shazeer & Stern 2018: row and column means of the squared gradient, update clipped to RMS 1, beta2 of step t is 1 - t^-0.8."""
    net = Net()
    optimizer = Optimizer(net, OptimConfig(optimizer="adafactor"))
    matrix = net.linear.weight.detach().clone().double()
    rows, columns = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)

    for step in (1, 2, 3):
        net().backward()
        assert net.linear.weight.grad is not None
        gradient = net.linear.weight.grad.double()
        optimizer.step(0.02, max_grad_norm=1e9)
        beta2 = 1 - step**-0.8
        squared = gradient**2 + 1e-30
        rows, columns = beta2 * rows + (1 - beta2) * squared.mean(1), beta2 * columns + (1 - beta2) * squared.mean(0)
        update = gradient / (rows[:, None] * columns[None, :] / rows.mean()).sqrt()
        matrix = matrix - 0.02 * update / max(1.0, float(update.square().mean().sqrt()))

    torch.testing.assert_close(net.linear.weight.detach().double(), matrix, rtol=1e-4, atol=1e-5)
    assert {key.split("|")[1] for key in optimizer.state() if key.startswith("linear.weight")} == {"step", "exp_avg_sq_row", "exp_avg_sq_col", "RMS"}


class Wide(nn.Module):
    """A matrix with enough values for 8-bit moments, and a vector with too few."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(80, 64)

    def forward(self) -> torch.Tensor:
        torch.manual_seed(2)
        return self.linear(torch.randn(16, 80)).square().mean()


def test_8_bit_adamw_moves_like_adamw() -> None:
    nets = [Wide(), Wide()]
    optimizers = [Optimizer(net, OptimConfig(optimizer=kind, weight_decay=0.1)) for net, kind in zip(nets, ("adamw", "adamw_8bit"), strict=True)]
    start = nets[0].linear.weight.detach().clone()

    for _ in range(10):
        for net, optimizer in zip(nets, optimizers, strict=True):
            net().backward()
            optimizer.step(0.01, 1.0)

    moved, moved_8bit = (net.linear.weight.detach() - start for net in nets)
    assert float((moved_8bit - moved).norm() / moved.norm()) < 0.05
    state = optimizers[1].state()
    assert state["linear.weight|state1"].dtype == torch.uint8 and state["linear.bias|state1"].dtype == torch.float32


def test_8_bit_adamw_without_anything_to_keep_in_8_bits_is_refused() -> None:
    with pytest.raises(NoEffectError, match="would keep nothing in 8 bits"):
        Optimizer(Net(), OptimConfig(optimizer="adamw_8bit"))


def test_the_learning_rate_of_some_parameters_can_be_a_multiple() -> None:
    nets = [Net(), Net()]
    optimizers = [Optimizer(nets[0], OptimConfig()), Optimizer(nets[1], OptimConfig(), lambda name: 16.0 if name == "linear.weight" else 1.0)]
    before = nets[0].linear.weight.detach().clone()
    for net, optimizer in zip(nets, optimizers, strict=True):
        net().backward()
        optimizer.step(0.001, 1.0)

    torch.testing.assert_close(nets[1].linear.weight - before, 16 * (nets[0].linear.weight - before), rtol=1e-3, atol=1e-6)
    assert torch.equal(nets[0].linear.bias, nets[1].linear.bias)


@pytest.mark.parametrize("kind", get_args(OptimConfig.model_fields["optimizer"].annotation))
def test_a_restored_optimizer_goes_on_bitwise(kind: str, tmp_path: Path) -> None:
    make: type[nn.Module] = Wide if kind == "adamw_8bit" else Net
    nets = [make(), make()]
    optimizers = [Optimizer(net, OptimConfig(optimizer=kind)) for net in nets]

    def step(which: int) -> None:
        nets[which]().backward()
        optimizers[which].step(0.01, 1.0)

    step(0)
    step(0)
    nets[1].load_state_dict(nets[0].state_dict())
    save_file(optimizers[0].state(), tmp_path / "state.safetensors")
    optimizers[1].restore(load_file(tmp_path / "state.safetensors"))
    for _ in range(3):
        step(0)
        step(1)

    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
    assert all(torch.equal(value, optimizers[1].state()[key]) for key, value in optimizers[0].state().items())
