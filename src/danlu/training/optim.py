"""Optimizers and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from danlu.recipe.recipe import OptimConfig
from danlu.training.parallel import whole


def learning_rate(config: OptimConfig, step: int, num_steps: int) -> float:
    """Learning rate of step `step` (from 0) of `num_steps`: linear warm-up, then the schedule."""
    peak = float(config.learning_rate)
    warmup = math.ceil(config.warmup_ratio * num_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    if config.scheduler == "constant":
        return peak
    shape = 0.5 * (1 + math.cos(math.pi * progress)) if config.scheduler == "cosine" else 1 - progress
    floor = config.min_learning_rate_ratio
    return peak * (floor + (1 - floor) * shape)


class Optimizer:
    """One or two torch optimizers over the named trained parameters, with a pickle-free state."""

    def __init__(self, model: nn.Module, config: OptimConfig) -> None:
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        matrices = [p for p in self.parameters.values() if p.ndim == 2 and id(p) not in embeddings]
        others = [p for p in self.parameters.values() if p.ndim != 2 or id(p) in embeddings]
        decay = config.weight_decay
        betas = (config.beta1, config.beta2)
        self._optimizers: list[torch.optim.Optimizer] = []
        if config.optimizer == "muon":
            # Jordan et al. 2024; the update is scaled to AdamW's size, so both share one learning rate (arXiv:2502.16982, eq. 4).
            self._optimizers.append(torch.optim.Muon(matrices, lr=0.0, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
            groups = [{"params": others, "weight_decay": 0.0}]
        else:
            groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
        self._optimizers.append(torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True))

    def step(self, rate: float, max_grad_norm: float) -> float:
        """Clip, move the weights with learning rate `rate`, clear the gradients; return the norm before clipping.

        Gradients whose norm is not finite move nothing.
        """
        norm = float(whole(nn.utils.clip_grad_norm_(self.parameters.values(), max_grad_norm)))
        if not math.isfinite(norm):
            return norm
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm

    def zero_grad(self) -> None:
        """Forget gradients of a step that is started again."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Every state tensor as `<parameter>|<entry>`."""
        tensors = {}
        for name, parameter in self.parameters.items():
            for optimizer in self._optimizers:
                for entry, value in optimizer.state.get(parameter, {}).items():
                    assert isinstance(value, Tensor), (name, entry)
                    tensors[f"{name}|{entry}"] = value
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` returned."""
        owner = {id(p): optimizer for optimizer in self._optimizers for group in optimizer.param_groups for p in group["params"]}
        for key, value in tensors.items():
            name, entry = key.rsplit("|", 1)
            parameter = self.parameters[name]
            value = value if entry == "step" else value.to(parameter.device)
            owner[id(parameter)].state[parameter][entry] = value
