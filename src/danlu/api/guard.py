"""Around every request and websocket, before any route: who may ask at all, how much, how long, and what every answer carries.

It knows no users and asks no database: what needs those is `security.Security`.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from danlu.api.incoming import SAFE_VERBS, Incoming, check_host, check_origin
from danlu.api.problems import problem
from danlu.errors import CrossSiteError, DanluError, MediaTypeError, TooLargeError, TooManyRequestsError, TooSlowError
from danlu.services.platform import rates
from danlu.services.platform.tokens import csrf_token, hash_token
from danlu.services.platform.uploads import MAX_CHUNK_BYTES

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from danlu.api.security import Security

API = "/api/"
SIGN_INS = tuple(f"/api/v1/session{what}" for what in ("", "/first-admin", "/invitation", "/oidc"))
"""Where somebody signs in who may have the cookie of an older session (sign_in.py)."""
MAX_HEADER_BYTES = 32 * 1024
MAX_URL_BYTES = 8 * 1024
MAX_BODY_BYTES = 4 * 1024**2
MAX_PART_BYTES = MAX_CHUNK_BYTES + 64 * 1024
"""A part of an upload: its own door says exactly how large it may be."""
PARTS = ("/api/v1/uploads/", "/studio-upload/")
"""Where parts of files are taken. Anywhere else octets are a body like any other, which is read into memory whole."""
UPLOAD = "application/octet-stream"
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
"""What a form of any website can send without asking."""
BODY_SECONDS = 30.0
"""In which the body of a request has to come."""
SILENCE_SECONDS = 60.0
"""How long a part of an upload may send nothing."""
LEAST_BYTES_PER_SECOND = 8 * 1024
"""How slowly it may come on average, after that time: it holds a place in memory that others wait for."""
NUM_SLOW_BODIES = 64
"""Bodies of one asker that are waited for at a time. They nearly always come with their headers."""
NUM_SOCKETS = 300
"""Websockets of one asker at a time: each page holds one."""
NUM_MESSAGES_AT_ONCE = 1000
"""Messages of one websocket that are taken at once ..."""
MESSAGES_PER_SECOND = 50.0
"""... and on average after that; people press fewer buttons, and each press may ask the database."""
CHECK_EVERY_SECONDS = 10.0
"""How soon an open stream or websocket notices that its session has ended."""
ANONYMOUS_PER_MINUTE = 3000

# NiceGUI's pages compile their templates in the browser, which takes 'unsafe-eval', and carry styles and a script inside.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
API_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"


class _AddressTooLong(TooLargeError):
    """An address that is too long."""

    http_status = 414


class _HeadersTooLarge(TooLargeError):
    """Headers that are too large."""

    http_status = 431


class _SessionEnded(OSError):
    """What a stream is told whose session has ended: the same as when the client is gone."""


class Guard:
    """The middleware."""

    def __init__(
        self,
        app: ASGIApp,
        security: Security,
        *,
        body_seconds: float = BODY_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
        check_seconds: float = CHECK_EVERY_SECONDS,
    ) -> None:
        self.app, self.security = app, security
        self.body_seconds, self.silence_seconds, self.check_seconds = body_seconds, silence_seconds, check_seconds
        self.num_waited_for: Counter[str] = Counter()
        """Bodies that are waited for, by who sends them."""
        self.num_sockets: Counter[str] = Counter()
        """Websockets that are open, by who has them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        incoming = Incoming.of(scope, self.security.network)
        scope["danlu.security"], scope["danlu.incoming"] = self.security, incoming
        try:
            _check_sizes(scope, incoming)
            check_host(incoming, self.security.network, self.security.host)
            check_origin(incoming, self.security.network)
            _check_csrf(incoming)
            _check_kind(incoming)
            self._check_rate(incoming)
        except DanluError as error:
            await _refuse(scope, incoming, send, error)
            return
        if scope["type"] == "websocket":
            await self._hold(scope, incoming, receive, send)
        else:
            exchange = _Exchange(self, scope, incoming, receive, send)
            try:
                await self.app(scope, exchange.receive, exchange.send)
            except DanluError as error:
                if error is not exchange.refusal:
                    raise
                await exchange.refuse()
            except (_SessionEnded, ClientDisconnect):
                if not exchange.has_ended:
                    raise

    async def _hold(self, scope: Scope, incoming: Incoming, receive: Receive, send: Send) -> None:
        """Let a websocket live, unless its asker has enough of them."""
        who = incoming.asker
        if self.num_sockets[who] >= NUM_SOCKETS:
            why = f"{NUM_SOCKETS} of the same user are open"
            await _refuse(scope, incoming, send, TooManyRequestsError("too many websockets", why=why, fix="close some pages of the studio"))
            return
        self.num_sockets[who] += 1
        watched = _Watched(self, scope, receive, send)
        try:
            await self.app(scope, watched.receive, watched.send)
        finally:
            self.num_sockets[who] -= 1
            if not self.num_sockets[who]:
                del self.num_sockets[who]

    def _check_rate(self, incoming: Incoming) -> None:
        """Raises: TooManyRequestsError."""
        credential = incoming.bearer or incoming.session_token
        if credential is None:
            if self.security.is_single_user_request(incoming):
                return
            rates.attempt(f"anonymous requests {self.security.platform.home}", incoming.client, most=ANONYMOUS_PER_MINUTE, seconds=60)
        else:
            rates.attempt(f"requests {self.security.platform.home}", hash_token(credential), incoming.client, most=self.security.network.rate_limit, seconds=60)


