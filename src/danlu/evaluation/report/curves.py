"""The curves of a run out of metrics.jsonl, thinned to what a picture can show."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from danlu.files import read_jsonl

Point = tuple[float, float]
"""(step, value)."""
MAX_POINTS = 600


@dataclass
class Curves:
    """Series over optimizer steps. Losses in nats per token."""

    train: list[Point] = field(default_factory=list)
    validation: list[Point] = field(default_factory=list)
    learning_rate: list[Point] = field(default_factory=list)
    tokens_per_second: list[Point] = field(default_factory=list)
    peak_memory_bytes: int | None = None

    def median_tokens_per_second(self) -> float | None:
        """Middle speed of all steps."""
        return round(median(speed for _, speed in self.tokens_per_second), 1) if self.tokens_per_second else None


def read_curves(path: Path) -> Curves:
    """Read metrics.jsonl; a missing file gives empty curves."""
    curves = Curves()
    for row in read_jsonl(path):
        step = row.get("step")
        if step is None:
            continue
        for key, series in (
            ("loss", curves.train),
            ("validation_loss", curves.validation),
            ("learning_rate", curves.learning_rate),
            ("tokens_per_second", curves.tokens_per_second),
        ):
            if row.get(key) is not None:
                series.append((step, row[key]))
        if row.get("peak_memory_bytes"):
            curves.peak_memory_bytes = max(curves.peak_memory_bytes or 0, row["peak_memory_bytes"])
    return curves


def thinned(points: list[Point], limit: int = MAX_POINTS) -> list[Point]:
    """At most `limit` points: means of equal stretches, the last point kept as it is."""
    if len(points) <= limit:
        return points
    size = len(points) / limit
    groups = [points[int(i * size) : int((i + 1) * size)] for i in range(limit)]
    means = [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups if g]
    return [*means[:-1], points[-1]]


def smoothed(points: list[Point]) -> list[Point]:
    """Centred moving mean over a twentieth of the run (at least 3 steps each side), narrower towards the ends."""
    reach = max(3, len(points) // 40)
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    result = []
    for i, (step, _) in enumerate(points):
        half = min(reach, i, len(points) - 1 - i)
        result.append((step, (sums[i + half + 1] - sums[i - half]) / (2 * half + 1)))
    return result
