"""Who asks: a session's cookie, an API key, or the owner of this machine; and the guard that stands before every route.

    get_actor = security.install(app, platform, host="127.0.0.1")

Single-user mode: as long as there is no user, whoever asks from this machine without any proxy is its owner. The first user ends it.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request

from danlu.api.guard import ANONYMOUS_PER_MINUTE, Guard
from danlu.api.incoming import Incoming, is_loopback
from danlu.errors import ExposedError, ForbiddenError, HostError, SignInError, TooManyRequestsError
from danlu.services.platform import rates, sessions
from danlu.services.platform.access import NOBODY, Actor
from danlu.services.platform.keys import actor_of_key
from danlu.services.platform.platform import Platform
from danlu.settings import Network

GetActor = Callable[[Request], Actor]


def install(app: FastAPI, platform: Platform, *, host: str) -> GetActor:
    """Put the guard before every route of `app`, and return what tells who asks. Call it before middleware that is to stand outside of it.

    Raises:
        ExposedError: the server would be open to everybody on the network.
    """
    security = Security(platform, host)
    security.check_exposure()
    app.add_middleware(Guard, security=security)
    app.state.platform, app.state.security = platform, security
    return actor_of_request


def actor_of_request(request: Request) -> Actor:
    """Return who asks."""
    return actor_of_scope(request.scope)


def actor_now(request: Request) -> Actor:
    """Return who asks, looked up anew: for pages, which stay open while sessions end and roles change.

    Raises:
        SignInError: a key was sent that is not valid.
    """
    security: Security = request.scope["danlu.security"]
    return security.actor_now(request.scope)


def actor_of_scope(scope: MutableMapping[str, Any]) -> Actor:
    """Return who asks, for any request or websocket that went through the guard, also in mounted applications.

    It reads the database: not to be called in the event loop. The answer holds for one request; for a websocket, ask again.

    Raises:
        SignInError: a key was sent that is not valid.
    """
    security: Security = scope["danlu.security"]
    return security.actor(scope)


class Security:
    """What the guard and the routes need to know about one server."""

    def __init__(self, platform: Platform, host: str) -> None:
        self.platform, self.host = platform, host
        self._has_users = False

    @property
    def network(self) -> Network:
        """How the server is reached."""
        return self.platform.settings.network

    def check_exposure(self) -> None:
        """Refuse to serve everybody when nobody would have to sign in.

        Raises:
            ExposedError: bound to a network without users; or `DANLU_AUTH` is neither `auto` nor `users`.
        """
        if self.network.auth not in ("auto", "users"):
            raise ExposedError(f"DANLU_AUTH is {self.network.auth!r}", why="it is `auto` or `users`", fix="set DANLU_AUTH=users, or leave it out")
        if self.network.auth == "auto" and not is_loopback(self.host) and not self.has_users():
            raise ExposedError(
                f"the server would be open to everybody at {self.host}",
                why="there are no users yet, so nobody would have to sign in",
                fix="bind to 127.0.0.1; or set DANLU_AUTH=users and make the first administrator with the token that is printed",
            )

    def has_users(self) -> bool:
        """Whether there are users; there are always some once there was one."""
        if not self._has_users:
            self._has_users = sessions.has_users(self.platform)
        return self._has_users

    @property
    def _is_open(self) -> bool:
        """Whether the owner of this machine needs no account as long as there are no users."""
        network = self.network
        return network.auth == "auto" and is_loopback(self.host) and not network.public_url and not network.trusted_proxies

    def needs_users(self) -> bool:
        """Whether nobody can enter before the first administrator is made."""
        return not self._is_open and not self.has_users()

    def is_single_user_request(self, incoming: Incoming) -> bool:
        """Whether it comes from the owner of this machine, as far as is known without asking the database."""
        return self._is_open and incoming.is_loopback and not incoming.is_forwarded and not self._has_users and self._is_meant(incoming)

    def _is_meant(self, incoming: Incoming) -> bool:
        """Whether the address it was asked for is this machine's own: else something that says nothing of itself has passed it on."""
        return incoming.names_this_machine or incoming.host.partition(":")[0] in self.network.hosts

    def actor(self, scope: MutableMapping[str, Any]) -> Actor:
        """Return who asks.

        Raises:
            SignInError: a key was sent that is not valid.
            TooManyRequestsError: keys or cookies that are not valid were sent again and again.
        """
        if "danlu.actor" not in scope:
            found = self.actor_now(scope)
            if scope["type"] == "websocket":  # it lives long: ask again each time
                return found
            scope["danlu.actor"] = found
        actor: Actor = scope["danlu.actor"]
        return actor

    def actor_now(self, scope: MutableMapping[str, Any]) -> Actor:
        """Return who asks, looked up anew.

        Raises:
            SignInError: a key was sent that is not valid.
        """
        return self._actor(scope["danlu.incoming"])

    def is_still_valid(self, scope: MutableMapping[str, Any]) -> bool:
        """Whether who began this stream or websocket may still be here."""
        try:
            return self._actor(scope["danlu.incoming"]).is_signed_in
        except (SignInError, TooManyRequestsError, HostError):
            return False

    def check_may_sign_in(self, incoming: Incoming) -> None:
        """Refuse passwords that would cross the network in the clear.

        Raises:
            ForbiddenError: it is plain http from another machine.
        """
        if not incoming.is_secure and not incoming.is_loopback and not self.network.allows_plain_http:
            raise ForbiddenError(
                "signing in needs https",
                why="the password would cross the network in the clear",
                fix="put a proxy with TLS before the studio and set DANLU_PUBLIC_URL; on a network that you trust: DANLU_PLAIN_HTTP=1",
            )

    def _actor(self, incoming: Incoming) -> Actor:
        address = incoming.client
        if "authorization" in incoming.headers:
            scope = f"wrong keys {self.platform.home}"
            rates.check(scope, address, most=rates.WRONG_KEYS, seconds=60)
            found = actor_of_key(self.platform, incoming.bearer or "", address)
            if found is None:
                rates.attempt(scope, address, most=rates.WRONG_KEYS, seconds=60)
                raise SignInError("this API key is not valid", why="it was revoked, has expired, or is mistyped", fix="make another one in the studio")
            return found
        if incoming.session_token is not None:
            found = sessions.actor_of_session(self.platform, incoming.session_token, address)
            if found is not None:
                return found
        if self.is_single_user_request(incoming) and not self.has_users():
            return Actor.local(address)
        if self._is_open and not self._is_meant(incoming) and not self.has_users():
            raise HostError(
                f"{incoming.host[:100]!r} is not this machine alone",
                why="as long as nobody has an account, the studio is for who sits here, and this address is one that others could ask too",
                fix="use http://127.0.0.1 with its port; for others: DANLU_AUTH=users",
            )
        if incoming.session_token is not None:  # invented cookies count together, as no cookie does: each by itself would have a limit of its own
            rates.attempt(f"ended sessions {self.platform.home}", address, most=ANONYMOUS_PER_MINUTE, seconds=60)
        return replace(NOBODY, address=address)
