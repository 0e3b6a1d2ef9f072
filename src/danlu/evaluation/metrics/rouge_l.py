"""ROUGE-L: the longest common subsequence of words.

Chinese is compared by character, other scripts by word (`danlu.data.words.words`); the stock tokenizer of
the usual packages throws Chinese away and returns 0.

Reference: Lin 2004, ROUGE: a package for automatic evaluation of summaries, section 3.1 with beta = 1. The
subsequence is found with the bit-parallel algorithm of Hyyro 2004.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from danlu.data.words import words
from danlu.recipe.base import METRICS, MetricConfig


@METRICS.register
class RougeL(MetricConfig):
    """F1 of the longest common subsequence between prediction and reference."""

    type: Literal["rouge_l"] = "rouge_l"
    version: ClassVar[str] = "1"
    unit: ClassVar[str] = "0-1"

    def score(self, prediction: str, reference: str) -> float:
        """Return the F1 in [0, 1]; 1 when both are empty, 0 when one is."""
        left, right = words(prediction), words(reference)
        if not left or not right:
            return float(left == right)
        return 2 * lcs_length(left, right) / (len(left) + len(right))


def lcs_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    positions: dict[str, int] = {}
    for index, word in enumerate(left):
        positions[word] = positions.get(word, 0) | 1 << index
    everything = (1 << len(left)) - 1
    unmatched = everything
    for word in right:
        hits = unmatched & positions.get(word, 0)
        unmatched = ((unmatched + hits) | (unmatched - hits)) & everything
    return len(left) - unmatched.bit_count()
