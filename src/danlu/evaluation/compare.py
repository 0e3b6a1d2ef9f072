"""Is the difference between base and tuned real? Paired bootstrap intervals and a sign-flip test over examples.

Every number is a function of sums over examples: total of the base, total of the tuned model, total weight
(tokens, bytes, or the number of examples). So a resample is three sums, and token-weighted ratios are exact.
Knows nothing of models or files.

Reference: Efron 1987 (BCa intervals); Phipson & Smyth 2010, arXiv:1603.05766 (p = (k + 1) / (n + 1)).
Shapes: N examples, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import exp
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array, Array, Array], Array]
"""(base sums, tuned sums, weight sums) -> statistic, elementwise."""

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95
ALPHA = 0.05
_CHUNK = 4_000_000
_NORMAL = NormalDist()


def difference(base: Array, tuned: Array, weight: Array) -> Array:
    """Change of the weighted mean."""
    return (tuned - base) / weight


def relative(base: Array, tuned: Array, weight: Array) -> Array:
    """Change as a share of the base."""
    return tuned / base - 1


def perplexity_difference(base: Array, tuned: Array, weight: Array) -> Array:
    """Change of exp(mean)."""
    return np.exp(tuned / weight) - np.exp(base / weight)


@dataclass(frozen=True)
class Comparison:
    """Base against tuned on the same examples. `ci` is the 95 % interval of `delta`; None where one example tells nothing."""

    base: float
    tuned: float
    delta: float
    relative: float | None
    ci: tuple[float | None, float | None]
    relative_ci: tuple[float | None, float | None]
    p: float
    standard_error: float | None
    num_examples: int
    wins: int
    ties: int
    losses: int
    higher_is_better: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = asdict(self)
        return values | {"ci": list(self.ci), "relative_ci": list(self.relative_ci)}


class Paired:
    """Totals of base and tuned per example (with weights), and their resamples; all draws follow from `seed`."""

    def __init__(self, base: Any, tuned: Any, weight: Any = None, *, seed: int, num_resamples: int = NUM_RESAMPLES) -> None:
        self.base, self.tuned = np.asarray(base, np.float64), np.asarray(tuned, np.float64)
        self.weight = np.ones_like(self.base) if weight is None else np.asarray(weight, np.float64)
        assert len(self.base) == len(self.tuned) == len(self.weight) > 0
        self.seed, self.num_resamples = seed, num_resamples
        self._sums: tuple[Array, Array, Array] | None = None

    def value(self, statistic: Statistic) -> float:
        """The statistic of the examples themselves."""
        return float(statistic(*(np.asarray(x.sum()) for x in (self.base, self.tuned, self.weight))))

    def resamples(self, statistic: Statistic) -> Array:
        """The statistic of each resample [R]."""
        if self._sums is None:
            self._sums = self._draw()
        return statistic(*self._sums)

    def interval(self, statistic: Statistic) -> tuple[float | None, float | None]:
        """BCa interval at CONFIDENCE; (None, None) for a single example or where the statistic is undefined."""
        count = len(self.base)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            value, draws = self.value(statistic), self.resamples(statistic)
            left_out = statistic(*(x.sum() - x for x in (self.base, self.tuned, self.weight))) if count > 1 else np.array([np.nan])
        if count < 2 or not (np.isfinite(value) and np.isfinite(draws).all() and np.isfinite(left_out).all()):
            return None, None
        if np.ptp(draws) <= 1e-12 * max(1.0, abs(value)):
            return float(draws.min()), float(draws.max())
        return _bca(value, np.sort(draws), left_out)

    def p_value(self) -> float:
        """Two-sided sign-flip test of "base and tuned are exchangeable in every example"."""
        gain = self.tuned - self.base
        observed, tolerance = abs(gain.sum()), 1e-12 * np.abs(gain).sum()
        generator, extreme, drawn = np.random.default_rng((self.seed, 1)), 0, 0
        while drawn < self.num_resamples:
            rows = min(self.num_resamples - drawn, max(1, _CHUNK // len(gain)))
            bits = np.unpackbits(np.frombuffer(generator.bytes(rows * (-(-len(gain) // 8))), np.uint8).reshape(rows, -1), axis=1, count=len(gain))
            sums = 2 * (bits @ gain) - gain.sum()
            extreme += int(np.count_nonzero(np.abs(sums) >= observed - tolerance))
            drawn += rows
        return (extreme + 1) / (self.num_resamples + 1)

    def _draw(self) -> tuple[Array, Array, Array]:
        generator, count = np.random.default_rng((self.seed, 0)), len(self.base)
        sums = np.empty((3, self.num_resamples))
        rows = max(1, _CHUNK // count)
        for start in range(0, self.num_resamples, rows):
            index_RN = generator.integers(0, count, (min(rows, self.num_resamples - start), count))
            for row, values in enumerate((self.base, self.tuned, self.weight)):
                sums[row, start : start + rows] = values[index_RN].sum(1)
        return sums[0], sums[1], sums[2]


def _bca(value: float, draws: Array, left_out: Array) -> tuple[float, float]:
    """Bias-corrected and accelerated interval; `draws` sorted, `left_out` the jackknife values."""
    below = (np.count_nonzero(draws < value) + np.count_nonzero(draws <= value)) / (2 * len(draws))
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / len(draws)), 1 - 0.5 / len(draws)))
    deviation = left_out.mean() - left_out
    spread = float((deviation**2).sum())
    acceleration = float((deviation**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    bounds = []
    for tail in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2):
        z = bias + _NORMAL.inv_cdf(tail)
        share = _NORMAL.cdf(bias + z / (1 - acceleration * z))
        bounds.append(float(np.quantile(draws, share)))
    return bounds[0], bounds[1]


def compare(
    paired: Paired,
    *,
    higher_is_better: bool,
    tie_margin: float,
    statistic: Statistic = difference,
    p: float | None = None,
    transform: Callable[[float], float] = float,
) -> Comparison:
    """Compare weighted means (after `transform`); an example is a tie when its own means differ by at most `tie_margin`."""
    base, tuned = (float(x.sum() / paired.weight.sum()) for x in (paired.base, paired.tuned))
    gain = (paired.tuned - paired.base) / np.maximum(paired.weight, 1) * (1 if higher_is_better else -1)
    with np.errstate(over="ignore", invalid="ignore"):
        draws = paired.resamples(statistic)
    is_known = len(paired.base) > 1 and bool(np.isfinite(draws).all())
    has_relative = statistic is difference and base > 0
    return Comparison(
        base=transform(base),
        tuned=transform(tuned),
        delta=transform(tuned) - transform(base),
        relative=transform(tuned) / transform(base) - 1 if base > 0 or statistic is not difference else None,
        ci=paired.interval(statistic),
        relative_ci=paired.interval(relative) if has_relative else (None, None),
        p=paired.p_value() if p is None else p,
        standard_error=float(draws.std(ddof=1)) if is_known else None,
        num_examples=len(gain),
        wins=int(np.count_nonzero(gain > tie_margin)),
        ties=int(np.count_nonzero(np.abs(gain) <= tie_margin)),
        losses=int(np.count_nonzero(gain < -tie_margin)),
        higher_is_better=higher_is_better,
    )


def perplexity(nats: float) -> float:
    """exp(nats per token); infinite where that overflows."""
    return exp(nats) if nats < 700 else float("inf")


def minimal_detectable(standard_error: float | None) -> float | None:
    """Smallest true change that a test at ALPHA would find four times out of five: (z(1 - alpha/2) + z(0.8)) standard errors."""
    if standard_error is None:
        return None
    return (_NORMAL.inv_cdf(1 - ALPHA / 2) + _NORMAL.inv_cdf(0.8)) * standard_error


def label(comparison: Comparison) -> str:
    """`improved`, `regressed` or `no_difference`: both the interval and the test must speak."""
    low, high = comparison.ci
    if low is None or high is None or comparison.p >= ALPHA or low <= 0 <= high:
        return "no_difference"
    return "improved" if (low > 0) == comparison.higher_is_better else "regressed"