class _Exchange:
    """One request and its answer."""

    def __init__(self, guard: Guard, scope: Scope, incoming: Incoming, receive: Receive, send: Send) -> None:
        self.guard, self.scope, self.incoming, self._receive, self._send = guard, scope, incoming, receive, send
        self.most = _most(incoming)
        self.is_upload = _is_upload(incoming)
        self.who = incoming.asker
        self.begun_at = time.monotonic()
        self.num_bytes, self.is_whole = 0, False
        self.refusal: DanluError | None = None
        self.has_begun = self.is_stream = self.has_ended = False
        self.checked_at = time.monotonic()

    async def receive(self) -> Message:
        """Pass on a part of the body.

        Raises:
            TooLargeError, TooSlowError: the body is too large, or does not come.
            TooManyRequestsError: too many others of the same asker are waited for.
        """
        if self.is_whole:
            return await self._receive()
        if self.is_upload and not self.num_bytes:
            self.begun_at = time.monotonic()  # it may have waited for a place before
        with self._waited_for():
            try:
                async with asyncio.timeout(seconds := self._patience()):
                    message = await self._receive()
            except TimeoutError as error:
                why = f"{self.num_bytes:,} bytes came in {time.monotonic() - self.begun_at:.0f} s, then nothing for {seconds:.0f} s"
                self.refusal = TooSlowError("the body did not come in time", why=why, fix="send it again, a file in smaller parts")
                raise self.refusal from error
        if message["type"] == "http.request":
            self.num_bytes += len(message.get("body", b""))
            self.is_whole = not message.get("more_body", False)
            if self.num_bytes > self.most:
                self.refusal = _too_large(self.most)
                raise self.refusal
        return message

    def _patience(self) -> float:
        """Seconds to wait for the next part of the body."""
        passed = time.monotonic() - self.begun_at
        if not self.is_upload:
            return max(0.0, self.guard.body_seconds - passed)
        return max(0.0, min(self.guard.silence_seconds, self.guard.silence_seconds + self.num_bytes / LEAST_BYTES_PER_SECOND - passed))

    @contextmanager
    def _waited_for(self) -> Iterator[None]:
        """Count the body while it is waited for.

        Raises:
            TooManyRequestsError: one too many.
        """
        waiting = self.guard.num_waited_for
        if waiting[self.who] >= NUM_SLOW_BODIES:
            why = f"{NUM_SLOW_BODIES} requests of the same user are under way whose bodies have not come"
            self.refusal = TooManyRequestsError("too many bodies are waited for", why=why, fix="send the bodies of those first")
            raise self.refusal
        waiting[self.who] += 1
        try:
            yield
        finally:
            waiting[self.who] -= 1
            if not waiting[self.who]:
                del waiting[self.who]

    async def send(self, message: Message) -> None:
        """Pass on a part of the answer, with the headers that every answer has."""
        if self.refusal is not None and not self.has_begun:
            await self.refuse()
        if self.refusal is not None:
            return
        if message["type"] == "http.response.start":
            self.has_begun = True
            self.is_stream = any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in message.get("headers", []))
            message = {**message, "headers": _with_ours(list(message.get("headers", [])), self.incoming)}
        elif self.is_stream and time.monotonic() - self.checked_at > self.guard.check_seconds:
            self.checked_at = time.monotonic()
            if not await run_in_threadpool(self.guard.security.is_still_valid, self.scope):
                await self._send({"type": "http.response.body", "body": b""})
                self.has_ended = True
                raise _SessionEnded("the session has ended")
        await self._send(message)

    async def refuse(self) -> None:
        """Answer with the refusal, unless an answer is on its way."""
        if not self.has_begun and self.refusal is not None:
            self.has_begun = True
            await _refuse(self.scope, self.incoming, self._send, self.refusal)


