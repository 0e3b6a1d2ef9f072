import math
from itertools import product

import numpy as np
import pytest

from danlu.evaluation import compare
from danlu.evaluation.compare import Paired
from danlu.evaluation.scorecard import retention_label, verdict_of

RANDOM = np.random.default_rng(7)
WEIGHT = RANDOM.integers(5, 60, 37).astype(float)
BASE = RANDOM.gamma(4, 0.7, 37) * WEIGHT
TUNED = BASE * RANDOM.normal(0.93, 0.15, 37)


def test_the_interval_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")

    def ratio(base: np.ndarray, tuned: np.ndarray, weight: np.ndarray, axis: int = -1) -> np.ndarray:
        return (tuned.sum(axis) - base.sum(axis)) / weight.sum(axis)

    expected = stats.bootstrap((BASE, TUNED, WEIGHT), ratio, paired=True, n_resamples=40_000, method="BCa", rng=np.random.default_rng(0)).confidence_interval
    low, high = Paired(BASE, TUNED, WEIGHT, seed=3, num_resamples=40_000).interval(compare.difference)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.02 * (expected.high - expected.low))


def test_resamples_equal_a_loop_over_the_same_draws() -> None:
    paired = Paired(BASE, TUNED, WEIGHT, seed=5, num_resamples=50)
    index = np.random.default_rng((5, 0)).integers(0, 37, (50, 37))
    expected = [(TUNED[row].sum() - BASE[row].sum()) / WEIGHT[row].sum() for row in index]
    np.testing.assert_allclose(paired.resamples(compare.difference), expected, rtol=1e-12)


def test_the_sign_flip_test_equals_enumeration() -> None:
    gain = TUNED[:10] - BASE[:10]
    extreme = [abs(np.dot(signs, gain)) >= abs(gain.sum()) - 1e-12 for signs in product((-1, 1), repeat=10)]
    found = Paired(BASE[:10], TUNED[:10], seed=1, num_resamples=100_000).p_value()
    assert found == pytest.approx(np.mean(extreme), abs=0.006)


def test_the_same_seed_gives_the_same_numbers() -> None:
    first, again, other = (Paired(BASE, TUNED, WEIGHT, seed=seed) for seed in (1, 1, 2))
    assert (first.interval(compare.relative), first.p_value()) == (again.interval(compare.relative), again.p_value())
    assert first.interval(compare.relative) != other.interval(compare.relative)


def test_perplexity_is_the_exponential_of_the_mean() -> None:
    paired = Paired(BASE, TUNED, WEIGHT, seed=0)
    found = compare.compare(paired, higher_is_better=False, tie_margin=0, statistic=compare.perplexity_difference, transform=compare.perplexity)
    assert found.base == pytest.approx(math.exp(BASE.sum() / WEIGHT.sum()))
    assert found.ci[0] is not None and found.ci[1] is not None and found.ci[0] < found.delta < found.ci[1]


def test_identical_models_differ_by_nothing() -> None:
    found = compare.compare(Paired(BASE, BASE, WEIGHT, seed=0), higher_is_better=False, tie_margin=1e-4)
    assert (found.delta, found.ci, found.p, found.wins, found.ties, found.losses) == (0.0, (0.0, 0.0), 1.0, 0, 37, 0)
    assert compare.label(found) == "no_difference"


def test_one_example_has_no_interval_and_proves_nothing() -> None:
    found = compare.compare(Paired([3.0], [1.0], seed=0), higher_is_better=False, tie_margin=0)
    assert (found.ci, found.standard_error, found.wins, compare.label(found)) == ((None, None), None, 1, "no_difference")


@pytest.mark.parametrize(("gain", "label"), [(0.8, "improved"), (1.25, "regressed")])
@pytest.mark.parametrize("higher_is_better", [False, True])
def test_clear_changes_are_called_by_their_direction(gain: float, label: str, higher_is_better: bool) -> None:
    tuned = BASE * (1 / gain if higher_is_better else gain)
    assert compare.label(compare.compare(Paired(BASE, tuned, WEIGHT, seed=0), higher_is_better=higher_is_better, tie_margin=0)) == label


def test_chance_is_rarely_called_a_difference() -> None:
    false_alarms = {15: 0, 40: 0}
    for seed in range(200):
        random = np.random.default_rng((99, seed))
        for count in false_alarms:
            weight = random.integers(10, 80, count)
            base, tuned = (weight * (2 + random.gamma(2, 0.2, count)) for _ in range(2))
            found = compare.compare(Paired(base, tuned, weight, seed=seed, num_resamples=2000), higher_is_better=False, tie_margin=1e-4)
            false_alarms[count] += compare.label(found) != "no_difference"
    assert max(false_alarms.values()) <= 14, false_alarms


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        random = np.random.default_rng((5, seed))
        base = random.gamma(3, 1, 40)
        low, high = Paired(base, base - 0.3 + random.normal(0, 0.5, 40), seed=seed, num_resamples=1000).interval(compare.difference)
        covered += low is not None and high is not None and low <= -0.3 <= high
    assert 0.88 * 200 <= covered <= 199


def test_a_change_of_the_detectable_size_is_found_four_times_out_of_five() -> None:
    random = np.random.default_rng(11)
    detectable = compare.minimal_detectable(0.5 / math.sqrt(60))
    assert detectable is not None
    found = 0
    for seed in range(150):
        base = random.gamma(3, 1, 60)
        tuned = base - detectable + random.normal(0, 0.5, 60)
        found += compare.label(compare.compare(Paired(base, tuned, seed=seed, num_resamples=1000), higher_is_better=False, tie_margin=0)) == "improved"
    assert 0.70 <= found / 150 <= 0.90


@pytest.mark.parametrize(
    ("rise", "low", "high", "label"),
    [
        (-0.05, -0.06, -0.04, "kept"),
        (0.01, 0.005, 0.015, "kept"),
        (0.015, -0.01, 0.04, "kept"),
        (0.03, 0.02, 0.04, "slightly_worse"),
        (0.03, -0.01, 0.07, "slightly_worse"),
        (0.12, 0.08, 0.16, "slightly_worse"),
        (0.2, 0.15, 0.25, "forgotten"),
        (0.0, None, None, "kept"),
        (None, None, None, "slightly_worse"),
    ],
)
def test_retention_labels(rise: float | None, low: float | None, high: float | None, label: str) -> None:
    assert retention_label(rise, low, high) == label


def test_the_verdict_says_so_when_little_could_be_seen() -> None:
    found = compare.compare(Paired(BASE[:6], BASE[:6] * 1.001, WEIGHT[:6], seed=0), higher_is_better=False, tie_margin=1e-4)
    verdict = verdict_of("nll_per_token", found.to_dict() | {"label": "no_difference", "minimal_detectable_delta": 0.2, "unit": "nats/token"})
    assert "No difference" in verdict["text"]["en"] and "cannot be told from chance" in verdict["text"]["en"] and "not conclusive" in verdict["text"]["en"]
    assert "无法证明" in verdict["text"]["zh"] and "结论不可靠" in verdict["text"]["zh"]
