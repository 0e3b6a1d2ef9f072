"""Files in and out: where the drop zone sends its pieces, and the files of exports."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import quote

from fastapi import Body, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from nicegui import app as pages_app
from pydantic import StringConstraints
from starlette.requests import ClientDisconnect

from danlu.errors import ConflictError, DanluError, SignInError
from danlu.services.platform import exports, uploads
from danlu.services.platform.places import Places
from danlu.web.session import aside
from danlu.web.template import STUDIO

PLACES = Places()
Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


@pages_app.put("/studio-upload/{upload_id}", include_in_schema=False)
async def take_piece(request: Request, upload_id: str, offset: int) -> JSONResponse:
    """Add a piece, and tell where the upload stands; where it stands elsewhere, tell that."""
    try:
        user_id = await aside(lambda: _signed_in(request))
    except DanluError as error:
        return JSONResponse(error.to_dict(), status_code=error.http_status)
    async with PLACES.one(user_id):
        return await _taken(request, upload_id, offset)


@pages_app.post("/studio-upload/{upload_id}/compare", include_in_schema=False)
async def compare(request: Request, upload_id: str, size: int, length: int, pieces: Annotated[list[Digest], Body()]) -> JSONResponse:
    """Tell whether what has arrived of an upload has these checksums: a file of the same name may be another one."""

    def look() -> bool:
        return uploads.has_received(STUDIO.opened(), STUDIO.actor(request), upload_id, length=length, piece_bytes=size, sha256=pieces)

    try:
        user_id = await aside(lambda: _signed_in(request))
        async with PLACES.one(user_id):  # gigabytes are read again: pages must not wait for that
            is_same = await aside(look, is_long=True)
    except DanluError as error:
        return JSONResponse(error.to_dict(), status_code=error.http_status)
    return JSONResponse({"is_same": is_same})


async def _taken(request: Request, upload_id: str, offset: int) -> JSONResponse:
    try:
        chunk = await request.body()
        received = await aside(lambda: _append(request, upload_id, offset, chunk))
    except ClientDisconnect:  # cut on the way: what came of the piece counts for nothing
        return JSONResponse({}, status_code=400)
    except DanluError as error:
        return JSONResponse(error.to_dict(), status_code=error.http_status)
    return JSONResponse({"received_bytes": received})


def _signed_in(request: Request) -> str | None:
    """Who sends it: nobody else's bytes are read into memory.

    Raises:
        SignInError: nobody is signed in.
    """
    actor = STUDIO.actor(request)
    if not actor.is_signed_in:
        raise SignInError("nobody is signed in", why="files are taken from users only", fix="sign in, then load the page again")
    return actor.user_id


def _append(request: Request, upload_id: str, offset: int, chunk: bytes) -> int:
    platform, actor = STUDIO.opened(), STUDIO.actor(request)
    try:
        sha256 = request.headers.get("x-piece-sha256") or hashlib.sha256(chunk).hexdigest()  # pages that came by plain http cannot tell one
        return uploads.append(platform, actor, upload_id, offset=offset, chunk=chunk, sha256=sha256).received_bytes
    except ConflictError:  # an answer was lost: go on where it stands
        upload = uploads.get_upload(platform, actor, upload_id)
        if upload.state != "open":
            raise
        return upload.received_bytes


@pages_app.get("/studio-export/{export_id}", include_in_schema=False)
async def send_file(request: Request, export_id: str, name: str) -> Response:
    """Send a file of an export, as a file: never as a page."""
    try:
        file, parts = await aside(lambda: exports.read_file(STUDIO.opened(), STUDIO.actor(request), export_id, name))
    except DanluError as error:
        return JSONResponse(error.to_dict(), status_code=error.http_status)
    headers = {
        "Content-Length": str(file.size_bytes),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(PurePosixPath(file.name).name)}",
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(parts, media_type="application/octet-stream", headers=headers)
