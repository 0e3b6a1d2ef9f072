"""Text as metrics see it: normalised, cut into words that are right for Chinese and for English."""

from __future__ import annotations

import re
import unicodedata

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
