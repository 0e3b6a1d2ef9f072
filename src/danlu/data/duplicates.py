"""Exact and near duplicates among a million texts, in numpy and bounded memory.

Exact: equal 64-bit hashes of the text with blanks collapsed. Near: estimated Jaccard similarity of the sets of
character 5-grams (letters and digits only, case folded: right for Chinese too) of at least 0.8, by MinHash and
locality-sensitive hashing. One-permutation hashing gives 16 minima from one hash of each 5-gram; eight remixes of
that hash give 128.

Reference: Broder 1997 (resemblance); Li, Owen & Zhang 2012, arXiv:1208.1259 (one permutation, empty bins filled by
rotation as in Shrivastava & Li 2014, arXiv:1406.4784). Deviation: candidates are checked on the 5-gram sets
themselves while that is affordable, and only then by their sketches.

Shapes: R rows, C characters of a batch, K = 128 minima, B bands.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

NGRAM = 5
NUM_MIXES, NUM_BINS = 8, 16
NUM_MINIMA = NUM_MIXES * NUM_BINS
NUM_BANDS, BAND_ROWS = 21, 6
"""A pair of similarity s becomes a candidate with probability 1 - (1 - s^6)^21: 0.998 at 0.8, 0.28 at 0.5."""
THRESHOLD = 0.8
MAX_EXACT_CHECKS = 200_000
"""Candidates compared on their texts; beyond it the sketch alone decides (standard error about 0.04)."""

U32 = np.uint32
Array = np.ndarray


def exact_hash(text: str) -> int:
    """64-bit hash of `text` with runs of blanks taken as one."""
    if "  " in text or not text.isprintable():
        text = " ".join(text.split())
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@cache
def _folded() -> Array:
    """Code point -> its lower case, 0 for what is neither letter nor digit (beyond the BMP everything counts)."""
    table = np.arange(0x110000, dtype=U32)
    characters = [chr(point) for point in range(0x10000)]
    table[:0x10000] = [ord(character.lower()[0]) if character.isalnum() else 0 for character in characters]
    return table


def ngram_hashes(texts: Sequence[str]) -> tuple[Array, Array]:
    """Hashes of the character 5-grams of each text's letters and digits, and the row each belongs to, in order.

    A text with fewer than 5 counts as one 5-gram.
    """
    lengths_R = np.fromiter(map(len, texts), np.int64, len(texts))
    folded_C = _folded()[np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), U32)]
    rows_C = np.repeat(np.arange(len(texts), dtype=np.int32), lengths_R)
    is_kept = folded_C != 0
    folded_C, rows_C = folded_C[is_kept], rows_C[is_kept]
    kept_R = np.bincount(rows_C, minlength=len(texts))
    if kept_R.min(initial=NGRAM) < NGRAM:
        short = np.flatnonzero(kept_R < NGRAM)
        missing = NGRAM - kept_R[short]
        ends = np.repeat(np.cumsum(kept_R)[short], missing)
        folded_C, rows_C = np.insert(folded_C, ends, 0), np.insert(rows_C, ends, np.repeat(short, missing))
    mixed_C = folded_C * U32(0x85EBCA6B)
    num = len(mixed_C) - NGRAM + 1
    hashes = mixed_C[:num].copy()
    for offset in range(1, NGRAM):
        hashes *= U32(0x9E3779B1)
        hashes ^= hashes >> U32(15)
        hashes += mixed_C[offset : num + offset]
    is_inside = rows_C[:num] == rows_C[NGRAM - 1 :]
    return _mix(hashes[is_inside]), rows_C[:num][is_inside]


def sketches(texts: Sequence[str]) -> Array:
    """MinHash sketches: uint32 [R, K]."""
    hashes, rows = ngram_hashes(texts)
    minima = np.full((NUM_MIXES, len(texts) * NUM_BINS), 0xFFFFFFFF, U32)
    places = rows * np.int32(NUM_BINS)
    for mix in range(NUM_MIXES):
        remixed = _mix(hashes ^ U32((0x9E3779B9 * (mix + 1)) & 0xFFFFFFFF))
        np.minimum.at(minima[mix], places + (remixed >> U32(28)).astype(np.int32), remixed)
    sketch = minima.reshape(NUM_MIXES, len(texts), NUM_BINS).transpose(1, 0, 2)
    return _fill_empty_bins(np.ascontiguousarray(sketch).reshape(-1, NUM_BINS)).reshape(len(texts), NUM_MINIMA)


def _mix(x: Array) -> Array:
    """A bijection of 32-bit numbers that spreads every bit (the finaliser of MurmurHash3)."""
    x = x ^ (x >> U32(16))
    x *= U32(0x85EBCA6B)
    x ^= x >> U32(13)
    x *= U32(0xC2B2AE35)
    x ^= x >> U32(16)
    return x


def _fill_empty_bins(sketch: Array) -> Array:
    """An empty bin takes the next full one to its right (around the end), marked by the distance."""
    with_empty = np.flatnonzero((sketch == 0xFFFFFFFF).any(-1))
    sketch[with_empty] = _filled(sketch[with_empty])
    return sketch


def _filled(sketch: Array) -> Array:
    is_empty = sketch == 0xFFFFFFFF
    places = np.where(is_empty, 4 * NUM_BINS, np.arange(NUM_BINS))
    twice = np.concatenate([places, places + NUM_BINS], -1)
    following = np.minimum.accumulate(twice[..., ::-1], -1)[..., ::-1][..., :NUM_BINS]
    distance = following - np.arange(NUM_BINS)
    filled: Array = np.take_along_axis(sketch, following % NUM_BINS, -1) + distance.astype(U32) * U32(0x01000193)
    return filled


class NearDuplicates:
    """Collects sketches row by row in files and groups the rows afterwards."""

    def __init__(self, folder: Path) -> None:
        self._bands_path, self._sketch_path = folder / "bands.bin", folder / "sketches.bin"
        self._bands: BinaryIO = self._bands_path.open("wb")
        self._sketches: BinaryIO = self._sketch_path.open("wb")
        self.num_rows = 0

    def add(self, texts: Sequence[str]) -> None:
        """Add texts as the next rows."""
        sketch_RK = sketches(texts)
        chunks = sketch_RK[:, : NUM_BANDS * BAND_ROWS].reshape(len(texts), NUM_BANDS, BAND_ROWS)
        keys = np.zeros((len(texts), NUM_BANDS), U32)
        for place in range(BAND_ROWS):
            keys = _mix(keys * U32(0x01000193) + chunks[:, :, place])
        self._bands.write(keys.tobytes())
        self._sketches.write(_mix(sketch_RK).astype(np.uint8).tobytes())
        self.num_rows += len(texts)

    def close(self) -> None:
        """Finish writing."""
        with self._sketches:  # closed even when the disk is too full for the last bytes of the first
            self._bands.close()

    def groups(self, is_in: Array, read_texts: Callable[[Sequence[int]], Iterable[str]], progress: Callable[[int], None] = lambda done: None) -> Array:
        """Return for each row the first row of its group; rows where `is_in` is False stay alone.

        `read_texts` gives the texts of rows again, for checking candidates; `progress` is told how many of the
        NUM_BANDS bands are done.
        """
        labels = np.arange(self.num_rows, dtype=np.int64)
        candidates = np.flatnonzero(is_in)
        if len(candidates) < 2:
            return labels
        sketch = np.memmap(self._sketch_path, np.uint8, "r", shape=(self.num_rows, NUM_MINIMA))
        keys = np.memmap(self._bands_path, U32, "r", shape=(self.num_rows, NUM_BANDS))
        num_checks = 0
        for band in range(NUM_BANDS):
            first, second = _band_pairs(np.asarray(keys[candidates, band]), candidates)
            is_new = labels[first] != labels[second]
            first, second = first[is_new], second[is_new]
            similar = _estimate(sketch, first, second)
            is_doubtful = similar >= THRESHOLD - 0.2
            first, second, similar = first[is_doubtful], second[is_doubtful], similar[is_doubtful]
            num_exact = min(len(first), MAX_EXACT_CHECKS - num_checks)
            num_checks += num_exact
            similar[:num_exact] = exact_similarity(first[:num_exact], second[:num_exact], read_texts)
            accepted = similar >= THRESHOLD
            labels = _union(labels, first[accepted], second[accepted])
            progress(band + 1)
        return labels


def _band_pairs(keys: Array, rows: Array) -> tuple[Array, Array]:
    """Pairs of rows with the same key: each with the first of its run and with the one before it."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    is_same = ordered[1:] == ordered[:-1]
    starts = np.concatenate([[True], ~is_same])
    leaders = np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))
    members = np.flatnonzero(~starts)
    before = members - 1
    lead = leaders[members]
    is_other = before != lead
    first = np.concatenate([lead, before[is_other]])
    second = np.concatenate([members, members[is_other]])
    return rows[order[first]], rows[order[second]]


