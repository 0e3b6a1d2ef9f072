"""Waiting for a run: how it ends, what interrupts it, and a server that is away meanwhile."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from danlu.api.app import create_app
from danlu.cli.main import main
from danlu.client import Studio, http
from danlu.client.http import HttpTransport
from danlu.client.local import LocalTransport
from danlu.errors import DataError, ServerError
from danlu.services.platform.platform import Platform
from danlu.store import jobs
from danlu.store.jobs import JOBS
from held_port import held_port
from threaded_server import Server

RECIPE = {"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"}
ERROR = DataError("no rows", why="w", fix="f").to_dict()


def end_run(platform: Platform, state: str) -> None:
    """Let the only run end, as its job's process would."""
    with platform.database.writing() as connection:
        [queued] = JOBS.all(connection, state="queued")
        if state == "cancelled":
            jobs.cancel(connection, queued.id)
            return
        job = jobs.claim(connection, worker_id="w", home="local", total_slots=1)
        assert job is not None
        jobs.finish(connection, job.id, job.attempt, state, error=ERROR if state == "failed" else None)


@pytest.fixture
def danlu(platform: Platform, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Run a command on a server; `then` happens while it waits for the first time."""
    for name, value in {"DANLU_LANG": "en", "COLUMNS": "200", "DANLU_SERVER": url}.items():
        monkeypatch.setenv(name, value)

    def run(*words: str, then: Callable[[], object]) -> tuple[int, str, str]:
        waits = iter([then])
        monkeypatch.setattr("danlu.client.runs.time.sleep", lambda seconds: next(waits, lambda: None)())
        monkeypatch.setattr(sys, "argv", ["danlu", *words])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    yield run


@pytest.mark.parametrize(("state", "code", "said"), [("succeeded", 0, ""), ("failed", 3, "DL200: no rows"), ("cancelled", 10, "somebody cancelled it")])
@pytest.mark.parametrize("as_json", [False, True])
def test_submit_and_wait_ends_with_the_exit_code_of_the_run(danlu: Any, platform: Platform, state: str, code: int, said: str, as_json: bool) -> None:
    found, out, err = danlu("submit", "danlu/zhangjiajie", "--wait", *(["--json"] if as_json else []), then=lambda: end_run(platform, state))

    assert found == code and said in err
    assert (json.loads(out)["state"] if as_json else out.splitlines()[-1]) == (state if as_json else f"Over: {state}")


def test_whoever_interrupts_waiting_does_not_end_the_run(danlu: Any, platform: Platform) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    code, _, err = danlu("submit", "danlu/zhangjiajie", "--wait", then=interrupt)

    assert code == 130 and "The run goes on. End it with: danlu cancel run_" in err
    with platform.database.reading() as connection:
        assert [job.state for job in JOBS.all(connection)] == ["queued"]


def test_a_server_that_starts_again_is_waited_for(platform: Platform) -> None:
    first = Server(create_app(platform))
    url = first.start()
    with Studio(HttpTransport(url, sleep=lambda seconds: time.sleep(0.01))) as studio:
        run, ended = studio.runs.submit(RECIPE), list[str]()
        waiting = threading.Thread(target=lambda: ended.append(run.wait(poll_seconds=0.01).state))
        waiting.start()
        first.stop()
        with held_port(int(url.rpartition(":")[2])) as port:
            time.sleep(0.5)  # much longer than one question is tried again
            assert waiting.is_alive()
            second = Server(create_app(platform), port=port)
            second.start()
        end_run(platform, "succeeded")
        waiting.join(30)
        second.stop()

    assert ended == ["succeeded"]


def test_a_server_that_stays_away_and_a_home_that_cannot_be_read_are_told(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE_SECONDS", 0.1)
    server = Server(create_app(platform))
    with Studio(HttpTransport(server.start(), sleep=lambda seconds: None)) as studio:
        run = studio.runs.submit(RECIPE)
        server.stop()
        with pytest.raises(ServerError, match="no answer"):
            run.wait(poll_seconds=0.01)

    assert LocalTransport(platform, starts_worker=False).patience_seconds == 0
