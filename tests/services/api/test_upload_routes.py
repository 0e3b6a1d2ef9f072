"""Uploads in chunks and downloads of what came of them, through the server."""

import hashlib
import os

import pytest
from fastapi.testclient import TestClient

from danlu.services.platform import places
from danlu.services.platform.platform import Platform
from danlu.services.platform.uploads import MAX_CHUNK_BYTES
from danlu.store.runs import MODELS, RUNS

API = "/api/v1"
CONTENT = b'{"instruction": "q", "output": "<b>a</b>"}\n' * 5000


def begin(client: TestClient, project_id: str, **values: object) -> str:
    body = {"file_name": "训练 data.jsonl", "size_bytes": len(CONTENT)} | values
    answer = client.post(f"{API}/projects/{project_id}/uploads", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def send(client: TestClient, upload_id: str, offset: int, chunk: bytes, sha256: str | None = None) -> object:
    headers = {"X-Content-SHA256": sha256 or hashlib.sha256(chunk).hexdigest(), "Content-Type": "application/octet-stream"}
    return client.put(f"{API}/uploads/{upload_id}/data", params={"offset": offset}, content=chunk, headers=headers)


def test_a_file_goes_up_in_chunks_and_comes_back_byte_for_byte(client: TestClient, project_id: str) -> None:
    upload_id = begin(client, project_id, sha256=hashlib.sha256(CONTENT).hexdigest())
    for offset in range(0, len(CONTENT), 100_000):
        stands = send(client, upload_id, offset, CONTENT[offset : offset + 100_000]).json()["received_bytes"]  # type: ignore[attr-defined]
        assert stands == min(len(CONTENT), offset + 100_000)
    version = client.post(f"{API}/uploads/{upload_id}/finish").json()

    whole = client.get(f"{API}/dataset-versions/{version['id']}/file")
    part = client.get(f"{API}/dataset-versions/{version['id']}/file", headers={"Range": "bytes=70000-80000", "If-Range": whole.headers["etag"]})
    assert (whole.content, part.status_code, part.content) == (CONTENT, 206, CONTENT[70000:80001])
    assert whole.headers["content-disposition"].startswith("attachment;")
    assert whole.headers["content-type"] == "application/octet-stream"


def test_a_damaged_a_misplaced_and_a_repeated_chunk_are_refused_and_the_upload_goes_on(client: TestClient, project_id: str) -> None:
    upload_id = begin(client, project_id)
    statuses = [
        send(client, upload_id, 0, CONTENT[:1000], "0" * 64).status_code,  # type: ignore[attr-defined]
        send(client, upload_id, 0, CONTENT[:1000]).status_code,  # type: ignore[attr-defined]
        send(client, upload_id, 0, CONTENT[:1000]).status_code,  # type: ignore[attr-defined]
        send(client, upload_id, 5000, CONTENT[5000:]).status_code,  # type: ignore[attr-defined]
        client.put(f"{API}/uploads/{upload_id}/data?offset=1000", content=b"x", headers={"Content-Type": "application/octet-stream"}).status_code,
        client.post(f"{API}/uploads/{upload_id}/finish").status_code,
        send(client, upload_id, 1000, CONTENT[1000:]).status_code,  # type: ignore[attr-defined]
        client.post(f"{API}/uploads/{upload_id}/finish").status_code,
    ]

    assert statuses == [400, 200, 409, 409, 422, 409, 200, 201]


def test_a_chunk_that_is_too_large_is_not_read_to_its_end(client: TestClient, project_id: str) -> None:
    upload_id = begin(client, project_id, size_bytes=MAX_CHUNK_BYTES * 4)

    answer = send(client, upload_id, 0, os.urandom(1024) * (MAX_CHUNK_BYTES // 1024 + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "DL734")  # type: ignore[attr-defined]
    assert client.get(f"{API}/uploads/{upload_id}").json()["received_bytes"] == 0
    assert places.NUM_AT_A_TIME * MAX_CHUNK_BYTES <= 256 * 1024**2


@pytest.fixture
def model_id(platform: Platform, project_id: str) -> str:
    folder = platform.home / "model"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / "page.svg").write_text("<svg onload='alert(1)'/>")
    stored = platform.artifacts.put_folder(folder)
    with platform.database.writing() as connection:
        run = RUNS.insert(connection, project_id=project_id, name="r", state="succeeded", recipe={}, base_model="m")
        return MODELS.insert(connection, project_id=project_id, name="m", number=1, run_id=run.id, kind="adapter", digest=stored.digest).id


def test_files_of_a_model_are_fetched_by_name_and_nothing_of_them_runs(client: TestClient, model_id: str) -> None:
    found = client.get(f"{API}/models/{model_id}/file", params={"name": "page.svg"})

    assert found.text == "<svg onload='alert(1)'/>"
    assert (found.headers["content-type"], found.headers["x-content-type-options"]) == ("application/octet-stream", "nosniff")
    assert found.headers["content-disposition"].startswith("attachment;")
    for name in ("nothing", "../../danlu.sqlite", "/etc/passwd", ""):
        assert client.get(f"{API}/models/{model_id}/file", params={"name": name}).status_code == 404
