"""A studio on a home folder and one on a real server: the same tests for both."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from danlu.api.app import create_app
from danlu.client import Studio
from danlu.client.local import LocalTransport
from danlu.services.platform.platform import Platform
from threaded_server import Server


@pytest.fixture
def url(platform: Platform) -> Iterator[str]:
    """Address of a server over the platform."""
    server = Server(create_app(platform))
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
