"""A studio on a home folder and one on a real server: the same tests for both."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from danlu.api.routes import router
from danlu.client import Studio
from danlu.client.local import LocalTransport
from danlu.errors import DanluError
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform


def problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DanluError)
    told = error.to_dict()
    return JSONResponse(told | {"detail": told["what"]}, error.http_status, media_type="application/problem+json")


def owner(request: Request) -> Actor:
    return Actor.local()


class Server(uvicorn.Server):
    """A server in a thread of the test."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))

    def start(self) -> str:
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        while not self.started:
            assert self.thread.is_alive(), "the server did not start"
            threading.Event().wait(0.01)
        return f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        self.should_exit = True
        self.thread.join(30)


@pytest.fixture
def url(platform: Platform) -> Iterator[str]:
    """Address of a server over the platform."""
    app = FastAPI()
    app.state.platform = platform
    app.add_exception_handler(DanluError, problem)
    app.include_router(router(owner), prefix="/api/v1")
    server = Server(app)
    yield server.start()
    server.stop()


@pytest.fixture(params=["local", "http"])
def studio(request: pytest.FixtureRequest, platform: Platform) -> Iterator[Studio]:
    """A studio by each transport. No worker is started."""
    made = Studio(LocalTransport(platform, starts_worker=False)) if request.param == "local" else Studio.connect(request.getfixturevalue("url"))
    yield made
    if request.param == "http":
        made.close()


class Scripted(ThreadingHTTPServer):
    """A server that answers as a test says, one answer for each request; None cuts the connection."""

    daemon_threads = True

    def __init__(self, answers: list[tuple[int, dict[str, str], bytes] | None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.requests = answers, list[tuple[str, str, dict[str, str], bytes]]()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Takes the next answer of the script."""

    def answer(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.requests.append((self.command, self.path, dict(self.headers.items()), body))
        answer = server.answers.pop(0)
        if answer is None:
            self.close_connection = True
            return
        status, headers, content = answer
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = answer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def scripted() -> Iterator[Any]:
    """Make a server from a list of answers."""
    made: list[Scripted] = []

    def make(*answers: Any) -> Scripted:
        made.append(Scripted(list(answers)))
        return made[-1]

    yield make
    for server in made:
        server.shutdown()
        server.server_close()


@pytest.fixture
def log_of(platform: Platform) -> Any:
    """Write to the log of an attempt of a job, as its process would."""

    def write(job_id: str, attempt: int, text: str) -> Path:
        path = platform.job_folder(job_id) / f"attempt-{attempt}" / "log.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
        return path

    return write
