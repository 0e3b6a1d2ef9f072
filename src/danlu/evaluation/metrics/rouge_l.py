"""ROUGE-L: the longest common subsequence of words.

Chinese is compared by character, other scripts by word (`danlu.data.words.words`); the stock tokenizer of
the usual packages throws Chinese away and returns 0.

Reference: Lin 2004, ROUGE: a package for automatic evaluation of summaries, section 3.1 with beta = 1.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from danlu.data.words import subsequence_f1
from danlu.recipe.base import METRICS, MetricConfig


@METRICS.register
class RougeL(MetricConfig):
    """F1 of the longest common subsequence between prediction and reference."""

    type: Literal["rouge_l"] = "rouge_l"
    version: ClassVar[str] = "1"
    unit: ClassVar[str] = "0-1"

    def score(self, prediction: str, reference: str) -> float:
        """Return the F1 in [0, 1]; 1 when both are empty, 0 when one is."""
        return subsequence_f1(prediction, reference)
