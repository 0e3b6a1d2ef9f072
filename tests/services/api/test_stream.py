"""Streams: what was missed, what happens, and their end."""

import threading
import time
from collections.abc import Iterator

import httpx
import orjson
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert

from danlu.api import stream
from danlu.services.platform import keys
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.store import jobs, members, tables
from danlu.store.engine import Connection
from danlu.store.feeds import Item, Position
from danlu.store.runs import RUNS

API = "/api/v1"


def add(connection: Connection, run_id: str, *, events: range = range(0), points: tuple[tuple[int, str], ...] = ()) -> None:
    for number in events:
        connection.execute(insert(tables.run_events).values(run_id=run_id, number=number, kind="note", fields={"text": f"第 {number}"}))
    for step, kind in points:
        connection.execute(insert(tables.run_points).values({"run_id": run_id, "step": step, "kind": kind, "values": {"loss": step / 2}}))


def make_run(platform: Platform, state: str = "running") -> str:
    with platform.database.writing() as connection:
        from danlu.store.projects import PROJECTS

        project = PROJECTS.insert(connection, name="p", description="", created_by=None, is_archived=False)
        return RUNS.insert(connection, project_id=project.id, name="r", state=state, recipe={"secret": 1}, base_model="m").id


def messages(lines: Iterator[str]) -> Iterator[tuple[str, str | None, dict[str, object]]]:
    """Yield (event, id, data) of a stream."""
    event, id = "", None
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            event = value
        elif name == "id":
            id = value
        elif name == "data":
            yield event, id, orjson.loads(value)
            event, id = "", None


def test_a_run_that_is_over_is_told_from_its_beginning_to_its_end(client: TestClient, platform: Platform) -> None:
    run_id = make_run(platform, "succeeded")
    with platform.database.writing() as connection:
        add(connection, run_id, events=range(3), points=((1, "train"), (2, "train"), (2, "validation")))

    told = list(messages(iter(client.get(f"{API}/runs/{run_id}/events/stream").text.splitlines())))

    assert [(event, id) for event, id, _ in told if event in ("event", "point")] == [
        ("event", "1.-1"),
        ("event", "2.-1"),
        ("event", "3.-1"),
        ("point", "3.1.train"),
        ("point", "3.2.train"),
        ("point", "3.2.train-validation"),
    ]
    assert told[-1][0] == "end"
    assert all("recipe" not in data for _, _, data in told)


def test_a_stream_goes_on_after_the_last_message_that_was_received(client: TestClient, platform: Platform) -> None:
    run_id = make_run(platform, "succeeded")
    with platform.database.writing() as connection:
        add(connection, run_id, events=range(3), points=((1, "train"), (2, "train"), (2, "validation")))

    lines = client.get(f"{API}/runs/{run_id}/events/stream", headers={"Last-Event-ID": "2.2.train"}).text.splitlines()

    assert [id for event, id, _ in messages(iter(lines)) if id] == ["3.2.train", "3.2.train-validation"]
    assert client.get(f"{API}/runs/{run_id}/events/stream", headers={"Last-Event-ID": "1; drop table"}).status_code == 422


def test_many_clients_get_everything_once_while_one_poller_reads(server: str, platform: Platform) -> None:
    run_id = make_run(platform)
    with platform.database.writing() as connection:
        add(connection, run_id, events=range(2))
    seen: list[list[object]] = [[] for _ in range(6)]
    are_there = [threading.Event() for _ in seen]

    def follow(number: int) -> None:
        with httpx.stream("GET", f"{server}{API}/runs/{run_id}/events/stream", timeout=60) as answer:
            for event, _, data in messages(answer.iter_lines()):
                if event == "event":
                    seen[number].append(data["number"])
                    are_there[number].set()

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(len(seen))]
    for thread in threads:
        thread.start()
    assert all(event.wait(30) for event in are_there)
    for number in range(2, 5):
        with platform.database.writing() as connection:
            add(connection, run_id, events=range(number, number + 1))
        time.sleep(0.2)
    with platform.database.writing() as connection:
        RUNS.update(connection, run_id, state="succeeded")
    for thread in threads:
        thread.join(30)

    assert seen == [[0, 1, 2, 3, 4]] * len(seen)


def test_a_stream_ends_when_what_it_follows_is_deleted(server: str, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.3)
    run_id = make_run(platform)

    with httpx.stream("GET", f"{server}{API}/runs/{run_id}/events/stream", timeout=60) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "retry: 2000"
        with platform.database.writing() as connection:
            RUNS.delete(connection, run_id)
        assert "event: event" not in list(lines)


