"""Engines: who may ask, who waits, what stops an answer, when they end. The model is one that counts; its process is real."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
from fastapi.testclient import TestClient

from danlu.api.app import create_app
from danlu.errors import ForbiddenError, JobError, ModelError
from danlu.services.engine import READY, SOCKET, TOKEN
from danlu.services.forecasts import Device
from danlu.services.platform import chat, projects
from danlu.services.platform.access import Actor
from danlu.services.platform.chat import EngineChoice, Question
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import Membership, NewProject
from danlu.store import jobs, workers
from danlu.store.jobs import JOBS
from danlu.store.runs import RUNS
from danlu.store.users import USERS
from danlu.store.workers import ONLY_HOME

OWNER = Actor.local()
PROGRAM = """
import sys, time
from pathlib import Path
from danlu.errors import ForbiddenError, JobError, ModelError
from danlu.services.engine import Engine

class Counting:
    def answer(self, request, on_token):
        text = request["messages"][-1]["content"]
        if text == "fail":
            raise ModelError("no room", why="w", fix="f")
        count = 0
        while count < request["max_new_tokens"] and on_token():
            count += 1
            yield {"kind": "text", "text": f"{count} "}
            time.sleep(0.02)
        Path("counts").open("a").write(f"{count}\\n")
        yield {"kind": "end", "num_prompt_tokens": len(text), "num_tokens": count, "seconds": 0.1, "is_cut": False}

