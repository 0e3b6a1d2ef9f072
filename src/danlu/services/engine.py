"""An engine: a process that holds one model in memory and answers over a Unix socket, one answer at a time, in the order asked.

One connection is one request: a line of JSON with the engine's token goes in; lines `{"kind": "waiting" | "text" | "end" | "error"}`
come out. Closing the connection stops the answer. The socket and the token lie in the job's folder, readable by this user only.
What is asked and answered is never logged.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import select
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import orjson

from danlu.errors import DanluError, ForbiddenError, OutOfMemoryError, is_out_of_memory
from danlu.files import write_bytes, write_json

logger = logging.getLogger(__name__)
SOCKET, TOKEN, READY = "engine.sock", "engine.token", "engine.json"
MAX_REQUEST_BYTES = 8 << 20
REQUEST_SECONDS = 10.0
"""A request that is not whole by then is given up."""
Tell = Callable[[dict[str, Any]], None]


class Answers(Protocol):
    """What an engine serves."""

    def answer(self, request: dict[str, Any], on_token: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """Yield `text` messages and one `end` message."""


class Engine:
    """Takes requests from the socket in `folder` until nobody has asked for `idle_seconds`."""

    def __init__(self, folder: Path, answers: Answers, *, idle_seconds: float) -> None:
        self.folder, self.answers, self.idle_seconds = folder, answers, idle_seconds
        self.token = secrets.token_hex(32)
        self.num_answers = 0
        self._queue: deque[object] = deque()
        self._turn = threading.Condition()
        self._last_use = time.monotonic()
        self._is_stopping = threading.Event()

    def serve(self) -> None:
        """Listen until it is idle for too long, or SIGTERM comes."""
        signal.signal(signal.SIGTERM, lambda number, frame: self._is_stopping.set())
        path = self.folder / SOCKET
        path.unlink(missing_ok=True)
        os.chdir(self.folder)  # the path of a socket may have 107 characters only
        mask = os.umask(0o177)
        try:
            write_bytes(self.folder / TOKEN, self.token.encode())
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
                server.bind(SOCKET)
                server.listen(64)
                server.settimeout(0.5)
                write_json(self.folder / READY, {"pid": os.getpid(), "started": time.time()})
                while not self._is_over():
                    with suppress(TimeoutError):
                        connection, _ = server.accept()
                        self._last_use = time.monotonic()
                        threading.Thread(target=self._serve_one, args=(connection,), daemon=True).start()
        finally:
            os.umask(mask)
            for name in (READY, SOCKET, TOKEN):
                (self.folder / name).unlink(missing_ok=True)

    def _is_over(self) -> bool:
        with self._turn:
            is_idle = not self._queue and time.monotonic() - self._last_use > self.idle_seconds
        return is_idle or self._is_stopping.is_set()

    def _serve_one(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(REQUEST_SECONDS)
            with suppress(OSError):  # whoever asked has gone
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        def tell(message: dict[str, Any]) -> None:
            connection.sendall(orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE))

        try:
            request = self._read(connection)
            with self._waited(connection, tell):
                for message in self.answers.answer(request, on_token=lambda: not (_is_gone(connection) or self._is_stopping.is_set())):
                    tell(message)
        except DanluError as error:
            tell({"kind": "error", **error.to_dict()})
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                logger.exception("an answer failed")
                tell({"kind": "error", "code": "DL900", "what": f"the engine failed: {type(error).__name__}", "why": "a defect", "fix": "report its log"})
                return
            told = OutOfMemoryError("the answer found no memory", why="the model and this conversation do not fit", fix="ask for fewer tokens")
            tell({"kind": "error", **told.to_dict()})

    def _read(self, connection: socket.socket) -> dict[str, Any]:
        content = b""
        while not content.endswith(b"\n") and len(content) <= MAX_REQUEST_BYTES:
            part = connection.recv(65536)
            if not part:
                break
            content += part
        try:
            request = orjson.loads(content)
        except orjson.JSONDecodeError:
            request = None
        if not isinstance(request, dict) or not hmac.compare_digest(str(request.pop("token", "")).encode(), self.token.encode()):
            raise ForbiddenError("the engine does not know who asks", why="the token is missing or wrong", fix="ask through the studio")
        return request

    @contextmanager
    def _waited(self, connection: socket.socket, tell: Tell) -> Iterator[None]:
        """Wait for one's turn, and say how many are before."""
        ticket = object()
        with self._turn:
            self._queue.append(ticket)
        try:
            before = -1
            with self._turn:
                while (ahead := self._queue.index(ticket)) > 0:
                    if ahead != before:
                        tell({"kind": "waiting", "ahead": ahead})
                        before = ahead
                    self._turn.wait(0.5)
                    if _is_gone(connection):
                        raise ConnectionAbortedError("whoever asked has gone")
            yield
            self.num_answers += 1
        finally:
            with self._turn:
                self._queue.remove(ticket)
                self._last_use = time.monotonic()
                self._turn.notify_all()


def _is_gone(connection: socket.socket) -> bool:
    """Whether the other side has closed the connection."""
    readable, _, _ = select.select([connection], [], [], 0)
    if not readable:
        return False
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
