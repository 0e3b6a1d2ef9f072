"""BLEU of single answers, with the tokenizer that fits the language of the reference.

Reference: Papineni et al. 2002; computed by sacrebleu (Post 2018, arXiv:1804.08771).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar, Literal

from danlu.data.words import is_mostly_chinese
from danlu.errors import MissingExtraError
from danlu.recipe.base import METRICS, MetricConfig


@METRICS.register
class Bleu(MetricConfig):
    """Sentence BLEU-4 with effective order and exponential smoothing; tokenizer `zh` for Chinese references, else `13a`."""

    type: Literal["bleu"] = "bleu"
    version: ClassVar[str] = "1"
    unit: ClassVar[str] = "0-100"

    def score(self, prediction: str, reference: str) -> float:
        """Return BLEU in [0, 100]; 100 when both are empty, 0 when one is."""
        prediction, reference = prediction.strip(), reference.strip()
        if not prediction or not reference:
            return 100.0 if prediction == reference else 0.0
        return float(_scorer("zh" if is_mostly_chinese(reference) else "13a").sentence_score(prediction, [reference]).score)


@lru_cache
def _scorer(tokenizer: str) -> Any:
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise MissingExtraError(
            "the metric bleu needs sacrebleu",
            why="it is not installed",
            fix="pip install 'danlu[eval]', or take bleu out of evaluation.metrics",
        ) from error

    return BLEU(tokenize=tokenizer, effective_order=True)
