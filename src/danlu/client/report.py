"""The proof of a run, with its verdict in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Verdict:
    """Whether the tuned model is better than the base, by how much, and how sure that is."""

    label: Literal["improved", "no_difference", "regressed"]
    metric: str
    """The metric that it rests on."""
    base: float
    tuned: float
    delta: float
    """tuned - base, in the metric's unit."""
    interval: tuple[float | None, float | None]
    """95 % bootstrap interval of `delta`."""
    p: float
    """Of the paired permutation test."""
    text: dict[str, str]
    """The same in sentences, by language (`en`, `zh`)."""

    @classmethod
    def of(cls, content: dict[str, Any]) -> Verdict:
        """From the `verdict` of report.json."""
        low, high = content["ci"]
        same = {name: content[name] for name in ("label", "metric", "base", "tuned", "delta", "p", "text")}
        return cls(interval=(low, high), **same)

    def __str__(self) -> str:
        low, high = self.interval
        interval = "" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]"
        p = f"p = {self.p:.3f}" if self.p >= 0.001 else "p < 0.001"
        return f"{self.label.replace('_', ' ')}, {self.delta:+.3f} {self.metric}{interval}, {p}"


@dataclass(frozen=True)
class Report:
    """What was measured of a run."""

    content: dict[str, Any]
    """report.json, whole."""

    @property
    def verdict(self) -> Verdict | None:
        """None where nothing was evaluated."""
        found = self.content.get("verdict")
        return Verdict.of(found) if found else None

    @property
    def retention(self) -> str | None:
        """Whether general ability was `kept`, `slightly_worse` or `forgotten`; None where it was not measured."""
        found = self.content.get("retention")
        return found.get("label") if found else None

    @property
    def warnings(self) -> list[dict[str, Any]]:
        """What spoils the proof."""
        return list(self.content.get("warnings") or [])
