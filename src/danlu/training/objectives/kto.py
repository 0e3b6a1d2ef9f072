"""Kahneman-Tversky optimisation: learn from answers that are marked as wanted or unwanted, without pairs.

In the token file every answer is followed by a mismatched one: its own prompt with the answer of the next example. From
the mismatched ones of a whole step comes z0, how far the model has drifted from the reference; no gradient passes it.

Shapes: N sequences of a batch.
Reference: Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8 and the estimate of z0 below it. Deviations: z0 is estimated over the
global batch, not over the micro batch, so that the micro batch never changes the loss; which answers are mismatched is
fixed when the data is tokenised (as in TRL), so that their reference likelihoods are computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from danlu.recipe.base import OBJECTIVES, ObjectiveConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.data.chat import ChatRenderer
    from danlu.data.pack import EncodedExample
    from danlu.training.batch import PackedBatch
    from danlu.training.objective import NllFunction


WANTED, UNWANTED, MEASURED = 1.0, -1.0, 0.0
"""Tags of sequences."""


@OBJECTIVES.register
class KTO(ObjectiveConfig):
    """Learn from answers marked good or bad, one by one; preference pairs are read as one of each."""

    needs: ClassVar[str] = "labelled"
    group_size: ClassVar[int] = 2
    has_reference: ClassVar[bool] = True
    learning_rate_factor: ClassVar[float] = 0.1
    suites: ClassVar[tuple[str, ...]] = ("preference", "heldout", "retention")
    headlines: ClassVar[tuple[str, ...]] = ("preference_accuracy", "label_separation")
    type: Literal["kto"] = "kto"
    beta: float = Field(0.1, gt=0)
    """Pull toward the model before training. Raise it when answers deteriorate, lower it when nothing changes."""
    desirable_weight: float = Field(1.0, gt=0)
    """Weight of wanted answers; with few of them raise it until weight times number is about equal on both sides."""
    undesirable_weight: float = Field(1.0, gt=0)
    """Weight of unwanted answers."""

    def encode(self, examples: Sequence[dict[str, Any]], renderer: ChatRenderer, max_seq_len: int) -> list[list[EncodedExample]]:
        """One sequence of each marked answer, tagged; a preference pair is one of each."""
        from dataclasses import replace

        answers = [answers_of(example) for example in examples]
        encoded = iter(
            renderer.encode([renderer.render_completion(e["messages"], m, e.get("tools")) for e, each in zip(examples, answers, strict=True) for m, _ in each])
        )
        return [[replace(next(encoded), tag=tag) for _, tag in each] for each in answers]

    def arrange(self, sequences: Sequence[EncodedExample], max_seq_len: int) -> Iterator[EncodedExample]:
        """Each sequence followed by its prompt with the next sequence's answer, cut to `max_seq_len`, which is only measured."""
        import numpy as np

        from danlu.data.pack import EncodedExample

        for position in range(len(sequences)):
            own, other = sequences[position], sequences[(position + 1) % len(sequences)]
            begin, other_begin = int(np.argmax(own.mask)), int(np.argmax(other.mask))
            ids = np.concatenate([own.ids[:begin], other.ids[other_begin:]])[:max_seq_len]
            mask = np.concatenate([own.mask[:begin], other.mask[other_begin:]])[:max_seq_len]
            yield own
            yield EncodedExample(ids, mask, MEASURED)

    def split(self, group: Sequence[EncodedExample]) -> tuple[list[EncodedExample], list[EncodedExample]]:
        """The marked answer, and the mismatched one that is only measured."""
        return [s for s in group if s.tag != MEASURED], [s for s in group if s.tag == MEASURED]

    def totals(self, sequences: Sequence[EncodedExample]) -> dict[str, float]:
        """Marked answers, by mark: the loss is the mean over all of them."""
        tags = [s.tag for s in sequences]
        return {"answers": max(1, len(tags) - tags.count(MEASURED)), "wanted": max(1, tags.count(WANTED)), "unwanted": max(1, tags.count(UNWANTED))}

    def measure(self, model: nn.Module, batch: PackedBatch, nll: NllFunction) -> dict[str, Tensor]:
        """Sum and number of the mismatched answers' log-ratios."""
        import torch

        from danlu.training.objective import log_likelihoods

        ratios_N = log_likelihoods(nll(model, batch), batch)[0] + batch.references_N
        return {"drift": ratios_N.sum(), "drift_answers": torch.tensor(float(len(ratios_N)))}

    def loss(self, model: nn.Module, batch: PackedBatch, totals: Mapping[str, float], nll: NllFunction) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over answers of weight x (1 - sigmoid(+-beta (log-ratio - z0)))."""
        import torch

        from danlu.training.objective import log_likelihoods

        ratios_N = log_likelihoods(nll(model, batch), batch)[0] + batch.references_N
        drift = max(0.0, totals.get("drift", 0.0) / totals.get("drift_answers", 1.0))
        is_wanted_N = batch.tags_N > 0
        sign_N = 2 * is_wanted_N.double() - 1
        weight_N = self.desirable_weight * is_wanted_N.double() + self.undesirable_weight * (~is_wanted_N).double()
        loss = (weight_N * (1 - torch.sigmoid(self.beta * sign_N * (ratios_N - drift)))).sum() / totals["answers"]
        rewards_N = self.beta * ratios_N.detach()
        numbers = {
            "reward_wanted": rewards_N[is_wanted_N].sum() / totals["wanted"],
            "reward_unwanted": rewards_N[~is_wanted_N].sum() / totals["unwanted"],
            "kl": torch.tensor(drift) * len(ratios_N) / totals["answers"],
        }
        return loss, numbers


def answers_of(example: dict[str, Any]) -> list[tuple[list[dict[str, Any]], float]]:
    """(messages of the answer, tag) of a marked answer, or of both answers of a preference pair."""
    if "chosen" in example:
        return [(example["chosen"], WANTED), (example["rejected"], UNWANTED)]
    return [(example["completion"], WANTED if example["label"] else UNWANTED)]
