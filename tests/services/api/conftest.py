"""The real server in this process."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from fastapi.testclient import TestClient

from danlu.api.app import create_app
from danlu.api.server import listen
from danlu.services.platform.platform import Platform


@pytest.fixture
def client(platform: Platform) -> Iterator[TestClient]:
    """A client of the server of an empty home, as the owner of the machine."""
    with TestClient(create_app(platform), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture
def project_id(client: TestClient) -> str:
    """Id of a project made through the server."""
    return str(client.post("/api/v1/projects", json={"name": "p"}).json()["id"])


@pytest.fixture
def server(platform: Platform) -> Iterator[str]:
    """URL of the server of an empty home, on a real socket in a thread of this process."""
    app = create_app(platform)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on")
    server = uvicorn.Server(config)
    bound = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    server.should_exit = server.force_exit = True
    thread.join(20)
    bound.close()


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something that comes when the machine has time for it."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
