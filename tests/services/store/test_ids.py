"""Identifiers: their order is the order in which things were made."""

import re
from concurrent.futures import ThreadPoolExecutor

from danlu.store.ids import new_id


def test_ids_sort_as_they_were_made_however_quickly_they_follow() -> None:
    made = [new_id("run") for _ in range(5000)]

    assert made == sorted(made)
    assert all(re.fullmatch("run_[0-9a-hjkmnp-tv-z]{26}", id) for id in made)


def test_no_two_are_the_same_whoever_makes_them() -> None:
    with ThreadPoolExecutor(4) as pool:
        made = [id for ids in pool.map(lambda _: [new_id("job") for _ in range(500)], range(8)) for id in ids]

    assert len(set(made)) == len(made)
