"""Tokens of 256 random bits: sessions, one-time tokens, secrets of keys. They are stored as hashes and shown once.

A plain SHA-256 is enough for them: unlike passwords they cannot be guessed.
"""

import hashlib
import hmac
import secrets


def new_token() -> str:
    """Return a fresh token: 43 characters that are safe in headers and cookies."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """Return what is stored of it."""
    return hashlib.sha256(token.encode()).hexdigest()


def is_token(token: str, stored: str) -> bool:
    """Tell whether it is the token, in a time that does not depend on how much of it is right."""
    return hmac.compare_digest(hash_token(token), stored)


def csrf_token(session_token: str) -> str:
    """Return what a page of the studio sends in `X-CSRF-Token` beside its session's cookie; another website cannot know it."""
    return hmac.new(session_token.encode(), b"danlu csrf", hashlib.sha256).hexdigest()