class _Watched:
    """A websocket that ends soon after its session."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard, self.scope, self._receive, self._send = guard, scope, receive, send
        self.checked_at, self.has_ended = time.monotonic(), False
        self.num_left, self.counted_at = float(NUM_MESSAGES_AT_ONCE), time.monotonic()

    async def receive(self) -> Message:
        """Pass on a message while the session lasts and as long as it floods nobody; then close, and say that the other side is gone."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            return message
        if self._floods():
            return await self._end("too many messages")
        if time.monotonic() - self.checked_at > self.guard.check_seconds:
            self.checked_at = time.monotonic()
            if not await run_in_threadpool(self.guard.security.is_still_valid, self.scope):
                return await self._end("the session has ended")
        return message

    def _floods(self) -> bool:
        now = time.monotonic()
        self.num_left = min(NUM_MESSAGES_AT_ONCE, self.num_left + (now - self.counted_at) * MESSAGES_PER_SECOND) - 1
        self.counted_at = now
        return self.num_left < 0

    async def _end(self, reason: str) -> Message:
        await self._send({"type": "websocket.close", "code": 1008, "reason": reason})
        self.has_ended = True
        return {"type": "websocket.disconnect", "code": 1008, "reason": reason}

    async def send(self, message: Message) -> None:
        """Pass on a message, unless it was closed here."""
        if not self.has_ended:
            await self._send(message)


def _check_sizes(scope: Scope, incoming: Incoming) -> None:
    """Raises: TooLargeError."""
    if len(scope.get("raw_path") or scope["path"].encode()) + len(scope.get("query_string", b"")) > MAX_URL_BYTES:
        raise _AddressTooLong("the address is too long", why=f"{MAX_URL_BYTES} bytes are the limit", fix="send what is long in the body")
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        raise _HeadersTooLarge("the headers are too large", why=f"{MAX_HEADER_BYTES} bytes are the limit", fix="delete the cookies of this address")
    length = incoming.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or int(length[:20]) > _most(incoming):
        raise _too_large(_most(incoming))


def _check_csrf(incoming: Incoming) -> None:
    """A session's cookie comes with whatever a browser sends; what changes something has to bring a proof as well.

    Raises:
        CrossSiteError: the proof is missing.
    """
    if incoming.verb in (*SAFE_VERBS, "WEBSOCKET") or incoming.session_token is None or incoming.bearer is not None:
        return
    if not incoming.path.startswith(API) or (incoming.path in SIGN_INS and incoming.verb == "POST"):
        # Pages send no token of their own accord, and whoever signs in has none yet: these are told by the Origin, which must be there.
        if "origin" in incoming.headers or incoming.headers.get("sec-fetch-site") == "same-origin":
            return
        raise CrossSiteError("this request does not say which page made it", why="neither Origin nor Sec-Fetch-Site is there", fix="use a browser of today")
    if not hmac.compare_digest(incoming.headers.get("x-csrf-token", "").encode(), csrf_token(incoming.session_token).encode()):
        raise CrossSiteError("the CSRF token is missing or wrong", why="a session alone does not show who asks", fix="send X-CSRF-Token (GET /api/v1/session)")


def _check_kind(incoming: Incoming) -> None:
    """Raises: MediaTypeError."""
    if incoming.verb in (*SAFE_VERBS, "WEBSOCKET") or not incoming.path.startswith(API):
        return
    kind = incoming.headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = incoming.headers.get("content-length", "0") != "0" or "transfer-encoding" in incoming.headers
    if kind in FORMS or (has_body and not kind):
        raise MediaTypeError(f"a body of type {kind or 'none'!r} is not taken", why="any website can send one", fix="send Content-Type: application/json")


def _is_upload(incoming: Incoming) -> bool:
    """Whether it is a part of a file."""
    kind = incoming.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == UPLOAD and incoming.verb == "PUT" and incoming.path.startswith(PARTS)


def _most(incoming: Incoming) -> int:
    return MAX_PART_BYTES if _is_upload(incoming) else MAX_BODY_BYTES


def _too_large(most: int) -> TooLargeError:
    return TooLargeError("the body of the request is too large", why=f"{most} bytes are the limit", fix="send less at once; files go through the upload")


def _with_ours(headers: list[tuple[bytes, bytes]], incoming: Incoming) -> list[tuple[bytes, bytes]]:
    """Headers of an answer with those that every answer has; what a route has set stays."""
    is_api = incoming.path.startswith(API)
    ours = {
        b"content-security-policy": (API_POLICY if is_api else PAGE_POLICY).encode(),
        b"x-content-type-options": b"nosniff",
        b"x-frame-options": b"DENY",
        b"referrer-policy": b"same-origin",
        b"cross-origin-opener-policy": b"same-origin",
        b"cross-origin-resource-policy": b"same-origin",
        b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
    }
    if is_api:
        ours[b"cache-control"] = b"no-store"
    if incoming.is_secure:
        ours[b"strict-transport-security"] = b"max-age=31536000"
    present = {name.lower() for name, _ in headers}
    return headers + [(name, value) for name, value in ours.items() if name not in present]


async def _refuse(scope: Scope, incoming: Incoming, send: Send, error: DanluError) -> None:
    """Answer with an error, before or instead of a route."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": error.what[:100]})
        return
    answer = problem(error, headers={"Connection": "close"})
    await send({"type": "http.response.start", "status": answer.status_code, "headers": _with_ours(list(answer.raw_headers), incoming)})
    await send({"type": "http.response.body", "body": bytes(answer.body)})
