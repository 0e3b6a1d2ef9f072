"""A real server in a thread of a test."""

import threading

import uvicorn
from fastapi import FastAPI


class Server(uvicorn.Server):
    """Answers on 127.0.0.1 from `start` until `stop`."""

    def __init__(self, app: FastAPI, *, port: int = 0) -> None:
        # No logging.config of uvicorn's: it closes all handlers, and absl's (of rouge-score) would close what pytest captures output in.
        super().__init__(uvicorn.Config(app, port=port, log_config=None, lifespan="on"))

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
