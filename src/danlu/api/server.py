"""Running the server: one per home folder, with a graceful end."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from danlu.errors import ConflictError, RunBusyError
from danlu.files import storage_errors

GRACE_SECONDS = 5
"""What requests that are under way get to end when the server is told to stop."""
BACKLOG = 1024
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def only_server(home: Path) -> Iterator[Callable[[str], None]]:
    """Be the only server on this home folder; the kernel gives the lock back when the process dies. Gives what notes the server's address.

    Raises:
        RunBusyError: another server is.
    """
    with storage_errors(home):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (home / "studio.lock").open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            address = file.read(200).strip()
            raise RunBusyError(
                f"another studio works on {home}",
                why="two servers on one home would answer with each other's half-done work",
                fix=f"use the one that runs{address and f': {address}'}, stop it, or give this one another DANLU_HOME",
            ) from error

        def note(address: str) -> None:
            file.truncate(0)
            file.write(address + "\n")
            file.flush()

        note("")
        yield note


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address; port 0 takes a free one.

    Raises:
        ConflictError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ConflictError(
            f"cannot listen on {host}, port {port}", why=error.strerror or str(error), fix="choose another one: --port 8701, or --port 0"
        ) from error
    bound.set_inheritable(True)
    return bound


def serve(app: FastAPI, bound: socket.socket, *, on_ready: Callable[[], None]) -> None:
    """Answer requests until SIGINT or SIGTERM; then let those under way end."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE_SECONDS,
        lifespan="on",
    )
    _Server(config, on_ready).run(sockets=[bound])


class _Server(uvicorn.Server):
    """Says when it is ready, ends streams when it is to stop, and returns to its caller instead of dying of the signal."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self.config.app
        if isinstance(app, FastAPI):
            await app.state.streams.stop()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on a signal, once; a second one does not wait for requests under way. Only a program's main thread hears signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            self.handle_exit(number, frame)

        before = {number: signal.signal(number, stop) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
