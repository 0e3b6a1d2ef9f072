"""Odds ratio preference optimisation: fine-tuning on the chosen answer and a preference over the rejected one, in one loss.

Shapes: N sequences of a batch, P pairs, L label tokens.
Reference: Hong et al. 2024, arXiv:2403.07691, eq. 3 (P as the mean over tokens), 4 (odds), 6 and 7. The likelihood term is
the mean over the chosen answers' tokens of the step; TRL's adds the prompt's tokens to it and averages by micro batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from danlu.recipe.base import OBJECTIVES, ObjectiveConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.data.chat import ChatRenderer
    from danlu.data.pack import EncodedExample
    from danlu.training.batch import PackedBatch
    from danlu.training.objective import NllFunction


@OBJECTIVES.register
class ORPO(ObjectiveConfig):
    """Learn the chosen answers and the preference in one go, from a base model, without a reference."""

    needs: ClassVar[str] = "preference"
    group_size: ClassVar[int] = 2
    learning_rate_factor: ClassVar[float] = 0.2
    suites: ClassVar[tuple[str, ...]] = ("preference", "heldout", "retention")
    headlines: ClassVar[tuple[str, ...]] = ("preference_accuracy",)
    validation_numbers: ClassVar[tuple[str, ...]] = ("reward_accuracy", "reward_margin")
    type: Literal["orpo"] = "orpo"
    weight: float = Field(0.1, gt=0)
    """Weight of the odds ratio beside the likelihood of the chosen answer (lambda in the paper)."""

    def encode(self, examples: Sequence[dict[str, Any]], renderer: ChatRenderer, max_seq_len: int) -> list[list[EncodedExample]]:
        """Two sequences of each example, chosen and rejected; their prompt is not trained on."""
        from danlu.training.objective import encode_pairs

        return encode_pairs(examples, renderer)

    def totals(self, sequences: Sequence[EncodedExample]) -> dict[str, float]:
        """Pairs, and label tokens of the chosen answers."""
        from danlu.training.objective import num_label_tokens

        return {"pairs": max(1, len(sequences) // 2), "chosen_tokens": max(1, num_label_tokens(sequences[0::2]))}

    def loss(self, model: nn.Module, batch: PackedBatch, totals: Mapping[str, float], nll: NllFunction) -> tuple[Tensor, dict[str, Tensor]]:
        """Nats per token of the chosen answers, plus the weighted mean over pairs of -log sigmoid(log odds ratio)."""
        import torch.nn.functional as F

        from danlu.training.objective import in_pairs, log_likelihoods, reward_numbers

        sums_N, counts_N = log_likelihoods(nll(model, batch), batch)
        means_N = sums_N / counts_N
        chosen_P, rejected_P = in_pairs(means_N - _log_of_one_minus_exp(means_N))
        likelihood = -in_pairs(sums_N)[0].sum() / totals["chosen_tokens"]
        ratio = -F.logsigmoid(chosen_P - rejected_P).sum() / totals["pairs"]
        numbers = reward_numbers(*in_pairs(self.weight * means_N), totals["pairs"]) | {"chosen_nll": likelihood.detach(), "odds_ratio_loss": ratio.detach()}
        return likelihood + self.weight * ratio, numbers


def _log_of_one_minus_exp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, without cancellation at either end; the smallest distance from 0 keeps it finite."""
    import torch

    x = x.clamp_max(-1e-12)
    is_near = x > -0.6931471805599453
    near, far = torch.where(is_near, x, -1.0), torch.where(is_near, -1.0, x)
    return torch.where(is_near, torch.log(-torch.expm1(near)), torch.log1p(-torch.exp(far)))
