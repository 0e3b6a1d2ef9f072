"""A port for a server that takes a while to start: nobody else is given it meanwhile."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port(port: int = 0) -> Iterator[int]:
    """Hold a free port of 127.0.0.1, or this one, while the context lasts. A server that sets SO_REUSEADDR, as ours do, gets it all the same.

    Other systems than Linux let nobody share it: there it is only found, and free until somebody takes it.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", port))
        found = int(held.getsockname()[1])
        if sys.platform != "linux":
            held.close()
        yield found
