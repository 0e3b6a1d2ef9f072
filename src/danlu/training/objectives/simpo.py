"""Simple preference optimisation: the chosen answer's mean log-likelihood above the rejected one's by a margin, without a reference.

Shapes: N sequences of a batch, P pairs.
Reference: Meng et al. 2024, arXiv:2405.14734, eq. 6.
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
class SimPO(ObjectiveConfig):
    """Learn from preference pairs by mean log-likelihood per token: no reference model, and no gain from length."""

    needs: ClassVar[str] = "preference"
    group_size: ClassVar[int] = 2
    learning_rate_factor: ClassVar[float] = 0.1
    suites: ClassVar[tuple[str, ...]] = ("preference", "heldout", "retention")
    headlines: ClassVar[tuple[str, ...]] = ("preference_accuracy",)
    validation_numbers: ClassVar[tuple[str, ...]] = ("reward_accuracy", "reward_margin")
    type: Literal["simpo"] = "simpo"
    beta: float = Field(2.0, gt=0)
    """Scale of the difference of mean log-likelihoods; the paper uses 2.0 to 2.5."""
    gamma: float = Field(1.0, ge=0)
    """Margin that is aimed at, on the scale of beta; the paper uses 0.3 to 1.6."""

    def encode(self, examples: Sequence[dict[str, Any]], renderer: ChatRenderer, max_seq_len: int) -> list[list[EncodedExample]]:
        """Two sequences of each example, chosen and rejected; their prompt is not trained on."""
        from danlu.training.objective import encode_pairs

        return encode_pairs(examples, renderer)

    def totals(self, sequences: Sequence[EncodedExample]) -> dict[str, float]:
        """Pairs: the loss is their mean."""
        return {"pairs": max(1, len(sequences) // 2)}

    def loss(self, model: nn.Module, batch: PackedBatch, totals: Mapping[str, float], nll: NllFunction) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over pairs of -log sigmoid(beta (mean chosen - mean rejected) - gamma)."""
        import torch.nn.functional as F

        from danlu.training.objective import in_pairs, log_likelihoods, reward_numbers

        sums_N, counts_N = log_likelihoods(nll(model, batch), batch)
        chosen_P, rejected_P = in_pairs(self.beta * sums_N / counts_N)
        loss = -F.logsigmoid(chosen_P - rejected_P - self.gamma).sum() / totals["pairs"]
        return loss, reward_numbers(chosen_P, rejected_P, totals["pairs"])
