"""What a connection says about where it comes from, and what of it is believed.

`X-Forwarded-For` and `X-Forwarded-Proto` are believed from the proxies of `DANLU_TRUSTED_PROXIES` only. The server must not change them
before (uvicorn's `proxy_headers` stays off).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from danlu.errors import CrossSiteError, HostError
from danlu.services.platform.rates import counted
from danlu.services.platform.tokens import hash_token
from danlu.settings import Network

if TYPE_CHECKING:
    from starlette.types import Scope

COOKIE, SECURE_COOKIE = "danlu", "__Host-danlu"
"""The session's cookie on plain http, and on https: there the browser keeps other hosts and plain http from setting it."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
SAFE_VERBS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Incoming:
    """A request or a websocket before anybody has looked at its body."""

    verb: str
    """`GET`, ...; `WEBSOCKET` for one."""
    path: str
    host: str
    """As the Host header says, with the port."""
    is_secure: bool
    """Whether it came over https, also when a trusted proxy took that off."""
    peer: str | None
    """Who is at the other end of the connection."""
    client: str | None
    """Who asked, which is another than the peer behind a trusted proxy."""
    is_forwarded: bool
    """Whether any proxy says to have passed it on."""
    headers: dict[str, str]
    session_token: str | None

    @classmethod
    def of(cls, scope: Scope, network: Network) -> Incoming:
        """Read a connection's scope."""
        headers: dict[str, str] = {}
        for raw_name, raw in scope["headers"]:
            name, value = raw_name.decode("latin-1").lower(), raw.decode("latin-1")
            # Two of one name are joined as RFC 9110 says; two hosts then are no host.
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        host = headers.get("host", "")
        peer = (scope.get("client") or (None,))[0]
        is_trusted = _is_in(peer, network.trusted_proxies)
        scheme = (headers.get("x-forwarded-proto", "") if is_trusted else "") or scope.get("scheme", "http")
        is_secure = scheme in ("https", "wss") or _is_public_https(host, network)
        return cls(
            verb="WEBSOCKET" if scope["type"] == "websocket" else scope["method"],
            path=scope["path"],
            host=host,
            is_secure=is_secure,
            peer=peer,
            client=_client(headers.get("x-forwarded-for", ""), network.trusted_proxies) or peer if is_trusted else peer,
            is_forwarded=any(name in headers for name in ("x-forwarded-for", "x-forwarded-host", "x-real-ip", "forwarded", "via")),
            headers=headers,
            session_token=_cookie(headers.get("cookie", ""), SECURE_COOKIE if is_secure else COOKIE),
        )

    @property
    def bearer(self) -> str | None:
        """The API key it brings."""
        kind, _, value = self.headers.get("authorization", "").partition(" ")
        return value.strip() if kind.lower() == "bearer" else None

    @property
    def asker(self) -> str:
        """Who asks, as far as is known before it is looked up: what shows it, as a hash, or the address."""
        credential = self.bearer or self.session_token
        return hash_token(credential) if credential else f"at {counted(self.client)}"

    @property
    def origin(self) -> str:
        """What pages of this server have as their origin."""
        return f"{'https' if self.is_secure else 'http'}://{self.host}"

    @property
    def names_this_machine(self) -> bool:
        """Whether it was asked for under a name or an address that nobody but this machine has."""
        return is_loopback(_name_of(self.host))

    @property
    def is_loopback(self) -> bool:
        """Whether the peer is this machine."""
        return is_loopback(self.peer)


def is_loopback(host: str | None) -> bool:
    """Whether an address or name is this machine itself."""
    try:
        return host is not None and (host == "localhost" or ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return False


def check_host(incoming: Incoming, network: Network, bound_to: str) -> None:
    """Refuse a name that is not this server's: a website could have made it point here (DNS rebinding). Addresses cannot be made so.

    Raises:
        HostError: the name is not known.
    """
    name = _name_of(incoming.host)
    known = {*LOOPBACK, bound_to, *network.hosts, *([_name_of(urlsplit(network.public_url).netloc)] if network.public_url else [])}
    if name is None or (name not in known and not _is_address(name)):
        raise HostError(
            f"this server is not called {incoming.host[:100]!r}", why="the Host header names another", fix="use its own address, or set DANLU_HOSTS"
        )


def check_origin(incoming: Incoming, network: Network) -> None:
    """Refuse what a page of another website asked for. Reading by navigation (a link) is the only thing that may come from elsewhere.

    Raises:
        CrossSiteError: another website asked.
    """
    origin, site = incoming.headers.get("origin"), incoming.headers.get("sec-fetch-site")
    is_own = origin is not None and origin in (incoming.origin, network.public_url)
    if is_own:
        return
    is_link = incoming.verb in ("GET", "HEAD") and incoming.headers.get("sec-fetch-mode") == "navigate" and incoming.headers.get("sec-fetch-dest") == "document"
    if origin is not None or (site in ("cross-site", "same-site") and not is_link):
        raise CrossSiteError("another website asked for this", why="its pages may not use this server", fix="use the studio under its own address")
    if incoming.verb == "WEBSOCKET" and incoming.bearer is None:
        raise CrossSiteError("a websocket needs an Origin", why="browsers send it, and nothing else shows who asks", fix="send an API key as Authorization")


def _name_of(host: str) -> str | None:
    """A Host header without its port, or None when it is none."""
    if any(character in host for character in "/\\@?#, \t") or not host:
        return None
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_public_https(host: str, network: Network) -> bool:
    url = urlsplit(network.public_url or "")
    return url.scheme == "https" and host.lower() == url.netloc.lower()


def _is_in(address: str | None, networks: tuple[str, ...]) -> bool:
    try:
        return address is not None and any(ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False) for network in networks)
    except ValueError:
        return False


def _client(forwarded_for: str, trusted: tuple[str, ...]) -> str | None:
    """The last address that no trusted proxy has: what stands before it may be invented."""
    for part in reversed([part.strip() for part in forwarded_for.split(",")]):
        if not _is_address(part):
            return None
        if not _is_in(part, trusted):
            return part
    return None


def _cookie(header: str, name: str) -> str | None:
    """The value of a cookie; None also when there are several of this name, since one of them is not ours."""
    if sum(part.strip().startswith(f"{name}=") for part in header.split(";")) != 1:
        return None
    try:
        morsel = SimpleCookie(header).get(name)
    except CookieError:
        return None
    return morsel.value if morsel is not None and 0 < len(morsel.value) <= 200 else None
