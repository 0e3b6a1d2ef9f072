"""Files in and out: where the drop zone sends its pieces, and the files of exports."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from nicegui import app as pages_app

from danlu.errors import ConflictError, DanluError, SignInError
from danlu.services.platform import exports, uploads
from danlu.services.platform.places import Places
from danlu.web.session import aside
from danlu.web.template import STUDIO

PLACES = Places()


@pages_app.put("/studio-upload/{upload_id}", include_in_schema=False)
async def take_piece(request: Request, upload_id: str, offset: int) -> JSONResponse:
    """Add a piece, and tell where the upload stands; where it stands elsewhere, tell that."""
    try:
        user_id = await aside(lambda: _signed_in(request))
    except DanluError as error:
        return JSONResponse(error.to_dict(), status_code=error.http_status)
    async with PLACES.one(user_id):
        return await _taken(request, upload_id, offset)


async def _taken(request: Request, upload_id: str, offset: int) -> JSONResponse:
    chunk = await request.body()
    try:
        received = await aside(lambda: _append(request, upload_id, offset, chunk))
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
        return uploads.append(platform, actor, upload_id, offset=offset, chunk=chunk, sha256=hashlib.sha256(chunk).hexdigest()).received_bytes
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
