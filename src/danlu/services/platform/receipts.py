"""Idempotency keys: a request that is sent again gets the answer of the first one, and is not done twice.

What an operation does and its receipt are one transaction, so a kill at any instant leaves both or neither. An operation with
transactions of its own leaves a receipt without an answer when it is killed; it is done again when it is sent again, since it
cannot be under way any more.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from danlu.errors import ConflictError, RequestError
from danlu.services.platform.platform import Platform
from danlu.store import receipts
from danlu.store.engine import Connection

KEPT_SECONDS = 24 * 3600.0
LEASE_SECONDS = 600.0
"""A request of another server that has given no answer for so long was killed."""
SECRETS = ("secret", "token", "password")
_under_way: dict[tuple[str, str], KeyReceipt] = {}
"""Requests that this process is carrying out, each with the receipt that began it."""


class AlreadyDoneError(Exception):
    """Not an error of the user: the request was answered before."""

    def __init__(self, response: dict[str, Any]) -> None:
        super().__init__("answered before")
        self.response = response


@dataclass(frozen=True)
class KeyReceipt:
    """The receipt of one request."""

    user_id: str
    key: str
    request: bytes
    """Everything that makes it this request: method, address, options, body."""
    encode: Callable[[Any], dict[str, Any]]
    """The answer for a result, as it is to be kept."""

    def begin(self, connection: Connection) -> None:
        """Look whether the key was used.

        Raises:
            AlreadyDoneError: for this very request; here is the answer.
            RequestError: for another one.
            ConflictError: the first request is under way, or its answer was a secret that is shown once.
        """
        found = receipts.find(connection, self.user_id, self.key)
        if found is not None and found.created_at > time.time() - KEPT_SECONDS:
            if found.request_hash != self._hash:
                raise RequestError(
                    "this idempotency key was used for another request",
                    why="a key stands for one request, and the address, the options or the body differ",
                    fix="make a new key for each thing you want done, and keep it only to repeat the same request",
                )
            if found.response is not None:
                if found.response.get("is_secret"):
                    raise ConflictError("this was done already", why="its answer held a secret, which is shown once", fix="make another one, and delete this")
                raise AlreadyDoneError(found.response)
            if self._may_be_under_way(connection, found.created_at):
                raise receipts.under_way()
        receipts.begin(connection, self.user_id, self.key, self._hash)
        _under_way[self.user_id, self.key] = self

    def end(self, connection: Connection, result: Any) -> None:
        """Keep the answer; a secret in it is not kept."""
        answer = {"is_secret": True} if any(getattr(result, name, None) for name in SECRETS) else self.encode(result)
        receipts.end(connection, self.user_id, self.key, answer)

    def fail(self, connection: Connection) -> None:
        """Let the next request try again."""
        receipts.forget(connection, self.user_id, self.key)

    def leave(self) -> None:
        """Say that this process is done with it, however it ended."""
        if _under_way.get((self.user_id, self.key)) is self:  # whoever was refused because another is at it leaves that one alone
            del _under_way[self.user_id, self.key]

    @property
    def _hash(self) -> str:
        return hashlib.sha256(self.request).hexdigest()

    def _may_be_under_way(self, connection: Connection, created_at: float) -> bool:
        if (self.user_id, self.key) in _under_way:
            return True
        if connection.dialect.name == "sqlite":
            return False  # one server per home: whoever began it, and is not this process, is gone
        return created_at > time.time() - LEASE_SECONDS


def sweep(platform: Platform) -> int:
    """Forget receipts that are older than a key is good for; return how many."""
    with platform.database.writing() as connection:
        return receipts.forget_older(connection, time.time() - KEPT_SECONDS)
