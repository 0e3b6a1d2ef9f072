"""Which examples are trained on and which are held out: seeded, by group, so that no duplicate straddles.

The place of a group depends on the seed and its content only, not on where its rows stand in the file.
"""

from dataclasses import dataclass

import numpy as np

TRAIN, VALIDATION, TEST = 0, 1, 2
NAMES = ("train", "validation", "test")
WORDS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
"""What a column of a data file may call the splits."""
Array = np.ndarray


@dataclass(frozen=True)
class Split:
    """The split of each row (TRAIN, VALIDATION or TEST), and how many each got."""

    places: Array
    counts: tuple[int, int, int]


def split_rows(hashes: Array, groups: Array, *, validation: float, test: float, seed: int) -> Split:
    """Split rows with content `hashes` (uint64) and group labels by shares, to the nearest whole group.

    Groups are visited in an order drawn from the seed: each goes to test while it fits into its share, then to
    validation, else to training. A group larger than a held-out share is thus always trained on. Training gets
    at least one group.
    """
    num_rows = len(hashes)
    _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    keys = np.full(len(sizes), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(keys, inverse, shuffled(hashes, seed))
    room_test, room_validation = round(num_rows * test), round(num_rows * validation)
    places_by_group = np.zeros(len(sizes), np.int8)
    num_trained = num_rows
    for group in np.argsort(keys, kind="stable"):
        size = int(sizes[group])
        if size <= room_test and size < num_trained:
            places_by_group[group], room_test = TEST, room_test - size
        elif size <= room_validation and size < num_trained:
            places_by_group[group], room_validation = VALIDATION, room_validation - size
        else:
            continue
        num_trained -= size
        if not room_test and not room_validation:
            break
    places = places_by_group[inverse]
    counts = np.bincount(places, minlength=3)
    return Split(places, (int(counts[0]), int(counts[1]), int(counts[2])))


def straddling(told: Array, labels: Array) -> Array:
    """Which rows are not to be used where they were put, because a row with the same label was put into a later split (test before validation before train)."""
    _, inverse = np.unique(labels, return_inverse=True)
    last = np.zeros(inverse.max(initial=-1) + 1, np.int8)
    np.maximum.at(last, inverse, told)
    found: Array = told < last[inverse]
    return found


def shuffled(hashes: Array, seed: int) -> Array:
    """A seeded bijection of 64-bit numbers (SplitMix64): the order that hashes are drawn in."""
    x = hashes.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = x ^ (x >> np.uint64(31))
    return mixed
