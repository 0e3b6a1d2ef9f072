"""Group relative policy optimisation: the model answers, reward functions judge, and better answers than the group's mean become likelier.

`global_batch_size` counts prompts; each gets a group of answers. Deviations from the paper: the mean over tokens is the whole
step's (`dapo`) unless told otherwise; the loss is that of the model at temperature 1 whatever the temperature of drawing.

Shapes: N sequences of a batch, L label tokens, P prompts, G answers to each.
Reference: Shao et al. 2024, arXiv:2402.03300, eq. 3 (objective), 4 (KL estimate k3), section 4.1.2 (advantages); Yu et al. 2025,
arXiv:2503.14476, eq. 8 (`dapo`, and the second clip bound); Liu et al. 2025, arXiv:2503.20783, eq. 3 (`dr_grpo`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator

from danlu.recipe.base import OBJECTIVES, REWARDS, ObjectiveConfig, RewardConfig

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from danlu.data.chat import ChatRenderer
    from danlu.data.pack import EncodedExample
    from danlu.training.batch import PackedBatch
    from danlu.training.objective import NllFunction


@OBJECTIVES.register
class GRPO(ObjectiveConfig):
    """Learn by trying: the model writes several answers to each prompt, and reward functions say which are better."""

    needs: ClassVar[str] = "prompt"
    is_online: ClassVar[bool] = True
    learning_rate_factor: ClassVar[float] = 0.1
    suites: ClassVar[tuple[str, ...]] = ("rewards", "retention")
    headlines: ClassVar[tuple[str, ...]] = ("reward",)
    type: Literal["grpo"] = "grpo"
    rewards: list[Annotated[SerializeAsAny[RewardConfig], REWARDS]] = Field(default=["rouge_l"], validate_default=True, min_length=1)
    """What an answer is worth: reward functions, whose scores are multiplied with their weights and added."""
    num_answers: int = Field(8, ge=2, le=256)
    """Answers to each prompt (the group). More give a steadier direction and take longer."""
    max_completion_tokens: int = Field(256, ge=1)
    """Longest answer. Taken from `data.max_seq_len`; the rest is for the prompt."""
    temperature: float = Field(1.0, gt=0, le=2)
    """Of drawing answers: lower is less varied. Answers that are all alike teach nothing."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw from the likeliest tokens that together have this probability."""
    beta: float = Field(0.0, ge=0)
    """Weight of the divergence from the model before training; 0 leaves it out (the paper uses 0.04). With method full it costs a second model."""
    epsilon: float = Field(0.2, gt=0, lt=1)
    """How far the probability of a token may fall, as a share, before a step stops pushing it."""
    epsilon_high: float | None = Field(None, gt=0)
    """How far it may rise; null is as far as it may fall (0.28 in DAPO)."""
    num_iterations: int = Field(1, ge=1, le=64)
    """Optimizer steps on the same answers."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What the distance from the group's mean is divided by: the standard deviation of the group, of the batch, or nothing."""
    loss_type: Literal["grpo", "dapo", "dr_grpo"] = "dapo"
    """Mean over tokens: of each answer, then over answers (`grpo`); of all answers (`dapo`); by the longest possible length (`dr_grpo`)."""
    num_validation_prompts: int = Field(64, ge=1)
    """Validation prompts that are answered (greedily) at each validation."""

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        names = [reward.type for reward in self.rewards]
        if len(set(names)) < len(names):
            raise ValueError(f"rewards has {names[0] if len(set(names)) == 1 else 'a function'} twice; give each reward function once")
        if not any(reward.weight for reward in self.rewards):
            raise ValueError("every reward has weight 0: nothing would be learnt; give one of them a weight")
        if self.epsilon_high is not None and self.num_iterations == 1:
            raise ValueError("epsilon_high has no effect with num_iterations 1: the first step on new answers is never clipped; raise num_iterations")
        return self

    @property
    def reserved_tokens(self) -> int:
        """Room for the answer."""
        return self.max_completion_tokens

    @property
    def num_repeats(self) -> int:
        """Steps on the same answers."""
        return self.num_iterations

    def encode(self, examples: Sequence[dict[str, Any]], renderer: ChatRenderer, max_seq_len: int) -> list[list[EncodedExample]]:
        """The prompt of each example; no token of it is trained on.

        Raises:
            DataError: a reward function compares with a reference answer that is not there.
        """
        import numpy as np

        from danlu.data.pack import EncodedExample
        from danlu.errors import DataError

        wanting = [reward.type for reward in self.rewards if reward.needs_answer]
        found = []
        for example in examples:
            if wanting and not example["answer"]:
                raise DataError(
                    f"line {example.get('line')} of the data has no reference answer",
                    why=f"the reward {wanting[0]} compares answers with one",
                    fix="add a column `answer`, or use rewards that need none (pattern, tags, json_object, length)",
                )
            ids = np.asarray(renderer.prompt_ids(example["messages"], example.get("tools")), np.uint32)
            found.append([EncodedExample(ids, np.zeros(len(ids), np.bool_))])
        return found

    def advantages(self, rewards_PG: np.ndarray) -> np.ndarray:
        """Distance of each reward from its group's mean, scaled [P, G]."""
        centred = rewards_PG - rewards_PG.mean(1, keepdims=True)
        if self.scale_rewards == "none":
            return centred
        spread = rewards_PG.std(1, ddof=1, keepdims=True) if self.scale_rewards == "group" else rewards_PG.std(ddof=1)
        scaled: np.ndarray = centred / (spread + 1e-4)
        return scaled

    def totals(self, sequences: Sequence[EncodedExample]) -> dict[str, float]:
        """Answers, and their tokens."""
        from danlu.training.objective import num_label_tokens

        return {"answers": max(1, len(sequences)), "tokens": max(1, num_label_tokens(sequences))}

    def loss(self, model: nn.Module, batch: PackedBatch, totals: Mapping[str, float], nll: NllFunction) -> tuple[Tensor, dict[str, Tensor]]:
        """Clipped ratio times advantage, token by token, negated; plus beta times the divergence from the reference."""
        import torch

        nll_L = nll(model, batch).double()
        old_L = nll_L.detach() if batch.old_nats_L is None else batch.old_nats_L.double()
        ratio_L = torch.exp(old_L - nll_L)
        advantage_L = batch.tags_N[batch.row_example_L]
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        clipped_L = ratio_L.clamp(1 - self.epsilon, 1 + high)
        losses_L = -torch.minimum(ratio_L * advantage_L, clipped_L * advantage_L)
        is_clipped_L = (ratio_L * advantage_L).detach() > (clipped_L * advantage_L).detach()
        numbers = {"clip_share": is_clipped_L.double().sum() / totals["tokens"]}
        if self.beta and batch.reference_nats_L is not None:
            difference_L = nll_L - batch.reference_nats_L.double()
            divergence_L = torch.exp(difference_L) - difference_L - 1
            losses_L = losses_L + self.beta * divergence_L
            numbers["kl"] = divergence_L.detach().sum() / totals["tokens"]
        if self.loss_type == "grpo":
            counts_N = torch.bincount(batch.row_example_L, minlength=len(batch.lengths)).clamp_min(1)
            return (losses_L / counts_N[batch.row_example_L]).sum() / totals["answers"], numbers
        return losses_L.sum() / (totals["tokens"] if self.loss_type == "dapo" else totals["answers"] * self.max_completion_tokens), numbers
