"""What the coach says: a stable name, how bad it is, what was seen, why, and the settings that change it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]
"""`error`: the result is of no use. `warning`: it is worse than it could be. `info`: worth knowing."""
Text = tuple[str, str]
"""(English, Chinese)."""


@dataclass(frozen=True)
class Diagnosis:
    """One thing that is wrong with a run."""

    name: str
    """Stable name, e.g. `learning_rate_too_high`."""
    severity: Severity
    what: Text
    """What was seen, in numbers."""
    why: Text
    """The cause."""
    fix: Text
    """What to do."""
    evidence: dict[str, float]
    """The numbers it rests on."""
    changes: dict[str, Any]
    """Recipe settings by dotted path, with the value to try next; empty when no setting helps."""

    @property
    def en(self) -> str:
        """All of it in English."""
        return f"{self.what[0]} {self.why[0]} {self.fix[0]}"

    @property
    def zh(self) -> str:
        """All of it in Chinese."""
        return self.what[1] + self.why[1] + self.fix[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {key: dict(zip(("en", "zh"), getattr(self, key), strict=True)) for key in ("what", "why", "fix")} | {"en": self.en, "zh": self.zh}


def two_digits(value: float) -> float:
    """Round to two significant digits: a value to try, not one that was measured."""
    return float(f"{value:.2g}")
