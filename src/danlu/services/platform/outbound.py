"""Asking other servers on behalf of users: webhooks, imports from an address, the identity provider. Nothing else may do it.

An address from a user must not lead to this machine, the local network or the cloud's metadata service. So the name is resolved here,
every address it has must be public, and the connection goes to the address that was checked (a name that resolves to something else a
moment later changes nothing). Redirects are not followed unless asked for, and each goes the same way. Answers are limited in size and
time; compressed ones are refused, since a small one can be made to fill the memory. Proxies of the environment are not used.

# LIMIT: a network that is left only through a proxy cannot be left by these requests (docs/limits.md)
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from danlu.errors import OutboundError

MAX_BYTES = 1 << 20
TIMEOUT_SECONDS = 15.0
MAX_URL = 2048
_EMBEDDED = tuple(ipaddress.ip_network(network) for network in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96"))
"""IPv6 networks whose addresses carry an IPv4 address in their last bits."""


@dataclass(frozen=True)
class Answer:
    """What another server said."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    content: bytes
    url: str
    """Where it came from, after redirects."""

    def json(self) -> Any:
        """Return the content as JSON.

        Raises:
            OutboundError: it is none.
        """
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError) as error:
            raise OutboundError(f"{_shown(self.url)} did not answer with JSON", why=f"status {self.status}", fix="check the address") from error


def fetch(
    url: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    content: bytes | None = None,
    allow: Collection[str] = (),
    max_bytes: int = MAX_BYTES,
    timeout_seconds: float = TIMEOUT_SECONDS,
    max_redirects: int = 0,
) -> Answer:
    """Ask another server, and return its answer whatever the status is. Not to be called where an event loop runs (`fetch_async` is).

    `allow` names internal hosts that may be asked (`Settings.network.allow_hosts`), each `name` or `name:port`.

    Raises:
        OutboundError: the address must not be asked, cannot be reached, or answers too slowly or with too much.
    """
    return asyncio.run(
        fetch_async(
            url, method=method, headers=headers, content=content, allow=allow, max_bytes=max_bytes, timeout_seconds=timeout_seconds, max_redirects=max_redirects
        )
    )


async def fetch_async(
    url: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    content: bytes | None = None,
    allow: Collection[str] = (),
    max_bytes: int = MAX_BYTES,
    timeout_seconds: float = TIMEOUT_SECONDS,
    max_redirects: int = 0,
) -> Answer:
    """Like `fetch`, where an event loop runs."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _follow(url, method, headers or {}, content, allow, max_bytes, max_redirects)
    except TimeoutError as error:
        raise OutboundError(f"{_shown(url)} did not answer in {timeout_seconds:g} s", why="it is slow or cannot be reached", fix="try again later") from error
    except httpx.HTTPError as error:
        raise OutboundError(f"{_shown(url)} cannot be asked", why=type(error).__name__, fix="check the address and that its server runs") from error


async def check(url: str, *, allow: Collection[str] = ()) -> list[httpx.URL]:
    """Return the address with the host replaced by each network address to connect to; they are public, or allowed.

    Raises:
        OutboundError: the address must not be asked.
    """
    parsed = _parse(url)
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parsed.host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise OutboundError(f"there is no host {parsed.host!r}", why="its name cannot be resolved", fix="check the address") from error
    addresses = [str(entry[4][0]) for entry in found]
    if parsed.host not in allow and f"{parsed.host}:{port}" not in allow and not all(is_public(address) for address in addresses):
        # The addresses are not told: they would say what the inside of the network looks like.
        raise OutboundError(
            f"{parsed.host!r} is not a public host",
            why="it leads to this machine or an internal network",
            fix="an administrator can allow it: DANLU_ALLOW_HOSTS",
        )
    return [parsed.copy_with(host=address) for address in dict.fromkeys(addresses)]


def is_public(address: str) -> bool:
    """Whether everybody on the internet could reach this address; IPv4 addresses inside IPv6 ones count for themselves."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and any(ip in network for network in _EMBEDDED):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


async def _follow(url: str, method: str, headers: dict[str, str], content: bytes | None, allow: Collection[str], max_bytes: int, max_redirects: int) -> Answer:
    answer = await _once(url, method, headers, content, allow, max_bytes)
    for _ in range(max_redirects):
        if answer.status not in (301, 302, 303, 307, 308) or "location" not in answer.headers:
            return answer
        target = str(httpx.URL(url).join(answer.headers["location"]))
        if httpx.URL(target).host != httpx.URL(url).host:
            headers = {name: value for name, value in headers.items() if name.lower() not in ("authorization", "cookie")}
        if answer.status == 303 or (answer.status in (301, 302) and method == "POST"):
            method, content = "GET", None
        url = target
        answer = await _once(url, method, headers, content, allow, max_bytes)
    return answer


async def _once(url: str, method: str, headers: dict[str, str], content: bytes | None, allow: Collection[str], max_bytes: int) -> Answer:
    named = httpx.URL(url)
    sent = {"accept-encoding": "identity", "user-agent": "danlu", **headers, "host": named.netloc.decode("ascii")}
    received, size = [], 0
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=TIMEOUT_SECONDS) as client:
        targets = await check(url, allow=allow)
        requests = [client.build_request(method, target, headers=sent, content=content, extensions={"sni_hostname": named.host}) for target in targets]
        response = await _first_reached(client, requests)
        try:
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise OutboundError(f"{_shown(url)} sent a compressed answer", why="it was asked not to", fix="give an address that sends plain content")
            async for part in response.aiter_raw():
                size += len(part)
                if size > max_bytes:
                    raise OutboundError(f"{_shown(url)} sent more than {max_bytes} bytes", why="that is the limit here", fix="give an address with less")
                received.append(part)
        finally:
            await response.aclose()
    return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, b"".join(received), url)


async def _first_reached(client: httpx.AsyncClient, requests: list[httpx.Request]) -> httpx.Response:
    """Send the first request whose address can be connected to."""
    for request in requests[:-1]:
        with suppress(httpx.ConnectError, httpx.ConnectTimeout):
            return await client.send(request, stream=True)
    return await client.send(requests[-1], stream=True)


def _parse(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise OutboundError("this is no web address", why=str(error)[:200], fix="give one that begins with https://") from error
    if len(url) > MAX_URL or parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        raise OutboundError(
            f"{_shown(url)} is not taken", why="only http and https addresses without a name and password in them are", fix="give one that begins with https://"
        )
    return parsed


def _shown(url: str) -> str:
    """The address without what may be secret in it."""
    return url.partition("?")[0].partition("#")[0].rpartition("@")[2][:120]
