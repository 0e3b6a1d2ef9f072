"""One route for each operation. What REST adds is only how arguments arrive and how the answer is sent.

ETags: what has a version is tagged with it, other answers with a hash of their bytes. `If-Match` is the `version` of operations that
take one. Operations are blocking functions; each runs whole (who asks, the operation, the answer's bytes) in one thread of a bounded pool
when it is the asker's turn (turns.py).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Coroutine
from functools import cache, partial
from hashlib import blake2b
from typing import Annotated, Any, get_args, get_origin
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Body, Path, Query, Request, Response
from fastapi.params import Param
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from danlu.api import downloads
from danlu.api.problems import MEDIA_TYPE
from danlu.api.turns import Turns
from danlu.errors import OutdatedError, RequestError
from danlu.services.platform.access import Actor
from danlu.services.platform.operations import Operation, load_all
from danlu.services.platform.receipts import AlreadyDoneError, KeyReceipt
from danlu.store.rows import MAX_PAGE, Page

GetActor = Callable[[Request], Actor]
ID = Path(max_length=80, pattern="^[0-9a-z_]+$")
MAX_NUMBER = 2**53
MAX_DEPTH = 100
"""How deep the JSON of a request may be nested: what is deeper can be read, but neither shown in an error nor written again."""
NUMBER = Path(ge=0, le=MAX_NUMBER)
TEXT_PATTERN = r"^[^\x00-\x1f\x7f]*$"
KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,255}")
PROBLEM: dict[int | str, dict[str, Any]] = {
    "default": {"description": "An error: what happened, why, what to do.", "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
}

UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "Nothing has changed since the answer whose ETag was sent."}}


@cache
def router(get_actor: GetActor, *, is_described: bool = False) -> APIRouter:
    """Return the routes of every operation; `get_actor` says who asks. What they answer is only described when it is asked for: it takes time.

    They hold nothing of an installation (that is in the request's `app.state`), so one process makes them once, for however many applications.
    """
    made = APIRouter(route_class=StrictRoute, responses=PROBLEM)
    for operation in load_all().values():
        described = inspect.getdoc(operation.function) or ""
        is_download = operation.types["return"] is downloads.Download
        made.add_api_route(
            operation.path,
            _endpoint(operation, get_actor),
            methods=[operation.verb],
            status_code=operation.status,
            operation_id=operation.name,
            tags=[operation.noun],
            summary=described.splitlines()[0],
            description=described,
            response_model=operation.types["return"] if is_described and operation.status != 204 and not is_download else None,
            response_class=downloads.AnyFile if is_download else downloads.Json,
            responses={**(UNCHANGED if operation.verb == "GET" else {}), **(downloads.described() if is_download else {})},
            openapi_extra={"parameters": _headers(operation), "x-right": operation.right},
        )
    return made


class _StrictRequest(Request):
    """JSON as the standard has it: no NaN, no half characters, no NUL, nothing nested without end."""

    async def json(self) -> Any:
        body = await self.body()
        value = orjson.loads(body)
        if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
            raise orjson.JSONDecodeError(f"it is nested more than {MAX_DEPTH} deep", "", 0)
        if b"\\u0000" in body and _has_nul(value):
            raise orjson.JSONDecodeError("the character NUL is not text", "", 0)
        return value


class StrictRoute(APIRoute):
    """A route that reads bodies strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


def _is_deeper(value: Any, most: int) -> bool:
    """Whether lists and mappings stand inside each other more than so many times."""
    level = [value]
    for _ in range(most + 1):
        level = [item for one in level if isinstance(one, dict | list) for item in (one.values() if isinstance(one, dict) else one)]
        level = [item for item in level if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(_has_nul(item) for item in value)


def _endpoint(operation: Operation[..., Any], get_actor: GetActor) -> Callable[..., Any]:
    answer = _Answer(operation, get_actor)

    async def endpoint(request: Request, **arguments: Any) -> Response:
        turns: Turns = request.app.state.turns
        if operation.is_long:
            return await turns.answer(request, partial(answer, request, arguments))
        return await turns.operation(request, answer, request, arguments)

    in_path = set(re.findall(r"{(\w+)}", operation.path))
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("request", keyword, annotation=Request)]
    for parameter in list(inspect.signature(operation.function).parameters.values())[1:]:
        if parameter.name == "version":
            continue
        hint = operation.types[parameter.name]
        in_address = NUMBER if hint is int else ID
        kind = in_address if parameter.name in in_path else Body() if parameter.name == operation.body else _option(operation, parameter.name, hint)
        parameters.append(inspect.Parameter(parameter.name, keyword, annotation=Annotated[hint, kind], default=parameter.default))
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    endpoint.__name__ = operation.name
    return endpoint


def _option(operation: Operation[..., Any], name: str, hint: Any) -> Param:
    """A query parameter with bounds, so that no number or text reaches the database that it cannot hold."""
    parts = set(get_args(hint)) or {hint}
    if name == "limit" and _is_page(operation.types["return"]):
        return Query(ge=1, le=MAX_PAGE)  # type: ignore[no-any-return]
    if parts & {int, float} and bool not in parts:
        return Query(ge=0 if name in ("limit", "offset", "start") else -MAX_NUMBER, le=MAX_NUMBER)  # type: ignore[no-any-return]
    if str in parts:
        return Query(max_length=1000, pattern=TEXT_PATTERN)  # type: ignore[no-any-return]
    return Query()  # type: ignore[no-any-return]


def _is_page(hint: Any) -> bool:
    return get_origin(hint) is Page or hint is Page


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


class _Answer:
    """What is done for one request of one operation, in a thread."""

    def __init__(self, operation: Operation[..., Any], get_actor: GetActor) -> None:
        self.operation, self.get_actor = operation, get_actor
        self.has_version = "version" in operation.types
        self.has_body = operation.status != 204
        self.is_download = operation.types["return"] is downloads.Download

    def encode(self, result: Any) -> bytes:
        """The answer as JSON."""
        return _adapter(self.operation.types["return"]).dump_json(result)

    def __call__(self, request: Request, arguments: dict[str, Any]) -> Response:
        operation, platform, actor = self.operation, request.app.state.platform, self.get_actor(request)
        if self.has_version:
            arguments["version"] = if_match(request.headers.get("if-match"))
        key = request.headers.get("idempotency-key") if _keeps_receipts(operation) else None
        if key is None:
            return self._send(request, operation(platform, actor, **arguments))
        receipt = KeyReceipt(actor.user_id or "", _checked(key), _identity(request, arguments, operation.body), self._kept)
        try:
            return self._send(request, operation.once(receipt, platform, actor, **arguments))
        except AlreadyDoneError as done:
            body = done.response["body"]
            headers = {"Idempotency-Replayed": "true"} | ({"ETag": done.response["etag"]} if done.response["etag"] else {})
            return Response(body.encode() if body is not None else None, done.response["status"], headers, "application/json")
        finally:
            receipt.leave()

    def _kept(self, result: Any) -> dict[str, Any]:
        body = self.encode(result).decode() if self.has_body else None
        return {"status": self.operation.status, "body": body, "etag": _version_tag(result)}

    def _send(self, request: Request, result: Any) -> Response:
        if not self.has_body:
            return Response(status_code=204)
        if self.is_download:
            return downloads.send(request, result)
        tag = _version_tag(result)
        wanted = request.headers.get("if-none-match") if self.operation.verb == "GET" else None
        headers = {"Cache-Control": "private, no-cache"}
        if tag is not None and wanted is not None and _matches(wanted, tag):
            return Response(status_code=304, headers=headers | {"ETag": tag})
        body = self.encode(result)
        if self.operation.verb == "GET":
            tag = tag or f'"{blake2b(body, digest_size=12).hexdigest()}"'
            if wanted is not None and _matches(wanted, tag):
                return Response(status_code=304, headers=headers | {"ETag": tag})
        if tag is not None:
            headers["ETag"] = tag
        if isinstance(result, Page) and result.next is not None:
            options = [(name, value) for name, value in request.query_params.multi_items() if name != "after"] + [("after", result.next)]
            headers["Link"] = f'<{request.url.path}?{urlencode(options)}>; rel="next"'
        return Response(body, self.operation.status, headers, "application/json")


def _version_tag(result: Any) -> str | None:
    version = getattr(result, "version", None)
    return f'"{version}"' if isinstance(version, int) else None


def _matches(wanted: str, tag: str) -> bool:
    """Whether an If-None-Match header names this tag (weakly: a proxy may have compressed the answer)."""
    return wanted.strip() == "*" or tag in (part.strip().removeprefix("W/") for part in wanted.split(","))


def if_match(header: str | None) -> int | None:
    """The version that an If-Match header asks for; None for any.

    Raises:
        OutdatedError: it names no version that could be the present one.
    """
    if header is None or header.strip() == "*":
        return None
    found = re.fullmatch(r'\s*"([0-9]{1,9})"\s*', header)
    if found is None:
        raise OutdatedError(
            "If-Match names no version of this", why="it must be an ETag that an answer carried", fix='send the ETag as it came, e.g. If-Match: "3"'
        )
    return int(found[1])


def _keeps_receipts(operation: Operation[..., Any]) -> bool:
    """Whether a repetition gets the first answer: only of what changes something. Else whoever may read could fill the database with answers."""
    return operation.verb == "POST" and operation.is_change


def _checked(key: str) -> str:
    if KEY_PATTERN.fullmatch(key) is None:
        raise RequestError("Idempotency-Key is not usable", why="it must be 1 to 255 visible ASCII characters without spaces", fix="send a new UUID")
    return key


def _identity(request: Request, arguments: dict[str, Any], body: str | None) -> bytes:
    """What makes a request this one: the same thing asked again gives the same bytes."""
    options = {name: value for name, value in arguments.items() if name != body}
    said = arguments[body].model_dump(mode="json") if body is not None and arguments.get(body) is not None else None
    return orjson.dumps([request.method, request.url.path, options, said], option=orjson.OPT_SORT_KEYS, default=str)


def _headers(operation: Operation[..., Any]) -> list[dict[str, Any]]:
    """The request headers that an operation understands, for the OpenAPI file."""
    made: list[tuple[str, str, dict[str, Any]]] = []
    if operation.verb == "GET" and operation.types["return"] is not downloads.Download:
        made.append(("If-None-Match", "ETag of an earlier answer; 304 without a body when nothing has changed.", {"type": "string"}))
    if "version" in operation.types:
        made.append(("If-Match", "ETag that the change was made for; 412 when it was changed since.", {"type": "string"}))
    if _keeps_receipts(operation):
        schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
        made.append(("Idempotency-Key", "Sent again with the same key, the request is not done twice and gets the same answer.", schema))
    return [{"name": name, "in": "header", "required": False, "description": text, "schema": schema} for name, text, schema in made]
