"""Near duplicates: estimates against exact similarity, planted edits against what is found."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from danlu.data import duplicates
from danlu.data.duplicates import NearDuplicates, exact_hash, exact_similarity, first_rows, sketches

ALPHABET = {"zh": [chr(point) for point in range(0x4E00, 0x5200)], "en": list("abcdefghijklmnopqrstuvwxyz ")}


def jaccard(one: str, other: str) -> float:
    """By definition, on letters and digits."""
    sets = []
    for text in (one, other):
        plain = "".join(c for c in text.lower() if c.isalnum())
        sets.append({plain[i : i + 5] for i in range(max(1, len(plain) - 4))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def text_of(rng: random.Random, language: str, length: int) -> str:
    return "".join(rng.choices(ALPHABET[language], k=length))


def edited(rng: random.Random, text: str, num_edits: int, language: str) -> str:
    characters = list(text)
    for place in rng.sample(range(len(characters)), num_edits):
        characters[place] = rng.choice(ALPHABET[language])
    return "".join(characters)


def groups(texts: Sequence[str], folder: Path, batch: int = 1000) -> np.ndarray:
    near = NearDuplicates(folder)
    for start in range(0, len(texts), batch):
        near.add(texts[start : start + batch])
    near.close()

    def read(rows: Sequence[int]) -> Iterator[str]:
        return (texts[row] for row in rows)

    return near.groups(np.ones(len(texts), np.bool_), read)


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("length", [12, 40, 200, 2000])
def test_sketches_estimate_and_checks_equal_the_jaccard_similarity(language: str, length: int) -> None:
    rng = random.Random(length)
    texts = [text_of(rng, language, length) for _ in range(60)]
    pairs = [(text, edited(rng, text, rng.randrange(1, max(2, length // 12)), language)) for text in texts]
    expected = np.asarray([jaccard(*pair) for pair in pairs])
    flat = [text for pair in pairs for text in pair]
    first = np.arange(0, 120, 2)

    exact = exact_similarity(first, first + 1, lambda rows: (flat[row] for row in rows))
    sketch = sketches(flat)
    estimate = (sketch[::2] == sketch[1::2]).mean(1)

    assert exact == pytest.approx(expected, abs=1e-6)
    # 128 minima of sets with fewer members than that are as good as the number of members.
    assert np.sqrt(np.mean((estimate - expected) ** 2)) < (0.06 if length >= 200 else 0.16)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_planted_near_duplicates_are_found_and_nothing_else(language: str, tmp_path: Path) -> None:
    rng = random.Random(7)
    originals = [text_of(rng, language, rng.randrange(60, 300)) for _ in range(1500)]
    planted = [edited(rng, text, rng.randrange(1, 4), language) for text in originals[:500]]
    texts = originals + planted
    similar = [jaccard(one, other) >= 0.8 for one, other in zip(originals, planted, strict=False)]

    labels = groups(texts, tmp_path)
    found = labels[1500:] == np.arange(500)

    assert labels[:1500].tolist() == list(range(1500))
    assert np.array_equal(found | (labels[1500:] == np.arange(1500, 2000)), np.ones(500, np.bool_))
    assert not (found & ~np.asarray(similar)).any()
    assert (found & similar).sum() >= 0.99 * sum(similar)
    assert sum(similar) > 200


def test_beyond_the_affordable_checks_the_sketch_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_EXACT_CHECKS", 0)
    rng = random.Random(3)
    text = text_of(rng, "zh", 400)

    assert groups([text, edited(rng, text, 2, "zh"), text_of(rng, "zh", 400)], tmp_path).tolist() == [0, 0, 2]


def test_groups_are_transitive_and_named_by_their_first_row(tmp_path: Path) -> None:
    rng = random.Random(5)
    chain = [text_of(rng, "zh", 200)]
    for _ in range(12):
        chain.append(edited(rng, chain[-1], 3, "zh"))
    order = list(range(13))
    rng.shuffle(order)

    labels = groups([chain[place] for place in order], tmp_path)

    assert jaccard(chain[0], chain[-1]) < 0.5
    assert labels.tolist() == [0] * 13


def test_punctuation_case_and_blanks_do_not_hide_a_duplicate(tmp_path: Path) -> None:
    assert groups(["What is the capital of France?", "what is  the capital of france", "别的问题", "", "。。", "x"], tmp_path).tolist() == [0, 0, 2, 3, 3, 5]


def test_a_batch_boundary_changes_nothing(tmp_path: Path) -> None:
    rng = random.Random(9)
    texts = [text_of(rng, "en", rng.randrange(0, 80)) for _ in range(50)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    assert groups(texts + texts, tmp_path / "a").tolist() == groups(texts + texts, tmp_path / "b", batch=7).tolist()


def test_exact_hashes_ignore_the_kind_of_blanks_only() -> None:
    assert exact_hash("a  b\nc") == exact_hash("a b c")
    assert exact_hash("a b c") != exact_hash("a b C")


def test_the_first_of_equal_rows_is_named() -> None:
    assert first_rows(np.asarray([9, 4, 9, 4, 4, 1], np.uint64)).tolist() == [0, 1, 0, 1, 1, 5]
