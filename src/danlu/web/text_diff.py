"""Two texts compared: what both say, what only one says. Chinese by characters, other scripts by words."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Literal

Piece = tuple[Literal["same", "old", "new"], str]
PIECE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]|\\w+|\\s+|[^\\w\\s]")
MAX_PIECES = 2_000
"""Longer texts are cut before they are compared: the time grows with the square."""


def compared(old: str, new: str) -> list[Piece]:
    """Pieces in the order of reading; where both differ, the old one first."""
    before, after = PIECE.findall(old)[:MAX_PIECES], PIECE.findall(new)[:MAX_PIECES]
    pieces: list[Piece] = []
    for kind, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            pieces.append(("same", "".join(before[a:b])))
            continue
        if b > a:
            pieces.append(("old", "".join(before[a:b])))
        if d > c:
            pieces.append(("new", "".join(after[c:d])))
    return pieces
