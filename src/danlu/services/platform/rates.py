"""How often something may be tried. Counts are kept in this process: they begin anew when the server starts.

# LIMIT: several servers on one database count each for itself (docs/limits.md#accounts)
"""

from __future__ import annotations

import ipaddress
from functools import cache
from typing import TYPE_CHECKING

from danlu.errors import TooManyRequestsError

if TYPE_CHECKING:
    from limits.strategies import RateLimiter

SIGN_INS = (("name and address", 5, 300), ("address", 30, 900), ("name", 100, 3600))
"""Attempts per so many seconds. By name alone it is high: else anybody could lock somebody out."""
ONE_TIME_TOKENS = 20
"""Attempts with a one-time token per address and five minutes."""
WRONG_KEYS = 60
"""Requests with a key that is not valid, per address and minute."""
OIDC_STARTS = 30
"""Sign-ins begun at the identity provider per address and five minutes."""


def attempt(scope: str, *identity: str | None, most: int, seconds: int) -> None:
    """Count one more attempt.

    Raises:
        TooManyRequestsError: there were `most` in the last `seconds`.
    """
    from limits import RateLimitItemPerSecond

    if not _limiter().hit(RateLimitItemPerSecond(most, seconds, namespace=scope), *map(counted, identity)):
        raise too_many(seconds)


def check(scope: str, *identity: str | None, most: int, seconds: int) -> None:
    """Like `attempt`, without counting one.

    Raises:
        TooManyRequestsError: there were `most` in the last `seconds`.
    """
    from limits import RateLimitItemPerSecond

    if not _limiter().test(RateLimitItemPerSecond(most, seconds, namespace=scope), *map(counted, identity)):
        raise too_many(seconds)


def forget(scope: str, *identity: str | None, most: int, seconds: int) -> None:
    """Begin to count anew."""
    from limits import RateLimitItemPerSecond

    _limiter().clear(RateLimitItemPerSecond(most, seconds, namespace=scope), *map(counted, identity))


def counted(part: str | None) -> str:
    """What somebody is counted by: of an IPv6 address its first 64 bits, since whoever has one of such a network has all 2^64 of them."""
    if part is None or ":" not in part:
        return part or ""
    try:
        address = ipaddress.IPv6Address(part.partition("%")[0])
    except ValueError:
        return part
    return str(address.ipv4_mapped or ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def attempt_sign_in(home: str, name_key: str, address: str | None) -> None:
    """Count one more attempt to sign in, before anything is looked up.

    Raises:
        TooManyRequestsError: there were too many for the name, the address, or both.
    """
    for what, most, seconds in SIGN_INS:
        identity = (name_key if "name" in what else "", address if "address" in what else "")
        attempt(f"sign in by {what} {home}", *identity, most=most, seconds=seconds)


def forget_sign_ins(home: str, name_key: str, address: str | None) -> None:
    """After a sign-in that succeeded: its mistypings no longer count."""
    what, most, seconds = SIGN_INS[0]
    forget(f"sign in by {what} {home}", name_key, address, most=most, seconds=seconds)


def too_many(seconds: int) -> TooManyRequestsError:
    """The error of a limit over so many seconds."""
    return TooManyRequestsError("too many requests", why=f"the limit of {seconds} seconds is reached", fix=f"wait {seconds} seconds and try again")


@cache
def _limiter() -> RateLimiter:
    from limits.storage import MemoryStorage
    from limits.strategies import SlidingWindowCounterRateLimiter

    return SlidingWindowCounterRateLimiter(MemoryStorage())
