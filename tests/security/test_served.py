"""Attacks on the studio's pages, on the real server: what of NiceGUI stands behind the guard, and what pages let out."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from websockets import Origin
from websockets.sync.client import connect

from danlu.services.platform.platform import Platform
from danlu.settings import Settings

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
        compared = nobody.post("/studio-upload/upl_1/compare?size=1&length=1", json=["0" * 64])
        fetched = nobody.get("/studio-export/exp_1?name=x")

    assert not any("Hidden project" in page or str(studio.home) in page for page in pages)
    assert [(answer.status_code, answer.json()["code"]) for answer in (sent, compared, fetched)] == [(401, "DL730")] * 3


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


def test_a_key_gets_no_page_which_would_stay_in_memory(studio: Served, admin: httpx.Client) -> None:
    secret = admin.post("/api/v1/me/keys", json={"name": "reader", "role": "viewer"}).json()["secret"]
    answers = [httpx.get(studio.url + path, headers={"Authorization": f"Bearer {secret}"}, timeout=60) for path in ("/", "/help", "/api/v1/me")]

    assert [answer.status_code for answer in answers] == [403, 403, 200]
    assert answers[0].text == "The pages are for people. A program with an API key asks /api/v1."


def test_one_user_cannot_fill_the_memory_with_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    from danlu.web import template

    class Visit:
        user_id = "usr_eve"

    monkeypatch.setattr(template, "MAX_OPEN_PAGES", 2)
    pages, studio = [Visit(), Visit()], template.Studio()
    studio.open_pages["a"] = cast(Any, pages[0])
    assert not studio.has_many_pages("usr_eve")
    studio.open_pages["b"] = cast(Any, pages[1])

    assert (studio.has_many_pages("usr_eve"), studio.has_many_pages("usr_bob")) == (True, False)


def test_json_of_the_doctor_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from danlu.services.doctor import examine

    for name in ("DANLU_SMTP_URL", "DANLU_OIDC_CLIENT_SECRET", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, f"smtp://u:{SECRET}@host")
    monkeypatch.setenv("DANLU_ARTIFACT_URL", f"s3://key:{SECRET}@bucket")
    monkeypatch.setenv("DANLU_DATABASE_URL", f"postgresql://danlu:{SECRET}@127.0.0.1:1/danlu?connect_timeout=1")
    monkeypatch.setenv("DANLU_HOME", str(tmp_path))

    assert SECRET not in json.dumps(examine(Settings.from_environment()).to_dict())


class Press:
    """Somebody who holds a page and sends what its buttons would send, whatever the page shows."""

    def __init__(self, held: ExitStack, studio: Served, client: httpx.Client, path: str) -> None:
        page = client.get(path).text
        self.client_id = re.findall(r"'client_id': '([\w-]+)'", page)[0]
        written = re.findall(r"parseElements\(String\.raw`(.*?)`\)", page, re.DOTALL)[0]
        for name, character in (("&lt;", "<"), ("&gt;", ">"), ("&#36;", "$"), ("&#96;", "`"), ("&amp;", "&")):
            written = written.replace(name, character)
        elements = json.loads(written)
        self.events = [(int(id), event) for id, element in elements.items() for event in element.get("events", []) if event["type"] == "click"]
        query = f"client_id={self.client_id}&tab_id=t&document_id=d&next_message_id=0&implicit_handshake=true"
        cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        url = f"ws{studio.url[4:]}/_nicegui_ws/socket.io/?EIO=4&transport=websocket&{query}"
        self.socket = held.enter_context(connect(url, origin=Origin(studio.url), additional_headers={"Cookie": cookie}))
        assert str(self.socket.recv(30)).startswith("0")
        self.socket.send("40")
        assert str(self.socket.recv(30)).startswith("40")

    def everything(self) -> int:
        """Press every button, and confirm whatever is asked; return how many there were."""
        for id, event in self.events:
            self.socket.send("42" + json.dumps(["event", {"id": id, "client_id": self.client_id, "listener_id": event["listener_id"], "args": ["{}"]}]))
        self.socket.send("42" + json.dumps(["ack", {"client_id": self.client_id, "next_message_id": 0}]))
        return len(self.events)


@pytest.fixture
def waiting_run(admin: httpx.Client) -> str:
    """A run that waits before another one, in a project that bob may look at."""
    project = admin.post("/api/v1/projects", json={"name": "shared"}).json()["id"]
    user = admin.post("/api/v1/users", json={"name": f"bob{os.urandom(4).hex()}", "password": PASSWORD}).json()
    admin.put(f"/api/v1/projects/{project}/members/{user['id']}", json={"role": "viewer"})
    asked = {"recipe": {"base_model": "danlu/tiny", "dataset": "zhangjiajie"}}
    run = [admin.post(f"/api/v1/projects/{project}/runs", json=asked).json() for _ in range(2)][0]
    return f"{run['id']} {project} {user['name']}"


@pytest.mark.parametrize("who", ["viewer", "signed out"])
def test_buttons_pressed_by_who_may_not_change_nothing(studio: Served, admin: httpx.Client, waiting_run: str, who: str) -> None:
    run, project, name = waiting_run.split()
    paths = (f"/runs/{run}", f"/queue?project={project}")
    with ExitStack() as held:
        client = held.enter_context(studio.browser())
        signed_in = client.post("/api/v1/session", json={"name": name if who == "viewer" else "ann", "password": PASSWORD}).json()
        presses = [Press(held, studio, client, path) for path in paths]
        if who == "signed out":
            assert client.delete("/api/v1/session", headers={"X-CSRF-Token": signed_in["csrf_token"]}).status_code == 204
        before = len(admin.get("/api/v1/audit?limit=200").json()["items"])
        assert sum(press.everything() for press in presses) > 5
        time.sleep(1.0)

    assert admin.get(f"/api/v1/runs/{run}").json()["state"] == "queued"
    assert len(admin.get("/api/v1/audit?limit=200").json()["items"]) == before


def test_the_same_buttons_do_something_for_who_may(studio: Served, admin: httpx.Client, waiting_run: str) -> None:
    """Else the test above could not fail."""
    _, project, _ = waiting_run.split()

    def moved() -> int:
        return len(admin.get("/api/v1/audit?action=move_job&limit=200").json()["items"])

    before = moved()
    with ExitStack() as held:
        Press(held, studio, admin, f"/queue?project={project}").everything()
        end = time.monotonic() + 30
        while moved() == before:
            assert time.monotonic() < end, "no button did anything"
            time.sleep(0.1)
