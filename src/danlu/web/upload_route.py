"""Where the drop zone sends its pieces."""

from __future__ import annotations

import hashlib

from fastapi import Request
from fastapi.responses import JSONResponse
from nicegui import app as pages_app
from nicegui import run

from danlu.errors import ConflictError, DanluError
from danlu.services.platform import uploads
from danlu.web.template import STUDIO


@pages_app.put("/studio-upload/{upload_id}", include_in_schema=False)
async def take_piece(request: Request, upload_id: str, offset: int) -> JSONResponse:
    """Add a piece, and tell where the upload stands; where it stands elsewhere, tell that."""
    chunk = await request.body()
    try:
        received = await run.io_bound(_append, request, upload_id, offset, chunk)
    except DanluError as error:
        return JSONResponse(error.to_dict(), status_code=error.http_status)
    return JSONResponse({"received_bytes": received})


def _append(request: Request, upload_id: str, offset: int, chunk: bytes) -> int:
    platform, actor = STUDIO.opened(), STUDIO.actor(request)
    try:
        return uploads.append(platform, actor, upload_id, offset=offset, chunk=chunk, sha256=hashlib.sha256(chunk).hexdigest()).received_bytes
    except ConflictError:  # an answer was lost: go on where it stands
        upload = uploads.get_upload(platform, actor, upload_id)
        if upload.state != "open":
            raise
        return upload.received_bytes
