"""chrF: character n-grams in common; needs no words, so it is the same for every language.

Reference: Popovic 2015; computed by sacrebleu with its defaults (character order 6, word order 0, beta 2).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar, Literal

from danlu.errors import MissingExtraError
from danlu.recipe.base import METRICS, MetricConfig


@METRICS.register
class ChrF(MetricConfig):
    """Sentence chrF2."""

    type: Literal["chrf"] = "chrf"
    version: ClassVar[str] = "1"
    unit: ClassVar[str] = "0-100"

    def score(self, prediction: str, reference: str) -> float:
        """Return chrF in [0, 100]; 100 when both are empty, 0 when one is."""
        prediction, reference = prediction.strip(), reference.strip()
        if not prediction or not reference:
            return 100.0 if prediction == reference else 0.0
        return float(_scorer().sentence_score(prediction, [reference]).score)


@lru_cache
def _scorer() -> Any:
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise MissingExtraError(
            "the metric chrf needs sacrebleu",
            why="it is not installed",
            fix="pip install 'danlu[eval]', or take chrf out of evaluation.metrics",
        ) from error

    return CHRF()
