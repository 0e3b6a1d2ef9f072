"""Around every request: its id, a line in the log, its time in the metrics, and the last handler.

The log line has method, route template, status, time and request id: no query, no body, no header, so no secret and no record.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import TYPE_CHECKING

from danlu.api.problems import defect
from danlu.logs import request_id

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from danlu.api.metrics import Metrics

logger = logging.getLogger("danlu.access")
ID_PATTERN = re.compile(rb"[\w-]{1,64}")
QUIET = ("/healthz", "/readyz", "/metrics")


class Traffic:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever happens."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        name = given.decode() if ID_PATTERN.fullmatch(given) else secrets.token_hex(8)
        token = request_id.set(name)
        status, began = 0, time.perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), (b"x-request-id", name.encode())]}
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception:  # the door's last handler: the server must outlive any request's defect
            logger.exception("request crashed")
            if status == 0:
                await defect()(scope, receive, sending)
        finally:
            self._note(scope, status, time.perf_counter() - began)
            request_id.reset(token)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "other"
        self.metrics.count(scope["method"], route, status, seconds)
        level = logging.DEBUG if scope["path"] in QUIET else logging.INFO
        logger.log(level, "request", extra={"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1000, 1)})
