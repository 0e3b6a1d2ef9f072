"""Identifiers: a prefix that names the noun, then 26 characters that sort by the time they were made.

Reference: the ULID layout (48 bits of milliseconds, 80 random bits, Crockford's base 32), in its monotonic form: within a millisecond, and after
the clock was put back, a process goes on from its last one by a random step.
"""

import secrets
import threading
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_lock = threading.Lock()
_last = 0
"""The number in the newest id of this process."""


def new_id(prefix: str) -> str:
    """Return e.g. `run_01k9z3...`; ids made later sort later (those of other processes to the millisecond)."""
    global _last
    with _lock:
        now = (time.time_ns() // 1_000_000) << 80
        _last = number = now | secrets.randbits(80) if now > _last else _last + 1 + secrets.randbits(64)
    return f"{prefix}_" + "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
