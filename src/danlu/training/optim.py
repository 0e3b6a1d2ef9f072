"""Optimizers and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from danlu.errors import NoEffectError
from danlu.recipe.recipe import OptimConfig
from danlu.training.lion import Lion
from danlu.training.parallel import whole

MIN_8BIT_SIZE = 4096
"""Parameters with fewer values keep their moments in 32 bits (bitsandbytes' rule)."""


def learning_rate(config: OptimConfig, step: int, num_steps: int) -> float:
    """Learning rate of step `step` (from 0) of `num_steps`: linear warm-up, then the schedule.

    Reference: Loshchilov & Hutter 2016, arXiv:1608.03983, eq. 5 (cosine, restarts); Vaswani et al. 2017, arXiv:1706.03762,
    eq. 3 (inverse_sqrt); Hu et al. 2024, arXiv:2404.06395, section 4 (wsd), falling with
    the square root as Haegele et al. 2024, arXiv:2405.18392.
    """
    peak = float(config.learning_rate)
    warmup = math.ceil(float(config.warmup_ratio) * num_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.scheduler == "constant":
        return peak
    if config.scheduler == "inverse_sqrt":
        return peak * math.sqrt(warmup / (step + 1))
    floor = config.min_learning_rate_ratio
    return peak * (floor + (1 - floor) * _shape(config, step, warmup, num_steps))


def _shape(config: OptimConfig, step: int, warmup: int, num_steps: int) -> float:
    """From 1 after warm-up to 0 after the last step."""
    progress = (step - warmup) / max(1, num_steps - warmup)
    if config.scheduler == "linear":
        return 1 - progress
    if config.scheduler == "polynomial":
        return float((1 - progress) ** (config.scheduler_power or 2.0))
    if config.scheduler == "wsd":
        decay = max(1, math.ceil(config.decay_ratio * num_steps))
        return 1 - math.sqrt(max(0, step - (num_steps - decay)) / decay)
    cycles = (config.scheduler_cycles or 2) if config.scheduler == "cosine_restarts" else 1
    return 0.5 * (1 + math.cos(math.pi * (progress * cycles % 1.0)))


class Optimizer:
    """One or two torch optimizers over the named trained parameters, with a pickle-free state.

    `learning_rate_factor` says what the learning rate of a parameter is multiplied with, by its name (LoRA+).
    """

    def __init__(self, model: nn.Module, config: OptimConfig, learning_rate_factor: Callable[[str], float] = lambda name: 1.0) -> None:
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
        for name, parameter in self.parameters.items():
            is_decayed = _is_matrix(name, parameter) and id(parameter) not in embeddings
            groups.setdefault((is_decayed, learning_rate_factor(name)), []).append(parameter)
        # Matrices first. `factor` is this class's own entry; torch optimizers keep what they do not know.
        ordered = sorted(groups.items(), key=lambda entry: (not entry[0][0], entry[0][1]))
        matrices, others = (
            [
                {"params": members, "weight_decay": config.weight_decay * decayed, "factor": factor}
                for (decayed, factor), members in ordered
                if decayed == wanted
            ]
            for wanted in (True, False)
        )
        self._optimizers: list[torch.optim.Optimizer] = []
        if config.optimizer == "muon" and matrices:
            # Jordan et al. 2024; the update is scaled to AdamW's size, so both share one learning rate (arXiv:2502.16982, eq. 4).
            self._optimizers.append(torch.optim.Muon(matrices, lr=0.0, adjust_lr_fn="match_rms_adamw"))
            matrices = []
        if matrices + others:
            self._optimizers.append(_make(config, matrices + others))
        if config.optimizer == "adamw_8bit" and all(p.numel() < MIN_8BIT_SIZE for p in self.parameters.values()):
            largest = max((p.numel() for p in self.parameters.values()), default=0)
            raise NoEffectError(
                "optim.optimizer adamw_8bit would keep nothing in 8 bits",
                why=f"the largest trained tensor has {largest} values; below {MIN_8BIT_SIZE} the moments stay in 32 bits",
                fix="set optim.optimizer to adamw",
            )

    def step(self, rate: float, max_grad_norm: float) -> float:
        """Clip, move the weights with learning rate `rate`, clear the gradients; return the norm before clipping.

        Gradients whose norm is not finite move nothing.
        """
        norm = float(whole(nn.utils.clip_grad_norm_(self.parameters.values(), max_grad_norm)))
        if not math.isfinite(norm):
            return norm
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm

    def zero_grad(self) -> None:
        """Forget gradients of a step that is started again."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Every state value as `<parameter>|<entry>`; whole numbers become tensors of no dimension and type int64."""
        tensors = {}
        for name, parameter in self.parameters.items():
            for optimizer in self._optimizers:
                for entry, value in optimizer.state.get(parameter, {}).items():
                    assert isinstance(value, Tensor | int), (name, entry)
                    # Copies where parameters share a tensor (the quantisation maps of 8-bit AdamW): safetensors refuses shared memory.
                    is_shared = isinstance(value, Tensor) and entry.startswith("qmap")
                    tensors[f"{name}|{entry}"] = torch.tensor(value) if isinstance(value, int) else value.clone() if is_shared else value
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` returned."""
        owner = {id(p): optimizer for optimizer in self._optimizers for group in optimizer.param_groups for p in group["params"]}
        for key, tensor in tensors.items():
            name, entry = key.rsplit("|", 1)
            parameter = self.parameters[name]
            value: Any = tensor if entry == "step" else tensor.to(parameter.device)
            if tensor.ndim == 0 and tensor.dtype == torch.int64:
                value = int(tensor)
            owner[id(parameter)].state[parameter][entry] = value


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay is for this parameter: no vector (also written as a thin matrix, as IA3's), no row of an embedding."""
    return parameter.ndim == 2 and ".ia3_l." not in name and ".trainable_tokens_delta." not in name


def _make(config: OptimConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer of the recipe; beside Muon, AdamW."""
    if config.optimizer == "lion":
        return Lion(groups, lr=0.0, betas=config.betas)
    if config.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        # Without the parameter's own scale (Shazeer & Stern 2018, section 8) a step has AdamW's size, so adapters that start at zero move.
        return Adafactor(groups, lr=0.0, scale_parameter=False, relative_step=False)
    if config.optimizer == "adamw_8bit":
        from danlu.models.quantise import require_bitsandbytes

        require_bitsandbytes("optim.optimizer adamw_8bit", instead="set optim.optimizer to adamw")
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(groups, lr=0.0, betas=config.betas, min_8bit_size=MIN_8BIT_SIZE)
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, fused=True)
