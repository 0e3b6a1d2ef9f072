"""Compressed answers; files that never change under their address are compressed once and kept, not anew for each visitor."""

from __future__ import annotations

import posixpath

from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LASTING = ("/_nicegui/", "/studio-files/")
"""Files of the pages: their addresses change with their content."""
PASSING = "/dynamic_resources/"
MAX_KEPT_BYTES = 16_000_000
"""All files together are far smaller; a bound all the same."""


class Packed(GZipMiddleware):
    """See the module."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, compresslevel=6)
        self.kept: dict[str, list[Message]] = {}
        self.num_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if not _is_lasting(scope):
            await super().__call__(scope, receive, send)
            return
        messages = self.kept.get(scope["path"])
        if messages is None:
            messages = []

            async def collect(message: Message) -> None:
                messages.append(message)

            await super().__call__(scope, receive, collect)
            self._keep(scope["path"], messages)
        for message in messages:
            await send(dict(message))

    def _keep(self, path: str, messages: list[Message]) -> None:
        size = sum(len(message.get("body", b"")) for message in messages)
        if messages[0].get("status") == 200 and path not in self.kept and self.num_bytes + size <= MAX_KEPT_BYTES:
            self.kept[path] = messages
            self.num_bytes += size


def _is_lasting(scope: Scope) -> bool:
    """Whether a request asks for the whole of a file that never changes, and takes it compressed."""
    if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith(LASTING) or PASSING in scope["path"]:
        return False
    if posixpath.normpath(scope["path"]) != scope["path"]:  # the same file by another name: there is no end of these
        return False
    headers = Headers(scope=scope)
    return "gzip" in headers.get("accept-encoding", "") and not {"range", "if-none-match", "if-modified-since"} & set(headers.keys())
