"""Attacks on what belongs to everybody: one account, one key for reading, or nobody at all takes all threads, streams, shares, attempts or memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from doors import World, application, program
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from danlu.api.app import create_app
from danlu.api.turns import NUM_ANSWERS_OF_ONE, NUM_OF_ONE, Turns
from danlu.errors import NoRoomError, QuotaError, TooLargeError, TooManyRequestsError
from danlu.services.platform import chat, keys, notices, passwords, projects, quotas, rates, recipes, runs, storage, sweeps, uploads, votes
from danlu.services.platform.access import Actor
from danlu.services.platform.chat import ChatPiece
from danlu.services.platform.keys import NewKey
from danlu.services.platform.notices import NewSubscription
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.services.platform.recipes import Preview, RecipeText
from danlu.services.platform.runs import NewRun
from danlu.services.platform.sweeps import NewSweep, SweepPreview
from danlu.services.platform.uploads import NewUpload
from danlu.services.platform.votes import NewRating, NewVote
from danlu.settings import Network
from danlu.store import rows, tables
from danlu.store.runs import RUNS

OWNER = Actor.local()
RECIPE: dict[str, Any] = {"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"}


@pytest.fixture
def project(platform: Platform) -> str:
    return projects.create_project(platform, OWNER, NewProject(name="p")).id


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


class Gate:
    """Where work stands until it is let through."""

    def __init__(self) -> None:
        self.num_inside, self.most_inside, self.is_open, self._lock = 0, 0, threading.Event(), threading.Lock()

    def pass_through(self) -> None:
        with self._lock:
            self.num_inside += 1
            self.most_inside = max(self.num_inside, self.most_inside)
        assert self.is_open.wait(120)
        with self._lock:
            self.num_inside -= 1


@contextmanager
def many(number: int, ask: Callable[[], Any], gate: Gate) -> Iterator[list[Any]]:
    """Ask so many times at once, and let all through at the end."""
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(ask()), daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        gate.is_open.set()
        for thread in threads:
            thread.join(60)


def answered(client: TestClient, path: str) -> int:
    """Status of the answer to a request, which has to come although others are kept waiting."""
    told: list[int] = []
    thread = threading.Thread(target=lambda: told.append(client.get(path).status_code), daemon=True)
    thread.start()
    thread.join(30)
    assert told, "nobody answers"
    return told[0]


@pytest.mark.parametrize("door", ["chat", "chat/stream"])
def test_answers_of_models_keep_no_request_waiting(platform: Platform, project: str, monkeypatch: pytest.MonkeyPatch, door: str) -> None:
    """A dozen people who chat, or one who does nothing else, held every thread in which requests are answered."""
    gate = Gate()

    def slow(*arguments: Any) -> Iterator[ChatPiece]:
        gate.pass_through()
        yield ChatPiece("end", num_tokens=1)

    monkeypatch.setattr(chat, "_pieces", slow)
    body = {"model": "danlu/tiny", "messages": [{"role": "user", "content": "?"}]}
    with TestClient(create_app(platform), base_url="http://127.0.0.1", client=("127.0.0.1", 50_000)) as client:
        with many(20, lambda: client.post(f"/api/v1/projects/{project}/{door}", json=body).status_code, gate) as answers:
            wait_for(lambda: gate.num_inside == NUM_ANSWERS_OF_ONE)
            assert answered(client, "/api/v1/projects") == 200
        assert answers == [200] * 20 and gate.most_inside == NUM_ANSWERS_OF_ONE  # the others waited for their turn


def test_one_asker_never_has_all_threads_of_the_server(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()

    def slow(platform: Platform) -> storage.Health:
        gate.pass_through()
        return storage.Health(0, 0, [])

    monkeypatch.setattr(storage, "check", slow)
    app = create_app(platform)
    with TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50_000)) as client:
        other = TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.2", 50_000))
        other.portal = client.portal
        with many(16, lambda: client.post("/api/v1/storage/check").status_code, gate) as answers:
            wait_for(lambda: gate.num_inside == NUM_OF_ONE)
            assert answered(other, "/api/v1/projects") == 200
        assert answers == [200] * 16 and gate.most_inside == NUM_OF_ONE


def test_signing_in_keeps_no_request_waiting(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hashing takes its time, an identity provider that hangs takes more."""
    gate = Gate()

    def slow(password: str, stored: str | None) -> bool:
        gate.pass_through()
        return False

    monkeypatch.setattr(passwords, "verify", slow)
    names = iter(range(100))
    with TestClient(create_app(platform), base_url="http://127.0.0.1", client=("127.0.0.1", 50_000)) as client:
        sign_in = lambda: client.post("/api/v1/session", json={"name": f"n{next(names)}", "password": "x"}).status_code  # noqa: E731
        with many(20, sign_in, gate) as answers:
            wait_for(lambda: gate.num_inside == NUM_ANSWERS_OF_ONE)
            assert answered(client, "/api/v1/projects") == 200
        assert answers == [401] * 20