def test_a_log_is_followed_into_the_next_attempt(server: str, platform: Platform) -> None:
    run_id = make_run(platform)
    with platform.database.writing() as connection:
        run = RUNS.get(connection, run_id)
        job = jobs.submit(connection, project_id=run.project_id, run_id=run_id, kind="train", payload={"type": "train"})
        jobs.JOBS.update(connection, job.id, attempt=1, state="running")
    for attempt in (1, 2):
        (platform.job_folder(job.id) / f"attempt-{attempt}").mkdir(parents=True)
    log = platform.job_folder(job.id) / "attempt-1" / "log.txt"
    log.write_text("步骤 1\n", "utf-8")

    texts: list[object] = []
    with httpx.stream("GET", f"{server}{API}/jobs/{job.id}/log/stream", timeout=60) as answer:
        for event, _, data in messages(answer.iter_lines()):
            texts.append(data.get("text", event))
            if data.get("text") == "步骤 1\n":
                with log.open("a", encoding="utf-8") as file:
                    file.write("步骤 2\n")
                (platform.job_folder(job.id) / "attempt-2" / "log.txt").write_text("again\n")
                with platform.database.writing() as connection:
                    jobs.JOBS.update(connection, job.id, attempt=2, state="succeeded")

    assert "".join(str(text) for text in texts if text != "attempt") == "步骤 1\n步骤 2\nagain\nend"


@pytest.mark.parametrize("path", ["runs/run_nothing/events/stream", "jobs/job_nothing/log/stream"])
def test_a_stream_of_nothing_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(f"{API}/{path}").status_code == 404


def test_a_position_tells_what_was_read() -> None:
    position = Position().after(Item("event", 0, "note", {})).after(Item("point", 5, "train", {}))

    assert [position.is_behind(item) for item in (Item("event", 0, "", {}), Item("event", 1, "", {}))] == [False, True]
    assert [position.is_behind(Item("point", *point, {})) for point in ((4, "validation"), (5, "train"), (5, "validation"), (6, "train"))] == [
        False,
        False,
        True,
        True,
    ]


def test_a_stream_ends_when_the_right_is_taken_away(server: str, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.3)
    run_id = make_run(platform)
    with platform.database.writing() as connection:
        row = {"id": "usr_bob", "name": "bob", "name_key": "bob", "is_admin": False, "is_active": True, "preferences": {}}
        connection.execute(insert(tables.users).values(**row, created_at=0.0, updated_at=0.0, version=1))
        project_id = RUNS.get(connection, run_id).project_id
        members.set_role(connection, project_id, "usr_bob", "viewer")
    secret = keys.create_key(platform, Actor(user_id="usr_bob", name="bob", is_signed_in=True), keys.NewKey(name="k")).secret

    address, headers = f"{server}{API}/runs/{run_id}/events/stream", {"Authorization": f"Bearer {secret}"}
    with httpx.stream("GET", address, headers=headers, timeout=60) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "retry: 2000"
        with platform.database.writing() as connection:
            members.remove(connection, project_id, "usr_bob")
        assert "event: end" not in list(lines)  # the run goes on: only the right is gone
    assert httpx.get(address, headers=headers).status_code == 404


def test_one_user_never_has_all_streams(server: str, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_STREAMS_OF_ONE", 1)
    run_id = make_run(platform)
    address = f"{server}{API}/runs/{run_id}/events/stream"
    with platform.database.writing() as connection:
        row = {"name": "x", "is_admin": True, "is_active": True, "preferences": {}, "created_at": 0.0, "updated_at": 0.0, "version": 1}
        for name in ("ann", "bob"):
            connection.execute(insert(tables.users).values(row | {"id": f"usr_{name}", "name": name, "name_key": name}))
    people = {name: Actor(user_id=f"usr_{name}", name=name, is_signed_in=True, is_operator=True) for name in ("ann", "bob")}
    one, same, other = ({"Authorization": f"Bearer {keys.create_key(platform, people[name], keys.NewKey(name='k')).secret}"} for name in ("ann", "ann", "bob"))

    with httpx.stream("GET", address, headers=one, timeout=60) as first:
        lines = first.iter_lines()  # kept: the stream ends with it
        assert next(lines) == "retry: 2000"
        with httpx.stream("GET", address, headers=same, timeout=60) as refused:
            assert refused.status_code == 503 and "DL763" in next(refused.iter_lines())
        with httpx.stream("GET", address, headers=other, timeout=60) as second:
            assert second.status_code == 200

    def is_let_in() -> bool:
        with httpx.stream("GET", address, headers=same, timeout=60) as again:
            return again.status_code == 200

    end = time.monotonic() + 30
    while not is_let_in():  # as soon as the server has noticed that the first one is gone
        assert time.monotonic() < end
        time.sleep(0.05)
