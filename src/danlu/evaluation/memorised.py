"""Were the held-out rows seen in training? Exact and near copies of test prompts and answers among the training rows.

A piece of text (a prompt, an answer, or a document) counts as found when some single training row holds the same
normalised text, or at least 80 % of its character 5-grams. Character 5-grams span about the same text in Chinese
and, as runs, catch what word 13-grams catch in English without needing words. What many test rows share (a fixed
instruction, the keys of a JSON form) is the format, not a leak: it is ignored.
Knows nothing of models.

Reference: containment after Broder 1997; n-gram contamination checks as in Brown et al. 2020, appendix C. The
candidate search is the prefix filter of Chaudhuri et al. 2006: a copy holds at least one of the rarest 5-grams.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.data.words import normalise
from danlu.files import read_jsonl

GRAM = 5
CONTAINMENT = 0.8
MIN_GRAMS = 16
"""Shorter pieces ("yes", "42") are never near copies."""
MIN_EXACT_CHARS = {"prompt": 8, "answer": 20, "text": 20}
MAX_TEST_ROWS = 5_000
COMMON_SHARE = 0.1
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5, 0x85EBCA77C2B2AE63], np.uint64)

Grams = NDArray[np.uint64]


@dataclass(frozen=True)
class _Piece:
    row: int
    part: str
    text: str
    grams: Grams


def find(test_path: Path, train_path: Path) -> dict[str, Any]:
    """Test rows found in the training split: counts, and each with the kind of match and both line numbers."""
    rows = []
    for row in read_jsonl(test_path):
        rows.append(row)
        if len(rows) == MAX_TEST_ROWS:
            break
    pieces = _pieces(rows)
    matches = _matches(pieces, read_jsonl(train_path)) if pieces else {}
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for number, match in sorted(matches.items()):
        piece = pieces[number]
        found[piece.row].append({"part": piece.part, **match})
    return {
        "num_checked": len(rows),
        "num_found": len(found),
        "num_exact": sum(any(m["kind"] == "exact" for m in matches) for matches in found.values()),
        "containment": CONTAINMENT,
        "gram_chars": GRAM,
        "rows": [{"example": row, "line": rows[row].get("line"), "matches": matches} for row, matches in sorted(found.items())],
    }


def parts_of(row: dict[str, Any]) -> list[tuple[str, str]]:
    """(part, text) of a row: its document, or each user and each assistant turn."""
    if "text" in row:
        return [("text", row["text"])]
    names = {"user": "prompt", "assistant": "answer"}
    turns = [*row.get("messages", []), *row.get("chosen", row.get("completion", []))]
    return [(names[m["role"]], m["content"]) for m in turns if m["role"] in names and isinstance(m.get("content"), str)]


def grams_of(text: str) -> Grams:
    """Sorted unique 64-bit hashes of the character 5-grams of normalised text."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    if len(codes) < GRAM:
        return np.zeros(0, np.uint64)
    mixed = np.zeros(len(codes) - GRAM + 1, np.uint64)
    for offset in range(GRAM):
        mixed = (mixed ^ codes[offset : offset + len(mixed)]) * _FACTORS[offset]
        mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed)


def _pieces(rows: list[dict[str, Any]]) -> list[_Piece]:
    """What is looked for: the last prompt and the last answer (or the text) of each test row, without what is common to many."""
    raw: list[tuple[int, str, str]] = []
    for number, row in enumerate(rows):
        last = {part: normalise(text) for part, text in parts_of(row)}
        raw += [(number, part, text) for part, text in last.items()]
    limit = max(3, COMMON_SHARE * len(rows))
    same = Counter((part, text) for _, part, text in raw)
    grams = [grams_of(text) for _, _, text in raw]
    values, counts = np.unique(np.concatenate(grams), return_counts=True) if grams else (np.zeros(0, np.uint64), np.zeros(0, np.int64))
    common = values[counts > limit]
    return [
        _Piece(number, part, text, np.setdiff1d(found, common, assume_unique=True))
        for (number, part, text), found in zip(raw, grams, strict=True)
        if same[part, text] <= limit
    ]


def _matches(pieces: list[_Piece], train: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The best match of each piece: {piece: {kind, containment, train_line}}."""
    exact: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, piece in enumerate(pieces):
        if len(piece.text) >= MIN_EXACT_CHARS[piece.part]:
            exact[piece.part, piece.text].append(number)
    index_keys, index_pieces = _prefix_index(pieces)
    best: dict[int, dict[str, Any]] = {}
    for row in train:
        for part, text in parts_of(row):
            text = normalise(text)
            for number in exact.get((part, text), ()):
                best[number] = {"kind": "exact", "containment": 1.0, "train_line": row.get("line")}
            grams = grams_of(text)
            for number in _candidates(grams, index_keys, index_pieces):
                if pieces[number].part != part:
                    continue
                wanted = pieces[number].grams
                share = float(np.isin(wanted, grams, assume_unique=True).mean())
                if share >= CONTAINMENT and share > best.get(number, {"containment": 0.0})["containment"]:
                    best[number] = {"kind": "near", "containment": round(share, 3), "train_line": row.get("line")}
    return best


def _prefix_index(pieces: list[_Piece]) -> tuple[Grams, NDArray[np.int64]]:
    """Sorted (gram, piece) pairs of the rarest grams of each piece: a copy must hold at least one of them."""
    everything = np.concatenate([p.grams for p in pieces]) if pieces else np.zeros(0, np.uint64)
    values, counts = np.unique(everything, return_counts=True)
    keys, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for number, piece in enumerate(pieces):
        if len(piece.grams) < MIN_GRAMS:
            continue
        rarity = counts[np.searchsorted(values, piece.grams)]
        size = floor((1 - CONTAINMENT) * len(piece.grams)) + 1
        keys.append(piece.grams[np.argsort(rarity, kind="stable")[:size]])
        owners.append(np.full(size, number))
    all_keys, all_owners = np.concatenate(keys), np.concatenate(owners)
    order = np.argsort(all_keys, kind="stable")
    return all_keys[order], all_owners[order]


def _candidates(grams: Grams, keys: Grams, owners: NDArray[np.int64]) -> list[int]:
    if not len(keys) or not len(grams):
        return []
    starts, ends = np.searchsorted(keys, grams, "left"), np.searchsorted(keys, grams, "right")
    hits = np.flatnonzero(ends > starts)
    if not len(hits):
        return []
    return [int(i) for i in np.unique(np.concatenate([owners[starts[h] : ends[h]] for h in hits]))]
