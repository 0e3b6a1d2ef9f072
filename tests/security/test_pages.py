"""Attacks on the studio's pages, on the real server: what of NiceGUI stands behind the guard, and what pages let out."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from danlu.services.platform.platform import Platform
from danlu.settings import Settings

pytestmark = pytest.mark.timeout(180)
PASSWORD = "seven green doors"
XSS = "</script><img src=x onerror=alert(1)>"
SECRET = "c0de-that-nobody-may-read"


class Served:
    """The studio as a process, as people start it, with users."""

    def __init__(self, home: Path) -> None:
        self.home, self.log = home, home.parent / "log"
        environment = os.environ | {"DANLU_HOME": str(home), "DANLU_AUTH": "users", "DANLU_LANG": "en"}
        environment.pop("NICEGUI_SCREEN_TEST_PORT", None)
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "danlu", "studio", "--no-open", "--no-worker", "--port", "0"]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True, umask=0o022)
        assert self.process.stdout is not None
        self.url = re.findall(r"http://[\d.:]+", self.process.stdout.readline())[0]
        self.token = self.process.stdout.readline().split()[-1]

    def browser(self) -> httpx.Client:
        """What a browser's page sends."""
        return httpx.Client(base_url=self.url, headers={"Origin": self.url, "Sec-Fetch-Site": "same-origin"}, timeout=60)

    def websocket(self, *headers: str) -> str:
        """First line of the answer to a websocket."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        asked = [
            "GET /_nicegui_ws/socket.io/?EIO=4&transport=websocket HTTP/1.1", f"Host: {host}:{port}", "Connection: Upgrade", "Upgrade: websocket",
            "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {b64encode(os.urandom(16)).decode()}", *headers, "", "",
        ]  # fmt: skip
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall("\r\n".join(asked).encode())
            return connection.recv(4096).decode("latin-1").splitlines()[0]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("served") / "home")
    yield served
    served.process.terminate()
    served.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def admin(studio: Served) -> Iterator[httpx.Client]:
    """The first administrator, signed in."""
    with studio.browser() as client:
        made = client.post("/api/v1/session/first-admin", json={"token": studio.token, "name": "ann", "password": PASSWORD})
        client.headers["X-CSRF-Token"] = made.json()["csrf_token"]
        yield client


PLACES = ("/", "/runs", "/studio-files/studio.css", "/_nicegui_ws/socket.io/?EIO=4&transport=websocket", "/favicon.ico", "/metrics", "/healthz", "/nothing")


@pytest.mark.parametrize("path", PLACES)
def test_the_guard_stands_before_every_route_of_the_pages(studio: Served, path: str) -> None:
    renamed = httpx.get(studio.url + path, headers={"Host": "evil.test"}, timeout=60)
    elsewhere = httpx.get(studio.url + path, headers={"Origin": "http://evil.test"}, timeout=60)

    assert (renamed.json()["code"], elsewhere.json()["code"]) == ("DL737", "DL732")


def test_websockets_come_from_the_studios_own_pages_only(studio: Served) -> None:
    told = [studio.websocket(*headers) for headers in ([f"Origin: {studio.url}"], ["Origin: http://evil.test"], [])]

    assert [line.split()[1] for line in told] == ["101", "403", "403"]


@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_pages_are_not_followed_by_requests_which_would_outlive_a_session(studio: Served, verb: str) -> None:
    with studio.browser() as client:
        answer = client.request(verb, "/_nicegui_ws/socket.io/?EIO=4&transport=polling")

    assert (answer.status_code, "sid" in answer.text) == (400, False)


def test_who_is_not_signed_in_gets_no_page_with_anything_in_it_and_sends_no_file(studio: Served, admin: httpx.Client) -> None:
    project = admin.post("/api/v1/projects", json={"name": "Hidden project"}).json()["id"]
    with studio.browser() as nobody:
        pages = [nobody.get(path).text for path in ("/", "/runs", "/settings", f"/datasets?project={project}")]
        sent = nobody.put("/studio-upload/upl_1?offset=0", content=b"x", headers={"Content-Type": "application/octet-stream"})
        fetched = nobody.get("/studio-export/exp_1?name=x")

    assert not any("Hidden project" in page or str(studio.home) in page for page in pages)
    assert [(answer.status_code, answer.json()["code"]) for answer in (sent, fetched)] == [(401, "DL730")] * 2


@pytest.mark.parametrize("verb", ["GET", "POST", "DELETE"])
def test_an_address_of_the_api_that_does_not_exist_is_a_problem_and_no_page(studio: Served, admin: httpx.Client, verb: str) -> None:
    nothing, other_verb = admin.request(verb, "/api/v1/nothing"), admin.put("/api/v1/projects", json={})

    assert [(answer.status_code, answer.headers["content-type"]) for answer in (nothing, other_verb)] == [
        (404, "application/problem+json"),
        (405, "application/problem+json"),
    ]


def test_addresses_are_never_logged_with_their_query(studio: Served, admin: httpx.Client) -> None:
    for path in ("/api/v1/session/oidc/callback", "/api/v1/session/oidc/callback/", "/nothing", "/runs", "/studio-files/x"):
        admin.get(path, params={"code": SECRET, "state": SECRET})
    log = studio.log.read_text("utf-8")

    assert "danlu.access: request" in log
    assert SECRET not in log and studio.token not in log and PASSWORD not in log


def test_names_that_are_markup_stay_text(studio: Served, admin: httpx.Client) -> None:
    project = admin.post("/api/v1/projects", json={"name": XSS, "description": XSS}).json()["id"]
    recipe = {"base_model": "danlu/tiny", "dataset": "zhangjiajie"}
    run = admin.post(f"/api/v1/projects/{project}/runs", json={"recipe": recipe, "name": XSS}).json()["id"]
    pages = [admin.get(path).text for path in (f"/?project={project}", f"/runs?project={project}", f"/runs/{run}", f"/queue?project={project}")]

    assert any("onerror" in page for page in pages)
    assert not any(XSS in page or "<img src=x" in page for page in pages)


def test_a_page_of_somebody_elses_run_says_nothing_of_it(studio: Served, admin: httpx.Client) -> None:
    project = admin.post("/api/v1/projects", json={"name": "mine"}).json()["id"]
    recipe = {"base_model": "danlu/tiny", "dataset": "zhangjiajie"}
    run = admin.post(f"/api/v1/projects/{project}/runs", json={"recipe": recipe, "name": "Secretly named"}).json()["id"]
    admin.post("/api/v1/users", json={"name": "bob", "password": PASSWORD})
    with studio.browser() as bob:
        bob.post("/api/v1/session", json={"name": "bob", "password": PASSWORD})
        pages = [
            bob.get(path).text for path in (f"/runs/{run}", f"/proof/{run}", f"/runs/{run}/proof", f"/runs?project={project}", f"/queue?project={project}")
        ]

    assert "Secretly named" in admin.get(f"/runs/{run}").text
    assert not any("Secretly named" in page for page in pages)


def test_forged_forwarding_headers_change_nothing(studio: Served, admin: httpx.Client) -> None:
    admin.post(
        "/api/v1/projects", json={"name": "from where"}, headers={"X-Forwarded-For": "9.9.9.9", "Forwarded": "for=9.9.9.9", "X-Forwarded-Proto": "https"}
    )

    assert {line["address"] for line in admin.get("/api/v1/audit").json()["items"]} == {"127.0.0.1"}


def test_what_the_server_writes_is_for_its_own_user_only(studio: Served, admin: httpx.Client) -> None:
    found = [studio.home, *studio.home.rglob("*")]

    assert {"danlu.sqlite", "danlu.sqlite-wal", "studio.lock"} <= {path.name for path in found}
    assert [(path.name, oct(path.stat().st_mode)) for path in found if path.stat().st_mode & 0o077] == []


def test_a_database_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    Platform.open(Settings(home=tmp_path / "home")).close()
    path = tmp_path / "home" / "danlu.sqlite"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    path.chmod(0o644)
    Platform.open(Settings(home=tmp_path / "home")).close()

    assert path.stat().st_mode & 0o777 == 0o640


def test_a_defect_of_a_page_does_not_tell_what_it_met(monkeypatch: pytest.MonkeyPatch) -> None:
    from danlu.web import template

    shown: list[str] = []
    monkeypatch.setattr(template, "error_toast", lambda s, error: shown.append(str(error)))
    template._told(cast(Any, None), ValueError(SECRET))

    assert len(shown) == 1 and "DL900" in shown[0] and SECRET not in shown[0]


def test_json_of_the_doctor_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from danlu.services.doctor import examine

    for name in ("DANLU_SMTP_URL", "DANLU_OIDC_CLIENT_SECRET", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, f"smtp://u:{SECRET}@host")
    monkeypatch.setenv("DANLU_ARTIFACT_URL", f"s3://key:{SECRET}@bucket")
    monkeypatch.setenv("DANLU_DATABASE_URL", f"postgresql://danlu:{SECRET}@127.0.0.1:1/danlu?connect_timeout=1")
    monkeypatch.setenv("DANLU_HOME", str(tmp_path))

    assert SECRET not in json.dumps(examine(Settings.from_environment()).to_dict())
