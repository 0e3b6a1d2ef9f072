"""Files that are kept compressed: each once, however it is asked for."""

import asyncio

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from danlu.web.packed import Packed

BODY = "a file that never changes " * 100


async def file(scope: Scope, receive: Receive, send: Send) -> None:
    """The file at whatever address."""
    await PlainTextResponse(BODY)(scope, receive, send)


async def _get(packed: Packed, path: str) -> list[Message]:
    sent: list[Message] = []
    scope: Scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"accept-encoding", b"gzip")]}

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    await packed(scope, receive, send)
    return sent


@pytest.mark.parametrize(("path", "kept"), [("studio.css", 1), ("x/../studio.css", 0), ("./studio.css", 0), ("/studio.css", 0), ("studio.css/", 0)])
def test_a_file_is_kept_under_its_own_name_only_since_others_have_no_end(path: str, kept: int) -> None:
    packed = Packed(file)

    first, second = (asyncio.run(_get(packed, f"/studio-files/{path}")) for _ in range(2))

    assert (first[0]["status"], second[0]["status"], len(packed.kept)) == (200, 200, kept)
