"""Operations on a server, by REST: the request is made from the operation, the answer read as its result.

What is asked again after a lost connection or a busy server: reading, replacing and deleting (asking twice does what asking once
does), and POST with an Idempotency-Key, by which the server knows that it has done it already. A PATCH is not.
"""

from __future__ import annotations

import inspect
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, ParamSpec, TypeVar
from urllib.parse import quote, unquote, urlsplit

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

import danlu
from danlu.client.events import Happening, messages
from danlu.client.problems import error_of, unexpected, unreachable
from danlu.errors import DanluError, NoEffectError, OutdatedError
from danlu.services.platform.downloads import Download
from danlu.services.platform.operations import Operation
from danlu.store.uploads import Upload

P = ParamSpec("P")
R = TypeVar("R")
API = "/api/v1"
ATTEMPTS = 5
FIRST_WAIT_SECONDS = 0.2
MAX_WAIT_SECONDS = 30.0
BUSY = (429, 502, 503, 504)
"""The server (or what stands before it) says: not now."""
PATIENCE_SECONDS = 600.0
STREAMS = {"runs": "events/stream", "jobs": "log/stream"}
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class HttpTransport:
    """A server's REST API. It may be used by several threads at once."""

    def __init__(self, url: str, token: str | None = None, *, timeout_seconds: float = 30.0, sleep: Callable[[float], None] = time.sleep) -> None:
        self.url, self._sleep = _checked(url), sleep
        headers = {"User-Agent": f"danlu/{danlu.__version__}", "Accept": "application/json, application/problem+json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        # What a proxy of the environment is for lies elsewhere than this machine.
        is_here = urlsplit(self.url).hostname in LOOPBACK
        timeout = httpx.Timeout(timeout_seconds, connect=min(10.0, timeout_seconds))
        self._client = httpx.Client(base_url=self.url + API, headers=headers, timeout=timeout, trust_env=not is_here, follow_redirects=False)

    @property
    def where(self) -> str:
        """The server's address."""
        return self.url

    @property
    def patience_seconds(self) -> float:
        """Long enough for a server or its machine to start again."""
        return PATIENCE_SECONDS

    def call(self, operation: Operation[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Carry out an operation.

        Raises:
            DanluError: what the operation raised on the server.
            ServerError: the server cannot be reached, or answers what this version does not understand.
        """
        arguments = inspect.signature(operation.function).bind(None, *args, **kwargs).arguments
        path, query, body = _request(operation, arguments)
        result = operation.types["return"]
        if result is Download:
            return self._download(path, query)  # type: ignore[return-value]
        version = arguments.get("version")
        response = self.send(operation.verb, path, query, body, {} if version is None else {"If-Match": f'"{version}"'})
        if operation.status == 204:
            return None  # type: ignore[return-value]
        return self._read(response, result)  # type: ignore[no-any-return]

    def send(
        self, verb: str, path: str, query: Mapping[str, Any], body: bytes | None, headers: Mapping[str, str] | None = None, *, also_fine: Sequence[int] = ()
    ) -> httpx.Response:
        """Send a request, again where that is safe, and return the answer.

        Raises:
            DanluError: the answer tells an error.
        """
        told = dict(headers or {})
        if body is not None:
            told.setdefault("Content-Type", "application/json")
        if verb == "POST":
            told.setdefault("Idempotency-Key", uuid.uuid4().hex)
        was_lost = False  # an earlier attempt may have been carried out, and its answer lost
        for attempt in range(ATTEMPTS):
            is_last = attempt == ATTEMPTS - 1
            try:
                response = self._client.request(verb, path, params=dict(query), content=body, headers=told)
            except httpx.HTTPError as error:
                was_lost = was_lost or not isinstance(error, httpx.ConnectError)
                if is_last or (was_lost and verb == "PATCH"):
                    raise unreachable(self.url, error) from error
                self._wait(attempt)
                continue
            if response.is_success or response.status_code in also_fine or (was_lost and verb == "DELETE" and response.status_code == 404):
                return response
            is_busy = response.status_code in BUSY and (verb != "PATCH" or response.status_code == 429)
            is_under_way = was_lost and verb == "POST" and response.status_code == 409
            if is_last or not (is_busy or is_under_way):
                raise error_of(response)
            self._wait(attempt, response.headers.get("Retry-After"))
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def stream(self, path: str, query: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None) -> Iterator[httpx.Response]:
        """Open an answer that is read while it comes; one attempt, since only the caller knows where to go on.

        Raises:
            DanluError: the answer tells an error.
            ServerError: the server cannot be reached, also half way.
        """
        try:
            with self._client.stream("GET", path, params=dict(query or {}), headers=dict(headers or {})) as response:
                if not response.is_success:
                    response.read()
                    raise error_of(response)
                yield response
        except httpx.HTTPError as error:
            raise unreachable(self.url, error) from error

    def append(self, upload_id: str, offset: int, chunk: bytes, sha256: str) -> Upload:
        """Add a chunk to an upload. Sent again after a lost answer, the studio says where the upload stands (ConflictError)."""
        headers = {"Content-Type": "application/octet-stream", "X-Content-SHA256": sha256}
        response = self.send("PUT", f"/uploads/{quote(upload_id, safe='')}/data", {"offset": offset}, chunk, headers)
        made: Upload = self._read(response, Upload)
        return made

    def follow(self, noun: Literal["runs", "jobs"], id: str, position: str | None = None) -> Iterator[Happening]:
        """What happens to a run, or in the log of a job. A stream that is cut is taken up again where it was."""
        path = f"/{noun}/{quote(id, safe='')}/{STREAMS[noun]}"
        failures = 0
        while True:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": position} if position else {})
            try:
                with self.stream(path, headers=headers) as response:
                    for found in messages(response.iter_lines()):
                        failures = 0
                        if found.kind == "end":
                            return
                        position = found.position or position
                        yield found
            except DanluError as error:
                if error.http_status not in BUSY or failures + 1 >= ATTEMPTS:
                    raise
            failures += 1
            self._wait(failures)

    def wake(self) -> None:
        """The server has its worker."""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _download(self, path: str, query: Mapping[str, Any]) -> Download:
        """A file to be read from the server, in parts, while it stays the same."""
        first = self.send("GET", path, query, None, {"Range": "bytes=0-0", "Accept": "*/*"}, also_fine=(416,))
        if first.status_code == 416 and first.headers.get("Content-Range") == "bytes */0":
            return Download("", 0, "empty", lambda start, length: iter(()))
        size = re.fullmatch(r"bytes (?:0-0|\*)/(\d{1,19})", first.headers.get("Content-Range", ""))
        tag, name = first.headers.get("ETag", ""), re.search(r"filename\*=UTF-8''([^;\s]+)", first.headers.get("Content-Disposition", ""))
        if size is None or not tag or name is None:
            raise unexpected(first, "it is no file that can be read in parts")

        def read(start: int, length: int) -> Iterator[bytes]:
            if length <= 0:
                return
            with self.stream(path, query, {"Range": f"bytes={start}-{start + length - 1}", "If-Match": tag, "Accept": "*/*"}) as response:
                if response.status_code != 206 or response.headers.get("ETag") != tag:
                    raise OutdatedError("the file was changed while it was read", why="its content is another one now", fix="download it again")
                yield from response.iter_bytes()

        return Download(unquote(name[1]), int(size[1]), tag.strip('"'), read)

    def _read(self, response: httpx.Response, hint: Any) -> Any:
        try:
            return _adapter(hint).validate_json(response.content)
        except ValidationError as error:
            raise unexpected(response, f"{error.error_count()} fields are not as this version knows them") from error

    def _wait(self, attempt: int, told: str | None = None) -> None:
        seconds = FIRST_WAIT_SECONDS * 2**attempt * random.uniform(0.8, 1.2)  # so that many clients do not come back at once
        if told is not None and re.fullmatch(r"\d{1,6}", told):
            seconds = float(told)
        self._sleep(min(seconds, MAX_WAIT_SECONDS))


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise NoEffectError(
            f"{url[:200]!r} is not the address of a server", why="it is a scheme, a host, a port", fix="write for example https://studio.example.org"
        )
    return url.rstrip("/").removesuffix(API)


def _request(operation: Operation[..., Any], arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any], bytes | None]:
    """Path, query and body of a request, from the arguments of an operation: the same division as in api/routes.py."""
    in_path = set(re.findall(r"{(\w+)}", operation.path))
    path, query, body = operation.path, {}, None
    for name, value in arguments.items():
        if name in in_path:
            path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
        elif name == operation.body:
            assert isinstance(value, BaseModel)
            body = value.model_dump_json(exclude_unset=True).encode()
        elif name in operation.types and name != "version" and value is not None:
            query[name] = TypeAdapter(operation.types[name]).dump_python(value, mode="json")
    return path, query, body


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)