def test_answers_of_what_only_reads_are_not_kept(platform: Platform) -> None:
    """Whoever may only read would fill the database with them: each key of a repetition is kept for a day with its answer."""
    client = program(application(platform))

    def kept() -> int:
        with platform.database.reading() as connection:
            return int(connection.execute(select(func.count()).select_from(tables.idempotency_keys)).scalar_one())

    checked = client.post("/api/v1/recipes/check", json={"recipe": RECIPE}, headers={"Idempotency-Key": "a"})
    assert (checked.status_code, kept()) == (200, 0)
    made = [client.post("/api/v1/projects", json={"name": "x"}, headers={"Idempotency-Key": "a"}) for _ in range(2)]
    assert (made[0].json() == made[1].json(), kept()) == (True, 1)


def test_votes_and_ratings_end_where_the_disk_does(platform: Platform, project: str) -> None:
    """They are in no project's share."""
    asked = [{"role": "user", "content": "?"}]
    shown = [{"model": "a", "text": "x"}, {"model": "b", "text": "y"}]
    vote = NewVote.model_validate({"messages": asked, "answers": shown, "winner": 0})
    rating = NewRating.model_validate({"messages": asked, "answer": "x", "model": "danlu/tiny", "score": 1})
    votes.create_vote(platform, OWNER, project, vote)
    platform.artifacts.min_free_bytes = 10**18

    with pytest.raises(NoRoomError):
        votes.create_vote(platform, OWNER, project, vote)
    with pytest.raises(NoRoomError):
        votes.create_rating(platform, OWNER, project, rating)


def test_many_keys_of_one_user_have_the_turns_of_one() -> None:
    running, most, gate = 0, 0, threading.Event()

    def work(request: Any) -> None:
        nonlocal running, most
        request.scope["danlu.actor"] = Actor(user_id="usr_eve", is_signed_in=True)
        running += 1
        most = max(most, running)
        gate.wait(1.0)
        running -= 1

    def request(number: int) -> Any:
        return SimpleNamespace(scope={"danlu.incoming": SimpleNamespace(asker=f"hash of key {number}")})

    async def everybody() -> None:
        turns = Turns()
        gate.set()
        for number in range(12):
            await turns.operation((one := request(number)), work, one)
        gate.clear()
        await asyncio.gather(*(turns.operation((one := request(number)), work, one) for number in range(12)))

    asyncio.run(everybody())
    assert most == NUM_OF_ONE


def test_whoever_has_a_network_of_addresses_is_counted_as_one() -> None:
    """Every home line has 2^64 addresses of IPv6: a limit for each of them would be none."""
    home = "a home of this test"
    for number in range(30):
        rates.attempt_sign_in(home, f"name {number}", f"2001:db8:1:2::{number:x}")

    with pytest.raises(TooManyRequestsError):
        rates.attempt_sign_in(home, "another", "2001:db8:1:2:ffff::1")
    rates.attempt_sign_in(home, "another", "2001:db8:1:3::1")
    assert rates.counted("::ffff:10.1.2.3") == "10.1.2.3" and rates.counted("fe80::1%eth0") == rates.counted("fe80::2")
    assert [rates.counted(part) for part in (None, "10.1.2.3", "name: of a thing")] == ["", "10.1.2.3", "name: of a thing"]


@pytest.mark.parametrize("host", ["0.0.0.0", "0.0.0.0:7860", "10.1.2.3:7860", "[2001:db8::1]:7860", "[::]"])
def test_without_accounts_only_this_machines_own_addresses_are_answered(platform: Platform, host: str) -> None:
    """A page asks 0.0.0.0, of which browsers say nothing; or something passes connections on from the network, of which it says nothing."""
    client = program(application(platform))

    for path in ("/api/v1/projects", "/api/v1/session", "/metrics"):
        told = client.get(path, headers={"Host": host})
        assert (told.status_code, told.json()["code"]) == (421, "DL737"), path


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "[::1]:1", "127.8.8.8", "danlu.lan:7860"])
def test_without_accounts_this_machines_own_addresses_are_answered(platform: Platform, host: str) -> None:
    assert program(application(platform, hosts=("danlu.lan",))).get("/api/v1/projects", headers={"Host": host}).status_code == 200


def test_with_accounts_every_address_of_the_server_is_answered(world: World) -> None:
    client = program(application(world.platform), world.key("viewer"))

    assert client.get("/api/v1/projects", headers={"Host": "10.1.2.3:7860"}).status_code == 200


def test_shares_are_not_multiplied_by_making_projects(world: World) -> None:
    few = replace(world.platform, settings=replace(world.platform.settings, network=Network(max_projects=2)))
    made = [projects.create_project(few, world.actors["stranger"], NewProject(name=name)).id for name in "ab"]

    with pytest.raises(QuotaError, match="you have made 2 projects"):
        projects.create_project(few, world.actors["stranger"], NewProject(name="c"))
    for _ in range(3):
        projects.create_project(few, world.actors["operator"], NewProject(name="d"))
    projects.delete_project(few, world.actors["stranger"], made[0])
    assert projects.create_project(few, world.actors["stranger"], NewProject(name="c")).name == "c"


