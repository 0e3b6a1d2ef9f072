"""Exact match: is the answer the reference, apart from how it is typed?"""

from __future__ import annotations

from typing import ClassVar, Literal

from danlu.data.words import is_same
from danlu.recipe.base import METRICS, MetricConfig


@METRICS.register
class ExactMatch(MetricConfig):
    """1 when prediction and reference are equal after NFKC, lower case, white space and closing punctuation."""

    type: Literal["exact_match"] = "exact_match"
    version: ClassVar[str] = "1"
    unit: ClassVar[str] = "0-1"

    def score(self, prediction: str, reference: str) -> float:
        """Return 0.0 or 1.0; two texts of punctuation only are compared with their punctuation."""
        return float(is_same(prediction, reference))
