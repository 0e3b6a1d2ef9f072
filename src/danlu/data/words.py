"""Text as metrics and rewards see it: normalised, cut into words that are right for Chinese and for English."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = "\u3040-\u30ff\u31f0-\u31ff"
_TOKEN = re.compile(rf"[{HAN}{KANA}]|[^\W_{HAN}{KANA}]+")
_HAN = re.compile(rf"[{HAN}]")
_TRAILING = " \t\r\n.,;:!?\u3002\uff0c\uff1b\uff1a\uff01\uff1f\u3001\u2026~"


def normalise(text: str) -> str:
    """Full-width to half-width (NFKC), lower case, one space for any run of white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def strip_ending(text: str) -> str:
    """Remove punctuation and white space at the end."""
    return text.rstrip(_TRAILING)


def words(text: str) -> list[str]:
    """Chinese characters and kana one by one, other scripts by word; punctuation is left out.

    Text that holds neither letters nor digits (an emoji, a lone mark) is cut into its visible characters.
    """
    text = normalise(text)
    return _TOKEN.findall(text) or [c for c in text if not c.isspace()]


def is_mostly_chinese(text: str) -> bool:
    """Whether at least half of the words are Chinese characters."""
    found = words(text)
    return bool(found) and 2 * sum(bool(_HAN.fullmatch(word)) for word in found) >= len(found)


def has_loop(text: str, *, min_repeats: int = 4, min_chars: int = 40, max_unit: int = 120) -> bool:
    """Whether the text ends in the same piece again and again, at least `min_repeats` times and `min_chars` long."""
    text = text.rstrip()
    for unit in range(1, min(max_unit, len(text) // min_repeats) + 1):
        length = max(min_chars, unit * min_repeats)
        if length > len(text):
            continue
        tail = text[-length:]
        if tail[unit:] == tail[:-unit]:
            return True
    return False


def is_same(left: str, right: str) -> bool:
    """Whether two texts are equal apart from how they are typed; two texts of punctuation only are compared with their punctuation."""
    left, right = normalise(left), normalise(right)
    return left == right or "" != strip_ending(left) == strip_ending(right)


def subsequence_f1(left_text: str, right_text: str) -> float:
    """F1 in [0, 1] of the longest common subsequence of words; 1 when both are empty, 0 when one is."""
    left, right = words(left_text), words(right_text)
    if not left or not right:
        return float(left == right)
    return 2 * lcs_length(left, right) / (len(left) + len(right))


def lcs_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence, by the bit-parallel algorithm of Hyyro 2004."""
    positions: dict[str, int] = {}
    for index, word in enumerate(left):
        positions[word] = positions.get(word, 0) | 1 << index
    everything = (1 << len(left)) - 1
    unmatched = everything
    for word in right:
        hits = unmatched & positions.get(word, 0)
        unmatched = ((unmatched + hits) | (unmatched - hits)) & everything
    return len(left) - unmatched.bit_count()
