"""Splits: shares, groups, seeds, and files too small to split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.data.split import TRAIN, split_rows


def hashes(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 2**63, count).astype(np.uint64)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.floats(0, 0.45), st.floats(0, 0.45), st.integers(0, 2**63 - 1))
def test_groups_never_straddle_and_shares_are_never_exceeded(members: list[int], validation: float, test: float, seed: int) -> None:
    groups = np.asarray(members)
    split = split_rows(hashes(len(groups)), groups, validation=validation, test=test, seed=seed)

    assert all(len(set(split.places[groups == group].tolist())) == 1 for group in set(members))
    assert split.counts == tuple(np.bincount(split.places, minlength=3).tolist())
    assert split.counts[TRAIN] >= 1
    assert split.counts[1] <= round(len(groups) * validation) and split.counts[2] <= round(len(groups) * test)


@pytest.mark.parametrize(("count", "expected"), [(1, (1, 0, 0)), (2, (2, 0, 0)), (5, (5, 0, 0)), (10, (8, 1, 1)), (1000, (800, 100, 100))])
def test_single_rows_fill_their_shares_exactly(count: int, expected: tuple[int, int, int]) -> None:
    split = split_rows(hashes(count), np.arange(count), validation=0.1, test=0.1, seed=0)

    assert split.counts == expected


def test_the_order_of_rows_and_other_rows_do_not_decide() -> None:
    rows = hashes(200)
    order = np.random.default_rng(2).permutation(200)
    groups = np.arange(200) // 2

    one = split_rows(rows, groups, validation=0.2, test=0.2, seed=3).places
    other = split_rows(rows[order], groups[order], validation=0.2, test=0.2, seed=3).places

    assert np.array_equal(one[order], other)


def test_another_seed_is_another_split() -> None:
    splits = [split_rows(hashes(100), np.arange(100), validation=0.2, test=0.2, seed=seed).places.tolist() for seed in (0, 0, 1)]

    assert splits[0] == splits[1] != splits[2]


def test_a_group_larger_than_a_share_is_trained_on() -> None:
    groups = np.asarray([0] * 50 + list(range(1, 51)))

    split = split_rows(hashes(100), groups, validation=0.1, test=0.1, seed=0)

    assert set(split.places[:50].tolist()) == {TRAIN}
    assert split.counts == (80, 10, 10)