def _estimate(sketch: Array, first: Array, second: Array) -> Array:
    """Share of equal minima, corrected for bytes that are equal by chance."""
    similar = np.zeros(len(first))
    for start in range(0, len(first), 8192):
        one, other = sketch[first[start : start + 8192]], sketch[second[start : start + 8192]]
        similar[start : start + 8192] = (one == other).mean(1)
    return (similar - 1 / 256) / (1 - 1 / 256)


def exact_similarity(first: Array, second: Array, read_texts: Callable[[Sequence[int]], Iterable[str]]) -> Array:
    """Jaccard similarity of the 5-gram sets of pairs of rows."""
    similar = np.zeros(len(first))
    for start in range(0, len(first), 512):
        pairs = np.stack([first[start : start + 512], second[start : start + 512]], 1)
        rows, places = np.unique(pairs, return_inverse=True)
        hashes, owners = ngram_hashes(list(read_texts([int(row) for row in rows])))
        sets = np.split(hashes, np.searchsorted(owners, np.arange(1, len(rows))))
        unique = [np.unique(one) for one in sets]
        for index, (one, other) in enumerate(places.reshape(-1, 2)):
            shared = len(np.intersect1d(unique[one], unique[other], assume_unique=True))
            similar[start + index] = shared / (len(unique[one]) + len(unique[other]) - shared)
    return similar


def _union(labels: Array, first: Array, second: Array) -> Array:
    """Merge the groups of each pair; a group's label is its first row."""
    if not len(first):
        return labels
    labels = labels.copy()
    while True:
        one, other = labels[first], labels[second]
        differs = one != other
        if not differs.any():
            return labels
        low, high = np.minimum(one, other)[differs], np.maximum(one, other)[differs]
        np.minimum.at(labels, high, low)
        while not np.array_equal(labels, nearer := labels[labels]):
            labels = nearer


def first_rows(hashes: Array) -> Array:
    """For each row the first row with the same hash (itself when it is the first)."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    rows: Array = first[inverse]
    return rows