Engine(Path(sys.argv[1]), Counting(), idle_seconds=float(sys.argv[2])).serve()
"""


class Running:
    """A home in which the engine of danlu/tiny runs."""

    def __init__(self, platform: Platform, idle_seconds: float) -> None:
        self.platform = platform
        self.project = projects.create_project(platform, OWNER, NewProject(name="p")).id
        with platform.database.writing() as connection:
            payload = {"type": "chat", "base_model": "danlu/tiny", "path": None, "run_id": None, "run_dir": None, "dtype": "float32"}
            jobs.submit(connection, project_id=self.project, kind="chat", payload=payload, num_slots=0, priority="express")
            job = jobs.claim(connection, worker_id="w", home=ONLY_HOME, total_slots=1)
        assert job is not None
        self.job = job
        self.folder = platform.job_folder(job.id) / "attempt-1"
        self.folder.mkdir(parents=True)
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(self.folder), str(idle_seconds)])
        self.until(lambda: (self.folder / READY).exists() or self.process.poll() is not None)  # one that soon leaves may have gone already

    def until(self, is_done: Any) -> None:
        end = time.monotonic() + 60
        while not is_done():
            assert time.monotonic() < end, "it took too long"
            time.sleep(0.02)

    def question(self, text: str = "q", tokens: int = 3) -> Question:
        return Question.model_validate({"model": "danlu/tiny", "messages": [{"role": "user", "content": text}], "max_new_tokens": tokens})

    def counts(self) -> list[int]:
        path = self.folder / "counts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture
def running(platform: Platform) -> Iterator[Running]:
    running = Running(platform, 600.0)
    yield running
    running.process.kill()
    running.process.wait()


def test_answers_come_piece_by_piece_and_one_after_the_other(running: Running) -> None:
    pieces = list(chat.stream_answer(running.platform, OWNER, running.project, running.question()))
    assert [(piece.kind, piece.text) for piece in pieces] == [("text", "1 "), ("text", "2 "), ("text", "3 "), ("end", "")]
    assert pieces[-1].num_tokens == 3

    def ask(tokens: int) -> list[chat.ChatPiece]:
        return list(chat.stream_answer(running.platform, OWNER, running.project, running.question(tokens=tokens)))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, [30, 31, 32, 33]))
    assert [pieces[-1].num_tokens for pieces in found] == [30, 31, 32, 33]
    assert any(piece.kind == "waiting" and piece.ahead > 0 for pieces in found for piece in pieces)
    assert chat.list_engines(running.platform, OWNER, running.project)[0].state == "ready"


def test_closing_an_answer_stops_the_model_and_the_next_one_comes(running: Running) -> None:
    pieces = chat.stream_answer(running.platform, OWNER, running.project, running.question(tokens=3000))
    assert next(pieces).text == "1 "
    pieces.close()  # type: ignore[attr-defined]  # it is a generator

    assert chat.answer(running.platform, OWNER, running.project, running.question()).text == "1 2 3 "
    running.until(lambda: running.counts())
    assert 3 in running.counts() and max(running.counts()) < 3000


def test_an_error_is_told_with_its_class(running: Running) -> None:
    with pytest.raises(ModelError, match="no room"):
        chat.answer(running.platform, OWNER, running.project, running.question("fail"))
    assert chat.answer(running.platform, OWNER, running.project, running.question()).num_tokens == 3


def test_without_the_token_nobody_is_answered(running: Running) -> None:
    assert stat.S_IMODE((running.folder / TOKEN).stat().st_mode) == stat.S_IMODE((running.folder / SOCKET).stat().st_mode) == 0o600
    for sent in (b'{"messages": [{"role": "user", "content": "q"}], "max_new_tokens": 3}\n', b'{"token": "x"}\n', b"no json\n", b"[1]\n"):
        with socket.socket(socket.AF_UNIX) as connection, chat._short(running.folder) as name:
            connection.settimeout(20)
            connection.connect(name)
            connection.sendall(sent)
            [line] = connection.makefile("rb").readlines()
            assert (orjson.loads(line)["kind"], orjson.loads(line)["code"]) == ("error", "DL731")
    assert running.counts() == []


def test_an_engine_ends_when_nobody_asks_or_when_it_is_told_to(platform: Platform) -> None:
    idle = Running(platform, 0.5)
    assert idle.process.wait(60) == 0 and not (idle.folder / SOCKET).exists() and not (idle.folder / TOKEN).exists()
    told = Running(platform, 600.0)
    os.kill(told.process.pid, signal.SIGTERM)
    assert told.process.wait(60) == 0


def test_an_engine_that_went_away_is_loaded_anew(running: Running) -> None:
    running.process.kill()
    running.process.wait()
    with running.platform.database.writing() as connection:
        jobs.finish(connection, running.job.id, 1, "succeeded")

    pieces = chat.stream_answer(running.platform, OWNER, running.project, running.question())
    assert next(pieces).kind == "loading"
    pieces.close()  # type: ignore[attr-defined]
    with running.platform.database.reading() as connection:
        assert [job.state for job in JOBS.all(connection, kind="chat")] == ["succeeded", "queued"]


def member(platform: Platform, project: str, role: str) -> Actor:
    with platform.database.writing() as connection:
        made = USERS.insert(connection, name=role, name_key=role, is_admin=False, is_active=True, preferences={})
    projects.set_member(platform, OWNER, project, made.id, Membership.model_validate({"role": role}))
    return Actor(user_id=made.id, name=role, is_signed_in=True)


def test_base_models_are_loaded_by_editors_and_asked_by_reviewers(platform: Platform) -> None:
    project = projects.create_project(platform, OWNER, NewProject(name="p")).id
    reviewer, editor = member(platform, project, "reviewer"), member(platform, project, "editor")
    large, other, tiny = EngineChoice(model="somebody/large"), EngineChoice(model="somebody/other"), EngineChoice(model="danlu/tiny")
    asked = Question.model_validate({"model": large.model, "messages": [{"role": "user", "content": "?"}]})
    for refused in (lambda: chat.load_engine(platform, reviewer, project, large), lambda: chat.stream_answer(platform, reviewer, project, asked)):
        with pytest.raises(ForbiddenError, match="needs the role editor"):
            refused()
    assert chat.list_engines(platform, reviewer, project) == []

    loaded = chat.load_engine(platform, editor, project, large)  # from now on everybody may ask it
    assert chat.load_engine(platform, reviewer, project, large) == loaded
    assert next(chat.stream_answer(platform, reviewer, project, asked)).kind == "loading"
    with platform.database.writing() as connection:
        RUNS.insert(connection, project_id=project, name="r", state="queued", recipe={}, base_model=other.model)
    assert [chat.load_engine(platform, reviewer, project, one).state for one in (other, tiny)] == ["queued", "queued"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine may take a fifth of a second to come up."""
    for name in ("LOAD_SECONDS", "NO_WORKER_SECONDS"):
        monkeypatch.setattr(chat, name, 0.2)


