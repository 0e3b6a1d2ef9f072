"""Chunks of uploads: the body of a request is one, with its offset and its SHA-256. What begins and finishes an upload are operations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import TypeAdapter
from starlette.concurrency import run_in_threadpool

from danlu.api.routes import ID, PROBLEM, GetActor
from danlu.errors import SignInError, TooLargeError
from danlu.services.platform.places import Places
from danlu.services.platform.uploads import MAX_CHUNK_BYTES, MAX_UPLOAD_BYTES, append
from danlu.store.uploads import Upload

ENCODE = TypeAdapter(Upload).dump_json
BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}, "x-right": "editor"}


def router(get_actor: GetActor) -> APIRouter:
    """Return the route; `get_actor` says who asks."""
    made = APIRouter(tags=["uploads"], responses=PROBLEM)
    places = Places()

    @made.put("/uploads/{upload_id}/data", operation_id="append_chunk", openapi_extra=BODY, response_model=Upload, summary="Send the next chunk of an upload.")
    async def append_chunk(
        request: Request,
        upload_id: Annotated[str, ID],
        offset: Annotated[int, Query(ge=0, le=MAX_UPLOAD_BYTES, description="Where the chunk belongs: `received_bytes` of the upload.")],
        sha256: Annotated[str, Header(alias="X-Content-SHA256", pattern="^[0-9a-fA-F]{64}$", description="Checksum of the chunk, hexadecimal.")],
    ) -> Response:
        """It is on disk when it is answered: the upload then says where to go on. A cut chunk counts for nothing and is sent again."""
        actor = await run_in_threadpool(get_actor, request)
        if not actor.is_signed_in:  # else anybody could hold the places below with bodies that do not come
            raise SignInError(
                "nobody is signed in",
                why="files are taken from users only",
                fix="sign in, or send an API key (Authorization: Bearer dl_...; for `danlu`: DANLU_TOKEN)",
            )
        async with places.one(actor.user_id):
            chunk = await _chunk(request)
            upload = await run_in_threadpool(lambda: append(request.app.state.platform, actor, upload_id, offset=offset, chunk=chunk, sha256=sha256))
        return Response(ENCODE(upload), headers={"ETag": f'"{upload.version}"'}, media_type="application/json")

    return made


async def _chunk(request: Request) -> bytes:
    """The body.

    Raises:
        TooLargeError: it is larger than a chunk may be; the rest is not read.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_CHUNK_BYTES:
            raise TooLargeError("the chunk is too large", why=f"a chunk has at most {MAX_CHUNK_BYTES:,} bytes", fix="send the file in smaller pieces")
        parts.append(part)
    return b"".join(parts)
