"""Errors as `application/problem+json` (RFC 9457): what happened, why, what to do. One handler for everything Danlu raises."""

from __future__ import annotations

import http
import logging
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException

from danlu.errors import DanluError, InternalError, MethodError, NotFoundError, RequestError
from danlu.logs import request_id

logger = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
MAX_MISTAKES = 50
MAX_MESSAGE_CHARS = 300
RETRY_AFTER_SECONDS = {429: "5", 503: "2"}


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong with a request."""

    path: str
    """Its place: `body.name`, `query.limit`."""
    message: str


@dataclass(frozen=True)
class Problem:
    """An error as REST tells it."""

    type: str
    """urn:danlu:error:CODE; docs/errors.md has a section for each code."""
    title: str
    """What errors of this code are about."""
    status: int
    detail: str
    """What happened."""
    code: str
    why: str
    fix: str
    request_id: str
    """Finds the request in the server's log."""
    errors: list[Mistake] = field(default_factory=list)
    """Every mistake of a request, when there are several to tell."""


def problem(error: DanluError, *, status: int | None = None, mistakes: list[Mistake] | None = None, headers: dict[str, str] | None = None) -> Response:
    """Return the answer for an error."""
    status = status or error.http_status
    told = Problem(
        type=f"urn:danlu:error:{error.code}",
        title=(type(error).__doc__ or "").strip().splitlines()[0],
        status=status,
        detail=error.what,
        code=error.code,
        why=error.why,
        fix=error.fix,
        request_id=request_id.get(),
        errors=mistakes or [],
    )
    headers = {"Cache-Control": "no-store", **(headers or {})}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="danlu"'
    if status in RETRY_AFTER_SECONDS:
        headers.setdefault("Retry-After", RETRY_AFTER_SECONDS[status])
    return Response(orjson.dumps(asdict(told)), status, headers, MEDIA_TYPE)


def defect() -> Response:
    """Return the answer for a defect in Danlu; its traceback is in the log, not in the answer."""
    return problem(InternalError("the request could not be carried out", why="a defect in Danlu", fix="report it with the request id and the server's log"))


def schema() -> dict[str, Any]:
    """JSON Schema of `Problem`."""
    made = TypeAdapter(Problem).json_schema(ref_template="#/components/schemas/{model}")
    made.pop("$defs", None)
    return made


def mistake_schema() -> dict[str, Any]:
    """JSON Schema of `Mistake`."""
    return TypeAdapter(Mistake).json_schema()


def install(app: FastAPI) -> None:
    """Tell every error as a problem."""

    @app.exception_handler(DanluError)
    async def _danlu(request: Request, error: DanluError) -> Response:
        if error.http_status >= 500:
            logger.error("%s", error)
        return problem(error, headers=getattr(error, "headers", None))

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:
        mistakes = [Mistake(_place(found["loc"]), str(found["msg"])[:MAX_MESSAGE_CHARS]) for found in error.errors()[:MAX_MISTAKES]]
        named = "; ".join(f"{mistake.path}: {mistake.message}" for mistake in mistakes[:3])
        told = RequestError(
            f"the request has {len(error.errors())} mistake(s)", why=named, fix="correct what `errors` lists; docs/rest.md has the types and bounds"
        )
        return problem(told, mistakes=mistakes)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        return problem(_as_error(request, error), status=error.status_code, headers=dict(error.headers or {}))


def _as_error(request: Request, error: HTTPException) -> DanluError:
    if error.status_code == 404:
        return NotFoundError(
            "there is nothing at this address", why="no operation has this address", fix="docs/rest.md lists the addresses; they begin with /api/v1"
        )
    if error.status_code == 405:
        return MethodError(f"{request.method} is not done here", why="this address takes other methods", fix="use one of those in the `Allow` header")
    phrase = http.HTTPStatus(error.status_code).phrase if error.status_code in set(http.HTTPStatus) else "refused"
    return RequestError(f"the request was refused: {phrase}", why=str(error.detail)[:MAX_MESSAGE_CHARS], fix="correct the request")


def _place(location: tuple[Any, ...]) -> str:
    return ".".join(str(part)[:80] for part in location[:12])
