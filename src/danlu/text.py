"""Which language a person is spoken to in. English and Chinese stand side by side at every use."""

import os
from unicodedata import category


def language() -> str:
    """`zh` or `en`: from DANLU_LANG, else from the locale."""
    for name in ("DANLU_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name, "")
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


def say(en: str, zh: str) -> str:
    """Return the text in the person's language."""
    return zh if language() == "zh" else en


def printable(text: str) -> str:
    """Replace control characters (but line breaks and tabs) so that data cannot steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" or category(c) == "Zs" else f"\\x{ord(c):02x}" for c in text)
