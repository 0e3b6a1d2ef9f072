"""Identifiers: a prefix that names the noun, then 26 characters that sort by the time they were made.

Reference: the ULID layout (48 bits of milliseconds, 80 random bits, Crockford's base 32).
"""

import secrets
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """Return e.g. `run_01k9z3...`; ids made later sort later (to the millisecond)."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return f"{prefix}_" + "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
