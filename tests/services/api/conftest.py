"""The real server in this process."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from danlu.api.app import create_app
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
