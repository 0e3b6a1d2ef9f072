"""Passwords: which are good enough, and their hashes (Argon2id). Nothing here is logged."""

from __future__ import annotations

import secrets
import threading
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

from danlu.services.platform.names import key_of

if TYPE_CHECKING:
    from pwdlib import PasswordHash

MIN_LENGTH, MAX_LENGTH = 10, 256
MIN_DIFFERENT = 5
COMMON = (
    *("password", "passw0rd", "p@ssword", "qwertyuiop", "1qaz2wsx", "letmein", "iloveyou", "welcome", "changeme", "administrator", "admin", "danlu"),
    *("1234567890", "0123456789", "9876543210", "0987654321", "woaini", "5201314", "abcdefghij", "asdfghjkl", "zxcvbnm", "1q2w3e4r", "football", "superman"),
)
"""What guessing begins with. A password made of one of these and a few digits is refused."""
# Each verification takes 64 MiB: many at once would take the machine's memory.
_AT_ONCE = threading.BoundedSemaphore(2)


def check(password: str, *, name: str = "") -> None:
    """Refuse a password that is soon guessed.

    Raises:
        ValueError: it is too short, too long, common, or the user's name.
    """
    password = _normal(password)
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise ValueError(f"a password has {MIN_LENGTH} to {MAX_LENGTH} characters; several words are good")
    if len(set(password)) < MIN_DIFFERENT:
        raise ValueError(f"a password has at least {MIN_DIFFERENT} different characters")
    plain = password.casefold()
    for word in (*COMMON, key_of(name)):
        if len(word) > 2 and word in plain and len(plain) - len(word) <= 4:
            raise ValueError("this password is among the first that are guessed; take several words")


def hash_of(password: str) -> str:
    """Return the hash to store."""
    with _AT_ONCE:
        return _hasher().hash(_normal(password))


def verify(password: str, stored: str | None) -> bool:
    """Tell whether it is the password. Without a stored hash (no such user) it takes the same time and is not."""
    with _AT_ONCE:
        is_right = _hasher().verify(_normal(password[: 4 * MAX_LENGTH]), stored or _hash_of_nobody())
    return is_right and stored is not None


def _normal(password: str) -> str:
    return unicodedata.normalize("NFKC", password)


@cache
def _hasher() -> PasswordHash:
    from pwdlib import PasswordHash

    return PasswordHash.recommended()


@cache
def _hash_of_nobody() -> str:
    return _hasher().hash(secrets.token_hex(32))
