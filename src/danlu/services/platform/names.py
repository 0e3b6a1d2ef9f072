"""Names of users: which are taken, and which of them look alike.

Two names with the same key cannot both exist, so that nobody passes for somebody else by another writing of the name: full-width and
compatibility forms (NFKC), upper case, a digit for a letter, letters of another script that look the same.
Reference: Unicode UTS 39; of its table of look-alikes only the letters that look like Latin ones are taken.
"""

from __future__ import annotations

import unicodedata

MAX_NAME = 64
_LOOKS_LIKE = str.maketrans(
    {
        **dict(zip("\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d\u04cf", "aeopcyxijshdqwl", strict=True)),  # Cyrillic
        **dict(zip("\u03b1\u03b5\u03bf\u03c1\u03c5\u03c7\u03b9\u03bd\u03ba\u03c4\u03b7", "aeopuxivktn", strict=True)),  # Greek
        **dict(zip("\u0131\u0261\u026a\u0251", "igia", strict=True)),  # Latin of other alphabets
        "0": "o",
        "1": "l",
    }
)
_MIXES_WITH_LATIN = ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "BOPOMOFO", "LATIN")
_MARKS = "._-@+ '"


def tidy(name: str) -> str:
    """Return the name as it is shown: compatibility forms replaced, spaces at the ends removed.

    Raises:
        ValueError: it is empty, too long, or has characters that could make it look like another.
    """
    name = unicodedata.normalize("NFKC", name).strip()
    if not name or len(name) > MAX_NAME:
        raise ValueError(f"a name has 1 to {MAX_NAME} characters; this one has {len(name)}")
    scripts = set()
    for character in name:
        category = unicodedata.category(character)
        if character in _MARKS or category == "Nd" and character.isascii():
            continue
        if category[0] not in "LM" or unicodedata.name(character, "COMBINING").startswith("COMBINING"):
            raise ValueError(f"U+{ord(character):04X} cannot stand in a name; use letters, digits, spaces and . _ - @ + '")
        scripts.add(_script(character))
    if len(scripts) > 1 and not scripts <= set(_MIXES_WITH_LATIN):
        raise ValueError(f"a name has letters of one script; this one mixes {', '.join(sorted(script.title() for script in scripts))}")
    return name


def key_of(name: str) -> str:
    """Return what the name is looked up by; never fails, so that a sign-in with any text takes the same way."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name[: 4 * MAX_NAME]).casefold())
    return " ".join(folded.translate(_LOOKS_LIKE).split())


def _script(character: str) -> str:
    return unicodedata.name(character, "?").split()[0]
