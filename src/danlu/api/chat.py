"""Answers of models as they are written, as server-sent events."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import asdict
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request
from starlette.responses import StreamingResponse

from danlu.api.routes import ID, PROBLEM, GetActor
from danlu.api.stream import HEADERS
from danlu.api.turns import Turns
from danlu.errors import DanluError
from danlu.services.platform.chat import ChatPiece, Question, check_may_ask, stream_answer


def router(get_actor: GetActor) -> APIRouter:
    """Return the route; `get_actor` says who asks."""
    made = APIRouter(tags=["streams"], responses=PROBLEM)
    told: dict[int | str, dict[str, Any]] = {200: {"description": "Server-sent events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}}

    def may_ask(request: Request, project_id: Annotated[str, ID]) -> None:
        """Told before the body is looked at."""
        check_may_ask(request.app.state.platform, get_actor(request), project_id)

    @made.post(
        "/projects/{project_id}/chat/stream",
        dependencies=[Depends(may_ask)],
        operation_id="stream_answer",
        responses={**PROBLEM, **told},
        response_class=StreamingResponse,
        summary="Ask a model and follow its answer.",
    )
    def stream(request: Request, project_id: Annotated[str, ID], body: Question) -> StreamingResponse:
        """`loading` and `waiting` while nothing comes, `text` for each piece, `end` with the counts, or `error`. Closing the connection stops the model."""
        pieces = stream_answer(request.app.state.platform, get_actor(request), project_id, body)
        turns: Turns = request.app.state.turns
        return StreamingResponse(turns.pieces(request, _written(pieces)), media_type="text/event-stream", headers=HEADERS)

    return made


def _written(pieces: Iterator[ChatPiece]) -> Generator[bytes]:
    try:
        for piece in pieces:
            yield b"event: " + piece.kind.encode() + b"\ndata: " + orjson.dumps(asdict(piece)) + b"\n\n"
    except DanluError as error:  # the answer has begun: it can only be told in it
        yield b"event: error\ndata: " + orjson.dumps(error.to_dict()) + b"\n\n"
