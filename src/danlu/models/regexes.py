"""Whether a regular expression can take exponential time.

A repeat without bound whose body itself repeats or chooses can match the same text in exponentially many ways, and an engine that
tries them all hangs on a line of forty characters. Tokenizers run such patterns in native code, which nothing can interrupt. The
patterns of published tokenizers have no such nesting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_PATTERN = 20_000
MANY = 16
"""A bound above this counts as none."""
COUNT = re.compile(r"\{(\d*)(,?)(\d*)\}")


@dataclass
class _Group:
    """What stands between two brackets."""

    is_ambiguous: bool = False
    """It repeats without bound, or chooses."""
    is_atomic: bool = False
    """Once matched it is not tried again in another way."""


def danger(pattern: str) -> str | None:
    """Why the pattern can hang, or None."""
    if len(pattern) > MAX_PATTERN:
        return f"it has {len(pattern):,} characters"
    open_groups = [_Group()]
    position, last = 0, _Group()
    while position < len(pattern):
        character = pattern[position]
        if character == "\\":
            position, last = _after_escape(pattern, position), _Group()
        elif character == "[":
            position, last = _after_class(pattern, position), _Group()
        elif character == "(":
            open_groups.append(_Group(is_atomic=pattern.startswith("(?>", position)))
            position = _after_opening(pattern, position)
        elif character == ")":
            if len(open_groups) == 1:
                return "a bracket is closed that was never opened"
            last = open_groups.pop()
            open_groups[-1].is_ambiguous |= last.is_ambiguous and not last.is_atomic
            position += 1
        elif character == "|":
            open_groups[-1].is_ambiguous |= len(open_groups) > 1
            position, last = position + 1, _Group()
        elif (found := _quantifier(pattern, position)) is not None:
            length, is_unbounded, is_possessive = found
            if is_unbounded and not is_possessive:
                if last.is_ambiguous and not last.is_atomic:
                    return "a repeat without bound stands around another repeat or a choice"
                open_groups[-1].is_ambiguous = True
            position, last = position + length, _Group(is_ambiguous=is_unbounded and not is_possessive)
        else:
            position, last = position + 1, _Group()
    return None


def _quantifier(pattern: str, position: int) -> tuple[int, bool, bool] | None:
    """(length, without bound, possessive) of the quantifier that begins here."""
    character = pattern[position]
    if character in "*+?":
        length, is_unbounded = 1, character != "?"
    elif character == "{" and (found := COUNT.match(pattern, position)) and (found[1] or found[3]):
        length = found.end() - position
        most = found[3] or ("" if found[2] else found[1])
        is_unbounded = not most or len(most) > 9 or int(most) > MANY
    else:
        return None
    following = pattern[position + length : position + length + 1]
    return length + (following in ("?", "+")), is_unbounded, following == "+" and character != "{"


def _after_escape(pattern: str, position: int) -> int:
    if pattern[position + 1 : position + 3] in ("p{", "P{", "x{", "k<", "g<"):
        end = pattern.find("}" if pattern[position + 2] == "{" else ">", position)
        return len(pattern) if end < 0 else end + 1
    return position + 2


def _after_class(pattern: str, position: int) -> int:
    """Behind a character class; classes may stand in classes."""
    depth, position = 0, position
    while position < len(pattern):
        character = pattern[position]
        if character == "\\":
            position += 2
            continue
        if character == "[":
            depth += 1
            position += 1
            if pattern.startswith("^", position):
                position += 1
            if pattern.startswith("]", position):  # a bracket that comes first is itself
                position += 1
            continue
        if character == "]":
            depth -= 1
            if not depth:
                return position + 1
        position += 1
    return position


def _after_opening(pattern: str, position: int) -> int:
    """Behind `(`, `(?:`, `(?i:`, `(?=`, `(?<name>` and the like."""
    if not pattern.startswith("(?", position):
        return position + 1
    found = re.compile(r"\(\?(?:<?[=!]|>|[a-z^-]*:|P?<\w+>|[a-z-]+(?=\)))").match(pattern, position)
    return found.end() if found else position + 2
