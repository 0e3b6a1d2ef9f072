"""Bodies that come slowly or not at all: nobody holds connections or the places for parts of files with them."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
from doors import program

from danlu.api import guard
from danlu.api.app import create_app
from danlu.api.guard import Guard
from danlu.api.security import Security
from danlu.services.platform.places import NUM_OF_A_USER, Places
from danlu.services.platform.platform import Platform


class Slow:
    """A sender of bodies that come bit by bit; `ask` gives the status of each answer."""

    def __init__(self, platform: Platform, pieces: list[bytes], pause: float, *, silence_seconds: float = 0.1, body_seconds: float = 0.1) -> None:
        self.pieces, self.pause = pieces, pause
        self.guard = Guard(self.read, Security(platform, "127.0.0.1"), body_seconds=body_seconds, silence_seconds=silence_seconds)

    async def read(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask(self, kind: bytes, key: bytes = b"") -> int:
        left, sent = list(self.pieces), list[Any]()

        async def receive() -> Any:
            await asyncio.sleep(self.pause)
            piece = left.pop(0) if left else await asyncio.sleep(60)
            return {"type": "http.request", "body": piece, "more_body": bool(left)}

        async def send(message: Any) -> None:
            sent.append(message)

        named = (b"authorization", b"Bearer " + key) if key else (b"x", b"y")
        headers = [(b"host", b"127.0.0.1"), (b"content-type", kind), (b"content-length", b"100000"), named]
        scope = {"type": "http", "method": "PUT", "path": "/api/v1/uploads/upl_1/data", "headers": headers, "client": ("127.0.0.1", 1)}
        await self.guard(scope | {"scheme": "http", "query_string": b""}, receive, send)
        return int(sent[0]["status"])


JSON, PART = b"application/json", b"application/octet-stream"


@pytest.mark.parametrize("kind", [JSON, PART])
def test_a_body_that_does_not_come_is_not_waited_for(platform: Platform, kind: bytes) -> None:
    assert asyncio.run(Slow(platform, [b"{", b"}"], 60).ask(kind)) == 408


def test_a_body_that_drips_is_given_up_and_one_that_comes_slowly_is_not(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LEAST_BYTES_PER_SECOND", 2000)
    drops, slow = Slow(platform, [b"."] * 100, 0.02), Slow(platform, [b"." * 200] * 12, 0.02, silence_seconds=20)

    async def all_three() -> list[int]:
        return list(await asyncio.gather(drops.ask(JSON), drops.ask(PART), slow.ask(PART)))

    assert asyncio.run(all_three()) == [408, 408, 200]


def test_one_asker_cannot_have_many_bodies_waited_for_and_takes_nothing_from_others(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "NUM_SLOW_BODIES", 3)
    slow = Slow(platform, [b"{}"], 0.05, body_seconds=20)

    async def everybody() -> list[int]:
        return list(await asyncio.gather(*(slow.ask(JSON, b"dl_a_b") for _ in range(5)), slow.ask(JSON, b"dl_c_d")))

    assert sorted(asyncio.run(everybody())) == [200, 200, 200, 200, 429, 429]
    assert slow.guard.num_waited_for == {}


def test_one_user_never_has_all_the_places_for_parts_of_files_and_a_lost_connection_gives_its_place_back() -> None:
    places, held = Places(), list[str]()

    async def hold(user: str, is_over: asyncio.Event) -> None:
        async with places.one(user):
            held.append(user)
            await is_over.wait()

    async def turns() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def one_after_the_other() -> None:
        is_over = asyncio.Event()
        many = [asyncio.create_task(hold("slow", is_over)) for _ in range(20)]
        await turns()
        assert held == ["slow"] * NUM_OF_A_USER
        other = asyncio.create_task(hold("other", is_over))
        await turns()
        assert held[-1] == "other"
        many[0].cancel()
        await turns()
        assert held.count("slow") == NUM_OF_A_USER + 1
        is_over.set()
        await asyncio.gather(*many, other, return_exceptions=True)

    asyncio.run(one_after_the_other())


def test_an_upload_whose_sender_falls_silent_keeps_what_was_acknowledged_and_goes_on(platform: Platform) -> None:
    app = create_app(platform)
    next(one for one in app.user_middleware if one.cls is Guard).kwargs["silence_seconds"] = 0.1
    client, content = program(app), b"0123456789"
    project = client.post("/api/v1/projects", json={"name": "p"}).json()["id"]
    upload = client.post(f"/api/v1/projects/{project}/uploads", json={"file_name": "a.jsonl", "size_bytes": 20}).json()["id"]
    path = f"/api/v1/uploads/{upload}/data"

    def part(offset: int) -> Any:
        headers = {"Content-Type": PART.decode(), "X-Content-SHA256": hashlib.sha256(content).hexdigest()}
        return client.put(path, params={"offset": offset}, content=content, headers=headers)

    async def fall_silent() -> int:
        sent, first = list[Any](), [{"type": "http.request", "body": b"01234", "more_body": True}]

        async def receive() -> Any:
            return first.pop() if first else await asyncio.sleep(60)

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"127.0.0.1"), (b"content-type", PART), (b"content-length", b"10"), (b"x-content-sha256", b"0" * 64)]
        scope = {"type": "http", "method": "PUT", "path": path, "raw_path": path.encode(), "headers": headers, "client": ("127.0.0.1", 1)}
        await app(scope | {"scheme": "http", "query_string": b"offset=10", "root_path": "", "http_version": "1.1", "app": app}, receive, send)
        return int(sent[0]["status"])

    assert part(0).json()["received_bytes"] == 10
    assert [asyncio.run(fall_silent()) for _ in range(2)] == [408, 408]
    assert client.get(f"/api/v1/uploads/{upload}").json()["received_bytes"] == 10
    assert part(10).json()["received_bytes"] == 20
