"""The last number of the answer is that of the reference."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from danlu.recipe.base import REWARDS, RewardConfig

NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")


@REWARDS.register
class NumberReward(RewardConfig):
    """1 when the last number in the completion equals the last one in the reference (`#### 72` and `1,234.50` are read)."""

    type: Literal["number"] = "number"
    needs_answer: ClassVar[bool] = True
    tolerance: float = Field(1e-6, ge=0)
    """Largest difference, as a share of the reference (absolute where that is 0)."""

    def score(self, completion: str, answer: str | None, columns: Mapping[str, Any]) -> float:
        """Return 0.0 or 1.0; 0 without a number."""
        found, wanted = last_number(completion), last_number(answer or "")
        if found is None or wanted is None:
            return 0.0
        return float(abs(found - wanted) <= self.tolerance * (abs(wanted) or 1.0))


def last_number(text: str) -> float | None:
    """The last number in `text`; full-width digits and thousands separators are read."""
    matches = NUMBER.findall(unicodedata.normalize("NFKC", text))
    return float(matches[-1].replace(",", "")) if matches else None
