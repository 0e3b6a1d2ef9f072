"""Does an exported model behave like the trained one? The same logits within a stated bound, the same greedy tokens.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

BOUNDS = {"float32": 1e-3, "bfloat16": 6e-2, "int8": 6e-2}
"""Largest difference of a logit, as a share of the largest logit, by the number format of the export; `int8` where the
trained model has 8-bit layers, which round their inputs too and so differ from the same weights in an ordinary model."""
NUM_NEW_TOKENS = 32


@dataclass(frozen=True)
class Verification:
    """What the comparison found."""

    num_prompts: int
    max_difference: float
    """Largest difference of a logit as a share of the largest logit."""
    bound: float
    num_different_tokens: int
    """Greedy tokens that differ although the trained model clearly preferred one (beyond the bound)."""

    @property
    def passed(self) -> bool:
        """Whether the export may be kept."""
        return self.max_difference <= self.bound and self.num_different_tokens == 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for verification.json."""
        return {**asdict(self), "passed": self.passed, "num_new_tokens": NUM_NEW_TOKENS}


def compare(trained: PreTrainedModel, exported: PreTrainedModel, prompts: Sequence[Sequence[int]], *, dtype: str) -> Verification:
    """Compare logits on every prompt and its greedy continuation, token by token; of reward models the score of each prompt.

    Both models read the trained model's own continuation, so one difference is not counted again at each later token.
    """
    import torch

    from danlu.models.structure import is_reward_model
    from danlu.models.virtual import generate_rows

    bound, worst, different = BOUNDS[dtype], 0.0, 0
    is_score = is_reward_model(trained.get_base_model() if hasattr(trained, "get_base_model") else trained)
    with torch.inference_mode():
        for prompt in prompts:
            ids = torch.tensor([list(prompt)], device=trained.device)
            settings = {"max_new_tokens": NUM_NEW_TOKENS, "do_sample": False, "temperature": None, "top_p": None, "top_k": None}
            continued = ids if is_score else generate_rows(trained, ids, torch.ones_like(ids), **settings)
            ours = trained(input_ids=continued).logits[0].float()
            theirs = exported(input_ids=continued.to(exported.device)).logits[0].float().to(ours.device)
            if is_score:
                difference = float((ours - theirs).abs().max()) / max(1.0, float(ours.abs().max()))
                worst = max(worst, difference if math.isfinite(difference) else math.inf)
                continue
            largest = float(ours.abs().max())
            difference = float((ours - theirs).abs().max()) / largest
            worst = max(worst, difference if math.isfinite(difference) else math.inf)
            different += _clear_differences(ours, theirs, bound * largest)
    return Verification(len(prompts), worst, bound, different)


def _clear_differences(ours_TV: Tensor, theirs_TV: Tensor, margin: float) -> int:
    top2 = ours_TV.topk(2, -1).values
    is_clear = (top2[:, 0] - top2[:, 1]) > 2 * margin
    return int(((ours_TV.argmax(-1) != theirs_TV.argmax(-1)) & is_clear).sum())