def ask_in_vain(platform: Platform, project: str) -> str:
    asked = Question.model_validate({"model": "danlu/tiny", "messages": [{"role": "user", "content": "?"}]})
    with pytest.raises(JobError, match="was not loaded within") as caught:
        chat.answer(platform, OWNER, project, asked)
    with platform.database.reading() as connection:
        assert [job.state for job in JOBS.all(connection, kind="chat")][-1] == "cancelled"  # nobody waits for it any more
    return caught.value.why


def worker_of(platform: Platform, alarm: str | None = None) -> None:
    now = time.time()
    with platform.database.writing() as connection:
        workers.register(connection, workers.Worker("wrk_1", "h", ONLY_HOME, str(platform.home), os.getpid(), 0, 1, now, now, alarm))


def test_an_engine_that_no_worker_starts_is_not_waited_for_for_ever(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "NO_WORKER_SECONDS", 0.2)
    project = projects.create_project(platform, OWNER, NewProject(name="p")).id

    assert ask_in_vain(platform, project).endswith("no worker is there")


def test_an_engine_that_waits_for_a_gpu_says_who_has_it(platform: Platform, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat.forecasts, "device", lambda: Device("cuda", 1 << 30))
    project = projects.create_project(platform, OWNER, NewProject(name="p")).id
    worker_of(platform)
    with platform.database.writing() as connection:
        job = jobs.submit(connection, project_id=project, kind="train", payload={"type": "train"}, home=ONLY_HOME)
        jobs.claim(connection, worker_id="wrk_1", home=ONLY_HOME, total_slots=1)

    assert f"all 1 slots are taken, by {job.id} (train)" in ask_in_vain(platform, project)


def test_an_engine_that_needs_no_slot_says_what_keeps_the_worker_from_starting_it(platform: Platform, impatient: None) -> None:
    project = projects.create_project(platform, OWNER, NewProject(name="p")).id
    worker_of(platform, alarm="no space left on device")

    assert "the worker starts nothing: no space left on device" in ask_in_vain(platform, project)


def test_rest_streams_an_answer(running: Running) -> None:
    with TestClient(create_app(running.platform), base_url="http://127.0.0.1", client=("127.0.0.1", 50_000)) as client:
        url = f"/api/v1/projects/{running.project}/chat"
        body = running.question().model_dump(mode="json")
        told = client.post(f"{url}/stream", json=body)
        events = [line.removeprefix("event: ") for line in told.text.splitlines() if line.startswith("event: ")]
        assert (told.status_code, told.headers["content-type"].split(";")[0], events) == (200, "text/event-stream", ["text", "text", "text", "end"])
        failed = client.post(f"{url}/stream", json=running.question("fail").model_dump(mode="json"))
        assert "event: error" in failed.text and "DL400" in failed.text
        assert client.post(url, json=body).json()["text"] == "1 2 3 "
        assert client.post(f"{url}/stream", json=body | {"model": "run_unknown"}).status_code in (400, 404)
        assert client.post(f"{url}/stream", json=body | {"temperature": -1}).status_code == 422


def test_a_long_home_folder_has_room_for_the_socket_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / ("long-" * 30)
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        with chat._short(folder) as name:
            server.bind(name)
        server.listen()
        with socket.socket(socket.AF_UNIX) as client, chat._short(folder) as name:
            assert len(name) < 108
            client.connect(name)