def test_nobody_fills_the_tables_with_keys(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "MAX_KEYS", 2)
    viewer = world.actors["viewer"]
    made = [keys.create_key(world.platform, viewer, NewKey(name="k")) for _ in range(2)]

    with pytest.raises(QuotaError, match="2 valid API keys"):
        keys.create_key(world.platform, viewer, NewKey(name="k"))
    keys.revoke_key(world.platform, viewer, made[0].id)
    keys.create_key(world.platform, viewer, NewKey(name="k"))
    keys.create_key(world.platform, world.actors["editor"], NewKey(name="k"))


def test_the_end_of_a_run_is_not_told_to_a_crowd(platform: Platform, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has a project would send mails and requests without number through this server."""
    monkeypatch.setattr(quotas, "MAX_SUBSCRIPTIONS", 2)
    for _ in range(2):
        notices.create_subscription(platform, OWNER, project, NewSubscription(address="https://victim.example.org/"))

    with pytest.raises(QuotaError, match="tells 2 addresses"):
        notices.create_subscription(platform, OWNER, project, NewSubscription(address="https://victim.example.org/"))


def test_a_receiver_that_takes_its_time_keeps_neither_other_notices_nor_other_chores_waiting(platform: Platform, project: str) -> None:
    for number in range(3):
        notices.create_subscription(platform, OWNER, project, NewSubscription(address=f"https://example.org/{number}"))
    with platform.database.writing() as connection:
        run = RUNS.insert(connection, project_id=project, name="r", state="running", recipe={}, base_model="m")
        RUNS.update(connection, run.id, state="succeeded", finished_at=time.time())
    all_at_once = threading.Barrier(3)

    def post(url: str, body: bytes, headers: dict[str, str]) -> int:
        all_at_once.wait(30)
        return 200

    assert notices.deliver(platform, post=post) == 3


def test_uploads_of_nothing_do_not_fill_the_disk_with_folders(platform: Platform, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "MAX_OPEN_UPLOADS", 2)
    made = [uploads.begin_upload(platform, OWNER, project, NewUpload(file_name="a", size_bytes=1)).id for _ in range(2)]

    with pytest.raises(QuotaError, match="2 uploads of this project"):
        uploads.begin_upload(platform, OWNER, project, NewUpload(file_name="a", size_bytes=1))
    assert len(list((platform.home / "uploads").iterdir())) == 2
    uploads.abandon_upload(platform, OWNER, made[0])
    uploads.begin_upload(platform, OWNER, project, NewUpload(file_name="a", size_bytes=1))


def test_a_page_of_large_rows_has_fewer_of_them(platform: Platform, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred votes of four megabytes each would be a page that fills the memory."""
    monkeypatch.setattr(rows, "MAX_PAGE_CHARS", 10_000)
    made: list[str] = []
    for number in range(23):
        text = "x" * (4000 if number % 2 else 10)
        shown = [{"model": "a", "text": text}, {"model": "b", "text": "y" * 30_000 if number == 5 else "y"}]
        body = NewVote.model_validate({"messages": [{"role": "user", "content": "?"}], "answers": shown, "winner": 0})
        made.append(votes.create_vote(platform, OWNER, project, body).id)

    seen: list[str] = []
    sizes: list[int] = []
    after: str | None = None
    while True:
        page = votes.list_votes(platform, OWNER, project, limit=200, after=after)
        seen += [vote.id for vote in page.items]
        sizes.append(sum(len(answer["text"]) for vote in page.items for answer in vote.answers))
        after = page.next
        if after is None:
            break

    assert seen == made[::-1]
    assert sorted(sizes)[-2] <= 10_000 and max(sizes) == 34_000  # one that is larger than a page is a page by itself
    assert [len(votes.list_votes(platform, OWNER, project, limit=limit).items) for limit in (1, 3)] == [1, 3]


def test_a_recipe_that_is_larger_than_anybody_writes_one_is_not_read_and_not_kept(platform: Platform, project: str) -> None:
    large = RECIPE | {"evaluation": {"suites": [{"type": "heldout"}] * 20_000}}
    sweep = {"set": {"method.target_modules": ["x" * 200_000, "all-linear"]}}

    with pytest.raises(TooLargeError, match="this recipe has"):
        runs.submit_run(platform, OWNER, project, NewRun(recipe=large))
    with pytest.raises(TooLargeError):
        recipes.check_recipe(platform, OWNER, RecipeText(recipe=large))
    with pytest.raises(TooLargeError):
        sweeps.submit_sweep(platform, OWNER, project, NewSweep(recipe=RECIPE, sweep=sweep))
    with pytest.raises(TooLargeError):
        sweeps.preview_sweep(platform, OWNER, project, SweepPreview(recipe=large))
    assert not sweeps.preview_sweep(platform, OWNER, project, SweepPreview(recipe=RECIPE, sweep=sweep)).is_ready
    assert recipes.preview_run(platform, OWNER, project, Preview(recipe=large)).problems[0].code == "DL734"
    told = program(application(platform)).post("/api/v1/recipes/check", json={"text": "a: [" + "1, " * 100_000 + "1]"})
    assert told.status_code == 422 and runs.list_runs(platform, OWNER, project).items == []
