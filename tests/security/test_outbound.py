"""Requests that the server makes for users lead to public hosts only, and end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from danlu.errors import OutboundError
from danlu.services.platform import mail
from danlu.services.platform.outbound import MAX_BYTES, fetch, fetch_async, is_public
from danlu.settings import Settings

INSIDE = [
    *("http://127.0.0.1/", "http://localhost/", "http://[::1]/", "http://0.0.0.0/", "http://[::]/", "https://127.0.0.1:8443/x"),
    *("http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/", "http://0/"),
    *("http://169.254.169.254/latest/meta-data", "http://[::ffff:169.254.169.254]/", "http://[::ffff:a9fe:a9fe]/", "http://[64:ff9b::a9fe:a9fe]/"),
    *(
        "http://[2002:7f00:1::]/",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://100.64.0.1/",
        "http://[fd00::1]/",
        "http://[fe80::1]/",
    ),
    *("http://224.0.0.1/", "http://255.255.255.255/", "http://198.18.0.1/"),
]
NO_WEB = [
    *("file:/etc/passwd", "ftp://example.org/", "gopher://127.0.0.1:6379/_INFO", "simplecache::http://example.org/", "//example.org/", "example.org", ""),
    *("http://", "http://user:word@example.org/", "http://example.org@127.0.0.1/", "javascript:alert(1)", "http://exa mple.org/", "https://" + "a" * 3000),
]


@pytest.mark.parametrize("url", INSIDE)
def test_nothing_inside_is_asked_however_its_address_is_written(url: str) -> None:
    with pytest.raises(OutboundError, match="not a public host|no host|no web address"):
        fetch(url, timeout_seconds=5)


@pytest.mark.parametrize("url", NO_WEB)
def test_only_plain_web_addresses_are_taken(url: str) -> None:
    with pytest.raises(OutboundError, match="is not taken|no web address|no host"):
        fetch(url, timeout_seconds=5)


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:2800:220:1:248:1893:25c8:1946"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


class _Server(BaseHTTPRequestHandler):
    """Answers by the path, and remembers what it was asked."""

    seen: list[dict[str, Any]] = []

    def do_GET(self) -> None:
        self.seen.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
        kind, _, rest = self.path.strip("/").partition("/")
        if kind == "to":
            self._answer(302, b"", Location=rest.replace("@", "://").replace("!", "/"))
        elif kind == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            for _ in range(200):
                self.wfile.write(b"x")
                time.sleep(0.05)
        elif kind == "large":
            self._answer(200, b"x" * (MAX_BYTES + 1))
        elif kind == "packed":
            self._answer(200, b"x", **{"Content-Encoding": "gzip"})
        else:
            self._answer(200, b'{"a": 1}')

    def do_POST(self) -> None:
        self.seen.append({"body": self.rfile.read(int(self.headers["Content-Length"]))})
        self._answer(204, b"")

    def _answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # the other side had enough

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[int]:
    """Port of a server on this machine."""
    _Server.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_inner_host_is_asked_when_it_is_allowed_by_name_and_port(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # proxies of the environment are not used

    answer = fetch(f"http://127.0.0.1:{server}/x", allow=[f"127.0.0.1:{server}"])
    fetch(f"http://127.0.0.1:{server}/x", method="POST", content=b"hello", allow=["127.0.0.1"])

    assert (answer.status, answer.json()) == (200, {"a": 1})
    assert (_Server.seen[0]["host"], _Server.seen[1]["body"]) == (f"127.0.0.1:{server}", b"hello")
    with pytest.raises(OutboundError, match="public"):
        fetch(f"http://127.0.0.1:{server}/x", allow=["127.0.0.1:1"])


def test_redirects_are_not_followed_and_when_they_are_each_is_checked(server: int) -> None:
    allow, inside = [f"127.0.0.1:{server}"], f"http://127.0.0.1:{server}/to/http@127.0.0.1:1!x"

    assert fetch(inside, allow=allow).status == 302
    with pytest.raises(OutboundError, match="public"):
        fetch(inside, allow=allow, max_redirects=3)
    with pytest.raises(OutboundError, match="not taken"):
        fetch(f"http://127.0.0.1:{server}/to/file@!etc!passwd", allow=allow, max_redirects=3)


def test_a_redirect_to_another_host_takes_no_secret_along(server: int) -> None:
    headers = {"Authorization": "Bearer x", "Cookie": "y"}
    allow = [f"127.0.0.1:{server}", f"localhost:{server}"]

    fetch(f"http://127.0.0.1:{server}/to/http@localhost:{server}!x", headers=headers, allow=allow, max_redirects=1)

    assert "authorization" in _Server.seen[0] and not {"authorization", "cookie"} & set(_Server.seen[1])


@pytest.mark.parametrize(("path", "words"), [("large", "more than"), ("packed", "compressed")])
def test_answers_that_would_fill_the_memory_are_cut_off(server: int, path: str, words: str) -> None:
    with pytest.raises(OutboundError, match=words):
        fetch(f"http://127.0.0.1:{server}/{path}", allow=["127.0.0.1"])


def test_a_server_that_answers_a_byte_at_a_time_is_left(server: int) -> None:
    start = time.monotonic()
    with pytest.raises(OutboundError, match="did not answer in"):
        fetch(f"http://127.0.0.1:{server}/drip", allow=["127.0.0.1"], timeout_seconds=0.3)

    assert time.monotonic() - start < 8


def test_a_name_that_changes_its_address_between_check_and_use_changes_nothing() -> None:
    asked = []

    class Rebinding(asyncio.SelectorEventLoop):
        async def getaddrinfo(self, host: Any, port: Any, **kwargs: Any) -> Any:
            asked.append(host)
            address = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
            return [(2, 1, 6, "", (address, port))]

    reached = pytest.RaisesGroup(pytest.RaisesExc(AssertionError, match="93.184.216.34"), flatten_subgroups=True)  # the tests' guard of the network
    with asyncio.Runner(loop_factory=Rebinding) as runner, reached:
        runner.run(fetch_async("http://rebinding.test/x"))

    assert asked == ["rebinding.test"]


def test_of_several_addresses_all_have_to_be_public() -> None:
    class Mixed(asyncio.SelectorEventLoop):
        async def getaddrinfo(self, host: Any, port: Any, **kwargs: Any) -> Any:
            return [(2, 1, 6, "", (address, port)) for address in ("93.184.216.34", "10.0.0.1")]

    with asyncio.Runner(loop_factory=Mixed) as runner, pytest.raises(OutboundError, match="public"):
        runner.run(fetch_async("http://mixed.test/x"))


@pytest.mark.parametrize("name", ["a\r\nBcc: eve@evil.test", "a\nX: y\n\nbody", "a\u2028Bcc: eve@evil.test", "a\x00b", "x" * 5000])
def test_a_name_is_never_a_header_of_a_mail(name: str) -> None:
    run = {"id": "run_1", "name": name, "state": "succeeded", "verdict": None, "error": {"code": "DL1", "what": name}}
    message = message_from_bytes(bytes(mail._message(Settings(home=Path()), "ann@example.org", {"id": "dlv_1", "run": run, "url": None})))

    assert sorted(message.keys()) == sorted(["From", "To", "Subject", "Message-ID", "Content-Type", "Content-Transfer-Encoding", "MIME-Version"])
    assert message["To"] == "ann@example.org"
