"""Attacks on the API from outside: other websites, forged headers, bodies that are too large or too slow. docs/accounts.md lists them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from doors import PASSWORD, World, application, browser, program
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from danlu.api import guard, security
from danlu.api.guard import MAX_BODY_BYTES, MAX_PART_BYTES, Guard
from danlu.api.security import Security, actor_of_scope
from danlu.errors import ExposedError
from danlu.services.platform import sessions
from danlu.services.platform.platform import Platform
from danlu.services.platform.sessions import Visitor
from danlu.services.platform.tokens import csrf_token

EVIL = "http://evil.test"
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


@pytest.fixture(name="platform")
def _platform(still_platform: Platform) -> Platform:
    return still_platform


@pytest.fixture(name="world")
def _world(still_world: World) -> World:
    return still_world


def code(answer: Any) -> tuple[int, str]:
    """Status and error code of an answer."""
    return answer.status_code, answer.json().get("code", "")


@pytest.mark.parametrize("host", ["evil.test", "evil.test:80", "127.0.0.1.evil.test", "localhost@evil.test", "localhost, evil.test", "", "evil.test/127.0.0.1"])
def test_a_name_that_somebody_else_made_point_here_is_refused(platform: Platform, host: str) -> None:
    client = program(application(platform))

    assert code(client.get("/api/v1/projects", headers={"Host": host})) == (421, "DL737")


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1", "[::1]:7860", "10.1.2.3", "danlu.lan", "studio.example.org"])
def test_the_servers_own_names_and_addresses_are_taken(platform: Platform, host: str) -> None:
    client = program(application(platform, hosts=("danlu.lan",), public_url="https://studio.example.org"))

    assert client.get("/api/v1/session", headers={"Host": host}).status_code == 200


ORIGINS = ["http://evil.test", "null", "http://127.0.0.1.evil.test", "http://127.0.0.1:9", "https://127.0.0.1", "http://localhost", "file://", ""]


@pytest.mark.parametrize("verb", UNSAFE)
@pytest.mark.parametrize("origin", ORIGINS)
def test_no_other_website_changes_anything_not_even_on_the_owners_machine(platform: Platform, verb: str, origin: str) -> None:
    client = program(application(platform))

    assert code(client.request(verb, "/api/v1/projects", json={"name": "x"}, headers={"Origin": origin})) == (403, "DL732")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_browser_that_says_another_site_asks_is_believed(platform: Platform, site: str) -> None:
    client = program(application(platform))

    read = client.get("/api/v1/projects", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"})
    write = client.post("/api/v1/projects", json={"name": "x"}, headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"})
    link = client.get("/api/v1/projects", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"})

    assert [code(read), code(write), link.status_code] == [(403, "DL732"), (403, "DL732"), 200]


def with_streams(platform: Platform, **guard: float) -> FastAPI:
    """An application with a websocket and an event stream behind the guard."""
    app = FastAPI()
    app.add_middleware(Guard, security=Security(platform, "127.0.0.1"), **guard)

    @app.websocket("/ws")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        with suppress(WebSocketDisconnect):
            while True:
                text = await socket.receive_text()
                actor = await asyncio.to_thread(actor_of_scope, socket.scope)
                await socket.send_text(f"{text} {actor.is_signed_in}")

    @app.get("/events")
    def events() -> StreamingResponse:
        def lines() -> Iterator[str]:
            for number in range(1000):
                yield f"data: {number}\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    return app


@pytest.mark.parametrize("headers", [{"Origin": EVIL}, {"Origin": "null"}, {}, {"Origin": "http://127.0.0.1:9"}])
def test_no_other_website_opens_a_websocket(platform: Platform, headers: dict[str, str]) -> None:
    client = program(with_streams(platform))

    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("ws://127.0.0.1/ws", headers=headers):
        pass

    assert refused.value.code == 1008


def test_the_studios_own_pages_and_keys_open_websockets(world: World) -> None:
    app = with_streams(world.platform)
    page, robot = browser(app), program(app, world.key("viewer"))
    page.cookies.set("danlu", world.token("viewer"))

    for client in (page, robot):
        with client.websocket_connect("ws://127.0.0.1/ws") as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "hello True"


def test_no_other_website_reads_an_event_stream(platform: Platform) -> None:
    client = program(with_streams(platform))

    assert code(client.get("/events", headers={"Origin": EVIL, "Accept": "text/event-stream"})) == (403, "DL732")


def test_a_websocket_and_a_stream_end_with_their_session(world: World) -> None:
    app = with_streams(world.platform, check_seconds=0.0)
    page, token = browser(app), world.token("viewer")
    page.cookies.set("danlu", token)
    assert page.get("/events").text.endswith("data: 999\n\n")

    with page.websocket_connect("ws://127.0.0.1/ws") as socket:
        socket.send_text("a")
        assert socket.receive_text() == "a True"
        sessions.sign_out(world.platform, token, Visitor())
        socket.send_text("b")
        with pytest.raises(WebSocketDisconnect):
            socket.receive_text()

    assert "data: 999" not in page.get("/events").text


def test_a_websocket_that_floods_is_closed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "NUM_MESSAGES_AT_ONCE", 3)
    monkeypatch.setattr(guard, "MESSAGES_PER_SECOND", 0.0)
    robot = program(with_streams(world.platform), world.key("viewer"))

    with robot.websocket_connect("ws://127.0.0.1/ws") as socket:
        for _ in range(3):
            socket.send_text("a")
            assert socket.receive_text() == "a True"
        socket.send_text("a")
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
    assert (closed.value.code, closed.value.reason) == (1008, "too many messages")


def test_one_asker_cannot_hold_websockets_without_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "NUM_SOCKETS", 1)
    app = with_streams(world.platform)
    one, other = (program(app, world.key(name)) for name in ("viewer", "editor"))

    with one.websocket_connect("ws://127.0.0.1/ws"):
        with pytest.raises(WebSocketDisconnect) as refused, one.websocket_connect("ws://127.0.0.1/ws"):
            pass
        with other.websocket_connect("ws://127.0.0.1/ws") as socket:
            socket.send_text("a")
            assert socket.receive_text() == "a True"
    assert refused.value.code == 1008
    with one.websocket_connect("ws://127.0.0.1/ws") as socket:
        socket.send_text("a")
        assert socket.receive_text() == "a True"


def test_a_session_changes_nothing_without_the_token_that_only_its_pages_know(world: World) -> None:
    page, token = browser(application(world.platform)), world.token("viewer")
    page.cookies.set("danlu", token)
    ask = lambda **headers: code(page.post("/api/v1/projects", json={"name": "x"}, headers=headers))  # noqa: E731

    assert ask() == ask(**{"X-CSRF-Token": "x"}) == ask(**{"X-CSRF-Token": csrf_token(world.token("viewer"))}) == (403, "DL732")
    assert ask(**{"X-CSRF-Token": csrf_token(token)}) == (201, "")
    assert page.get("/api/v1/session").json()["csrf_token"] == csrf_token(token)


@pytest.mark.parametrize("verb", UNSAFE)
def test_the_token_is_asked_for_on_every_verb(world: World, verb: str) -> None:
    page = browser(application(world.platform))
    page.cookies.set("danlu", world.token("admin"))

    assert code(page.request(verb, f"/api/v1/projects/{world.mine}", json={})) == (403, "DL732")


def test_outside_of_the_api_a_session_needs_a_page_that_says_who_it_is(world: World) -> None:
    app = with_streams(world.platform)
    bare, page = program(app), browser(app)
    for client in (bare, page):
        client.cookies.set("danlu", world.token("admin"))

    assert (bare.post("/upload").status_code, page.post("/upload").status_code) == (403, 404)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "TEXT/PLAIN;charset=utf-8", ""])
def test_what_a_form_of_any_website_can_send_is_not_taken(platform: Platform, kind: str) -> None:
    client = program(application(platform))

    assert code(client.post("/api/v1/projects", content=b'{"name": "x"}', headers={"Content-Type": kind})) == (415, "DL736")


def test_a_body_that_is_too_large_is_refused_by_its_length_and_by_what_comes(platform: Platform) -> None:
    client, sent = program(application(platform)), []

    def parts() -> Iterator[bytes]:
        for _ in range(3 * MAX_BODY_BYTES // 2**20):
            sent.append(1)
            yield b" " * 2**20

    said = client.post("/api/v1/projects", content=b"{}", headers={"Content-Length": str(MAX_BODY_BYTES + 1), "Content-Type": "application/json"})
    streamed = client.post("/api/v1/projects", content=parts(), headers={"Content-Type": "application/json"})

    assert code(said) == code(streamed) == (413, "DL734")
    assert code(client.post("/api/v1/projects", content=b"{}", headers={"Content-Length": "-1", "Content-Type": "application/json"})) == (413, "DL734")


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/offset+octet-stream", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize(("verb", "path"), [("POST", "/api/v1/projects"), ("POST", "/api/v1/session"), ("PUT", "/page"), ("POST", "/studio-upload/x")])
def test_naming_a_body_a_file_makes_room_for_it_only_where_files_are_taken(platform: Platform, verb: str, path: str, kind: str) -> None:
    client = program(application(platform))

    answer = client.request(verb, path, content=b"{}", headers={"Content-Length": str(MAX_BODY_BYTES + 1), "Content-Type": kind})

    assert code(answer) == (413, "DL734")


def test_nobody_sends_more_than_one_part_of_a_file_at_once(platform: Platform) -> None:
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(MAX_PART_BYTES + 1)}

    for path in ("/api/v1/uploads/upl_1/data?offset=0", "/studio-upload/upl_1?offset=0"):
        assert code(program(application(platform)).put(path, content=b"x", headers=headers)) == (413, "DL734")


def test_long_addresses_and_headers_are_refused(platform: Platform) -> None:
    client = program(application(platform))

    assert client.get("/api/v1/projects", params={"after": "x" * 9000}).status_code == 414
    assert client.get("/api/v1/projects", headers={"X-Much": "x" * 40_000}).status_code == 431


@pytest.mark.parametrize(
    "body", [b"[" * 200_000, b'{"name": ' + b"9" * 100_000 + b"}", b'{"name": NaN}', b'{"name": "\\ud800"}', b"\xff\xfe", b'{"name": "a", "name": 3}']
)
def test_json_that_would_break_a_reader_is_refused(platform: Platform, body: bytes) -> None:
    client = program(application(platform))

    assert 400 <= client.post("/api/v1/projects", content=body, headers={"Content-Type": "application/json"}).status_code < 500


def test_every_answer_tells_the_browser_what_it_must_not_do(platform: Platform) -> None:
    app = with_streams(platform)
    client = program(app)

    for path in ("/api/v1/nothing", "/events", "/nothing"):
        headers = client.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"] and headers["x-frame-options"] == "DENY"
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "same-origin")
    assert "default-src 'self'" in client.get("/nothing").headers["content-security-policy"]
    api = client.get("/api/v1/nothing").headers
    assert (api["cache-control"], "default-src 'none'" in api["content-security-policy"]) == ("no-store", True)
    assert (api["cross-origin-opener-policy"], api["cross-origin-resource-policy"]) == ("same-origin", "same-origin")
    assert "camera=()" in api["permissions-policy"] and "strict-transport-security" not in api
    over_tls = program(app, base_url="https://127.0.0.1").get("/nothing").headers
    assert over_tls["strict-transport-security"].startswith("max-age=")


def test_binding_to_a_network_without_users_is_refused_and_says_what_to_do(platform: Platform) -> None:
    with pytest.raises(ExposedError, match="DANLU_AUTH=users"):
        application(platform, host="0.0.0.0")
    with pytest.raises(ExposedError, match="`auto` or `users`"):
        application(platform, auth="none")

    exposed = program(application(platform, host="0.0.0.0", auth="users"))

    assert exposed.get("/api/v1/projects").status_code == 401


def test_a_network_may_be_served_once_there_are_users(world: World) -> None:
    assert program(application(world.platform, host="0.0.0.0")).get("/api/v1/projects").status_code == 401


def test_only_who_sits_at_the_machine_needs_no_account(platform: Platform) -> None:
    local = application(platform)
    proxied = dict.fromkeys(("X-Forwarded-For", "X-Real-IP", "Forwarded", "Via", "X-Forwarded-Host"), "203.0.113.9")

    assert program(local).get("/api/v1/projects").status_code == 200
    assert program(local, address="192.168.1.7").get("/api/v1/projects").status_code == 401
    assert [program(local).get("/api/v1/projects", headers={name: value}).status_code for name, value in proxied.items()] == [401] * len(proxied)
    for network in ({"auth": "users"}, {"public_url": "https://studio.example.org"}, {"trusted_proxies": ("127.0.0.1",)}):
        assert program(application(platform, **network)).get("/api/v1/projects").status_code == 401


def test_the_first_user_ends_the_time_without_accounts(fresh: Platform) -> None:
    client = program(application(fresh))
    made = client.post("/api/v1/users", json={"name": "ann", "password": PASSWORD, "is_admin": True})

    assert (made.status_code, client.get("/api/v1/projects").status_code) == (201, 401)


def test_the_first_user_cannot_be_one_who_locks_everybody_out(platform: Platform) -> None:
    client = program(application(platform))

    assert code(client.post("/api/v1/users", json={"name": "ann", "password": PASSWORD})) == (409, "DL711")
    assert client.get("/api/v1/projects").status_code == 200


def test_passwords_do_not_cross_a_network_in_the_clear(world: World) -> None:
    body = {"name": "viewer", "password": PASSWORD}
    ask = lambda **network: program(application(world.platform, host="0.0.0.0", **network), address="192.168.1.7").post("/api/v1/session", json=body)  # noqa: E731

    assert code(ask()) == (403, "DL731")
    assert ask(allows_plain_http=True).status_code == 401  # it was looked at: this user has no password


@pytest.mark.usefixtures("still_limits")
@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8",)])
def test_an_address_that_anybody_can_invent_is_not_believed(fresh: Platform, trusted: tuple[str, ...]) -> None:
    app = application(fresh, host="0.0.0.0", auth="users", allows_plain_http=True, trusted_proxies=trusted)
    client, body = program(app, address="10.0.0.1"), {"name": "nobody", "password": PASSWORD}
    invented = [client.post("/api/v1/session", json=body, headers={"X-Forwarded-For": f"198.51.100.{n}, 203.0.113.5"}).status_code for n in range(6)]

    # The part that a client writes itself is the left one; the proxy adds the right one.
    assert invented == [401] * 5 + [429]
    other = client.post("/api/v1/session", json=body, headers={"X-Forwarded-For": "203.0.113.6"}).status_code
    assert other == (401 if trusted else 429)


@pytest.mark.usefixtures("still_limits")
def test_a_user_who_asks_too_often_is_refused_and_others_are_not(world: World) -> None:
    app = application(world.platform, rate_limit=5)
    greedy, other = program(app, world.key("viewer")), program(app, world.key("editor"))

    assert [greedy.get("/api/v1/projects").status_code for _ in range(6)] == [200] * 5 + [429]
    assert other.get("/api/v1/projects").status_code == 200


@pytest.mark.usefixtures("still_limits")
def test_inventing_cookies_gives_no_more_requests_than_having_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "ANONYMOUS_PER_MINUTE", 3)
    client = browser(application(world.platform), address="10.9.8.7")

    asked = [client.get("/api/v1/projects", headers={"Cookie": f"danlu={number:043d}"}).status_code for number in range(5)]

    assert asked == [401, 401, 401, 429, 429]


def test_guessing_keys_is_stopped(fresh: Platform) -> None:
    client = TestClient(application(fresh), base_url="http://127.0.0.1", client=("127.0.0.1", 1))
    statuses = [client.get("/api/v1/projects", headers={"Authorization": f"Bearer dl_{n}_x"}).status_code for n in range(70)]

    assert statuses[0] == 401 and statuses[-1] == 429


@pytest.mark.parametrize("path", ["/api/v1/runs/..%2f..%2fetc", "/api/v1/runs/run_%00", "/api/v1/jobs/%2e%2e/log", "/api/v1/jobs/job_x/log?offset=-9&limit=-9"])
def test_paths_and_numbers_that_are_tricks_find_nothing(world: World, path: str) -> None:
    client = program(application(world.platform), world.key("operator", role="admin"))

    assert client.get(path).status_code in (404, 422)
