"""Sending files: whole or in parts (Range, If-Range), and never as something a browser would run in our name."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from starlette.responses import JSONResponse, StreamingResponse

from danlu.api.problems import problem
from danlu.errors import RequestError
from danlu.services.platform.downloads import Download

__all__ = ["AnyFile", "Download", "Json", "send"]
SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
"""For reports: shown, but with an origin of their own and no network (their page allows itself one script)."""
MAX_NAME_CHARS = 150


class Json(JSONResponse):
    """What operations answer."""


class AnyFile(Response):
    """What downloads answer."""

    media_type = "application/octet-stream"


def send(request: Request, download: Download) -> Response:
    """Return the answer for a file, or for the part of it that is asked for."""
    tag = f'"{download.tag}"'
    headers = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition(download.file_name, "inline" if download.is_page else "attachment"),
        "Content-Security-Policy": SANDBOX,
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
    }
    media_type = "text/html; charset=utf-8" if download.is_page else AnyFile.media_type
    wanted = request.headers.get("if-none-match")
    if wanted is not None and tag in (part.strip().removeprefix("W/") for part in wanted.split(",")):
        return Response(status_code=304, headers=headers)
    part = _part(request, download, tag)
    if part is not None and part[1] <= 0:
        told = RequestError(f"the file has {download.size_bytes} bytes", why="the part asked for is not in it", fix="ask for a part inside it, or for all")
        return problem(told, status=416, headers={"Content-Range": f"bytes */{download.size_bytes}"})
    start, length = part or (0, download.size_bytes)
    headers["Content-Length"] = str(length)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{download.size_bytes}"
    return StreamingResponse(download.read(start, length), 206 if part is not None else 200, headers, media_type)


def disposition(name: str, kind: str = "attachment") -> str:
    """Return a Content-Disposition that says any name safely: ASCII for old programs, UTF-8 for the others (RFC 6266)."""
    plain = PurePosixPath(name.replace("\\", "/")).name
    plain = "".join(character for character in plain if character.isprintable())[:MAX_NAME_CHARS].strip(". ") or "download"
    plain = plain.encode("utf-8", errors="ignore").decode()
    ascii_name = re.sub(r"[^\w.() -]", "_", plain, flags=re.ASCII)
    return f"{kind}; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(plain, safe='')}"


def _part(request: Request, download: Download, tag: str) -> tuple[int, int] | None:
    """Start and length of the part asked for; None for the whole file; a length below 1 when it is not in the file."""
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", request.headers.get("range", "").replace(" ", ""))
    if found is None or found[0] == "bytes=-" or request.headers.get("if-range", tag) != tag:
        return None  # none, several or of another version: all of it is a right answer
    size = download.size_bytes
    if not found[1]:
        start, end = max(0, size - int(found[2])), size - 1
    else:
        start, end = int(found[1]), min(size - 1, int(found[2]) if found[2] else size - 1)
    return start, end - start + 1


def described() -> dict[int | str, Any]:
    """What a download may answer, for the OpenAPI file."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    content = {"application/octet-stream": binary, "text/html": binary}
    return {200: {"description": "The file.", "content": content}, 206: {"description": "The part asked for.", "content": content}}
