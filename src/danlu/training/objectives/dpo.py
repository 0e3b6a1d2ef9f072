"""Direct preference optimisation and its kin: prefer the chosen answer, measured against the model before training.

Shapes: N sequences of a batch, P pairs.
Reference: Rafailov et al. 2023, arXiv:2305.18290, eq. 7 (`sigmoid`) and appendix on label noise (`label_smoothing`);
Azar et al. 2023, arXiv:2310.12036, eq. 17 (`ipo`); Zhao et al. 2023, arXiv:2305.10425, eq. 4 (`hinge`, on DPO's margin);
Chowdhury et al. 2024, arXiv:2403.00409, eq. 12 (`robust`). As in the experiments of its authors (and in TRL), `ipo` takes
the mean log-likelihood per token instead of the sum, so that length does not set the scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from danlu.recipe.base import OBJECTIVES, ObjectiveConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.data.chat import ChatRenderer
    from danlu.data.pack import EncodedExample
    from danlu.training.batch import PackedBatch
    from danlu.training.objective import NllFunction


@OBJECTIVES.register
class DPO(ObjectiveConfig):
    """Learn from preference pairs: the chosen answer becomes likelier than the rejected one, relative to the model before training."""

    needs: ClassVar[str] = "preference"
    group_size: ClassVar[int] = 2
    has_reference: ClassVar[bool] = True
    learning_rate_factor: ClassVar[float] = 0.1
    suites: ClassVar[tuple[str, ...]] = ("preference", "heldout", "retention")
    headlines: ClassVar[tuple[str, ...]] = ("preference_accuracy",)
    validation_numbers: ClassVar[tuple[str, ...]] = ("reward_accuracy", "reward_margin")
    type: Literal["dpo"] = "dpo"
    beta: float = Field(0.1, gt=0)
    """Pull toward the model before training. Raise it when answers deteriorate, lower it when nothing changes."""
    loss_type: Literal["sigmoid", "ipo", "hinge", "robust"] = "sigmoid"
    """`sigmoid` is DPO; `ipo` aims at a fixed margin and overfits less; `hinge` stops at a margin; `robust` allows for wrong labels."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of pairs whose label is wrong; for `sigmoid` and `robust`."""

    @model_validator(mode="after")
    def _smoothing_has_an_effect(self) -> Self:
        if self.label_smoothing and self.loss_type not in ("sigmoid", "robust"):
            raise ValueError(f"label_smoothing has no effect with loss_type {self.loss_type}; remove it, or use loss_type sigmoid or robust")
        if self.loss_type == "robust" and not self.label_smoothing:
            raise ValueError("loss_type robust needs label_smoothing, the share of wrong labels; set it, e.g. to 0.1, or use loss_type sigmoid")
        return self

    def encode(self, examples: Sequence[dict[str, Any]], renderer: ChatRenderer, max_seq_len: int) -> list[list[EncodedExample]]:
        """Two sequences of each example, chosen and rejected; their prompt is not trained on."""
        from danlu.training.objective import encode_pairs

        return encode_pairs(examples, renderer)

    def totals(self, sequences: Sequence[EncodedExample]) -> dict[str, float]:
        """Pairs: the loss is their mean."""
        return {"pairs": max(1, len(sequences) // 2)}

    def loss(self, model: nn.Module, batch: PackedBatch, totals: Mapping[str, float], nll: NllFunction) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over pairs; the rewards that are logged are beta times the log-ratio to the reference."""
        from danlu.training.objective import in_pairs, log_likelihoods, reward_numbers

        sums_N, counts_N = log_likelihoods(nll(model, batch), batch)
        ratios_N = sums_N + batch.references_N
        chosen_P, rejected_P = in_pairs(ratios_N / counts_N if self.loss_type == "ipo" else ratios_N)
        numbers = reward_numbers(self.beta * chosen_P, self.beta * rejected_P, totals["pairs"])
        return self.pair_losses(chosen_P - rejected_P).sum() / totals["pairs"], numbers

    def pair_losses(self, margin_P: Tensor) -> Tensor:
        """Loss of each pair from the difference of its log-ratios [P]."""
        import torch.nn.functional as F

        if self.loss_type == "ipo":
            return (margin_P - 1 / (2 * self.beta)) ** 2
        if self.loss_type == "hinge":
            return F.relu(1 - self.beta * margin_P)
        right_P, wrong_P = -F.logsigmoid(self.beta * margin_P), -F.logsigmoid(-self.beta * margin_P)
        if self.loss_type == "robust":
            return ((1 - self.label_smoothing) * right_P - self.label_smoothing * wrong_P) / (1 - 2 * self.label_smoothing)
        return (1 - self.label_smoothing) * right_P + self.label_smoothing * wrong_P
