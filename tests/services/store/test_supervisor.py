"""The supervisor and real job processes: they end, die, are cancelled, and are found again after a restart."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from danlu.errors import RunBusyError
from danlu.executors.local import LocalExecutor
from danlu.store import jobs, schema
from danlu.store.engine import Database
from danlu.store.jobs import JOBS, Job
from danlu.store.projects import PROJECTS
from danlu.worker.supervisor import Supervisor

SLOW_ROWS = 120_000


@pytest.fixture(scope="session")
def slow_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data file that takes some seconds to look over."""
    path = tmp_path_factory.mktemp("rows") / "many.jsonl"
    path.write_text("".join(f'{{"instruction": "question {n}", "output": "answer {n} {n * 7919 % 1009}"}}\n' for n in range(SLOW_ROWS)))
    return path


class Home:
    """A home folder with its database; `restart` gives a supervisor that remembers nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = Database(f"sqlite:///{folder / 'danlu.sqlite'}")
        schema.upgrade(self.database)
        with self.database.writing() as connection:
            self.project = PROJECTS.insert(connection, name="p", description="", created_by=None, is_archived=False).id
        self.supervisor = self.restart()

    def restart(self) -> Supervisor:
        self.supervisor = Supervisor(self.database, self.folder, LocalExecutor(self.folder))
        return self.supervisor

    def add(self, path: Path, **values: Any) -> str:
        with self.database.writing() as connection:
            return jobs.submit(connection, project_id=self.project, kind="inspect", payload={"type": "inspect", "path": str(path)}, **values).id

    def job(self, id: str) -> Job:
        with self.database.reading() as connection:
            return JOBS.get(connection, id)

    def tick_until(self, done: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, "it took too long"
            self.supervisor.tick()
            time.sleep(0.05)

    def running_pid(self, id: str) -> int:
        self.tick_until(lambda: self.job(id).pid is not None)
        return int(self.job(id).pid or 0)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_job_is_carried_out_in_a_process_of_its_own_and_its_result_is_stored(home: Home, rows_file: Path) -> None:
    id = home.add(rows_file)

    home.tick_until(lambda: home.job(id).is_over)

    job = home.job(id)
    assert (job.state, job.attempt, job.error) == ("succeeded", 1, None)
    assert job.result is not None and job.result["report"]["format"] == "alpaca"
    with home.database.reading() as connection:
        assert jobs.slots_of(connection, id) == []
    assert "succeeded" in (home.folder / "jobs" / id / "attempt-1" / "log.txt").read_text()


def test_a_file_that_cannot_be_read_fails_with_what_to_do(home: Home, tmp_path: Path) -> None:
    id = home.add(tmp_path / "nothing.jsonl")

    home.tick_until(lambda: home.job(id).is_over)

    job = home.job(id)
    assert job.state == "failed" and job.error is not None and job.error["code"].startswith("DL2") and job.error["fix"]


def test_a_job_goes_on_while_its_supervisor_is_gone_and_is_adopted(home: Home, slow_file: Path) -> None:
    id = home.add(slow_file)
    pid = home.running_pid(id)

    home.restart()  # as after kill -9: nothing is remembered, the child has another parent
    home.tick_until(lambda: home.job(id).is_over)

    assert (home.job(id).state, home.job(id).attempt) == ("succeeded", 1)
    assert not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z"


def test_a_killed_process_is_started_again(home: Home, slow_file: Path) -> None:
    id = home.add(slow_file)
    os.kill(home.running_pid(id), signal.SIGKILL)

    home.tick_until(lambda: home.job(id).is_over)

    assert (home.job(id).state, home.job(id).attempt) == ("succeeded", 2)


def test_a_job_that_always_dies_is_given_up_with_the_reason(home: Home, slow_file: Path) -> None:
    id = home.add(slow_file)

    for attempt in range(1, jobs.MAX_ATTEMPTS_WITHOUT_PROGRESS + 1):
        home.tick_until(lambda: home.job(id).attempt == attempt)  # noqa: B023
        os.kill(home.running_pid(id), signal.SIGKILL)
        home.tick_until(lambda: home.job(id).pid is None)

    job = home.job(id)
    assert job.state == "failed" and job.error is not None and (job.error["code"], job.error["why"]) == ("DL720", "it was ended by SIGKILL")


def test_a_cancelled_job_ends_within_ten_seconds(home: Home, slow_file: Path) -> None:
    id = home.add(slow_file)
    pid = home.running_pid(id)
    with home.database.writing() as connection:
        jobs.cancel(connection, id)

    home.tick_until(lambda: home.job(id).is_over, seconds=10)

    assert home.job(id).state == "cancelled"
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)


def test_a_supervisor_that_died_before_it_started_the_process_is_made_up_for(home: Home, rows_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    id = home.add(rows_file)
    with home.database.writing() as connection:
        jobs.claim(connection, worker_id="gone", home=str(home.folder), total_slots=1)  # and killed here
    monkeypatch.setattr("danlu.executors.local.STARTING_SECONDS", 0.0)

    home.tick_until(lambda: home.job(id).is_over)

    assert (home.job(id).state, home.job(id).attempt, home.job(id).attempts_without_progress) == ("succeeded", 2, 0)


def test_only_one_supervisor_works_on_a_home(home: Home) -> None:
    other = Supervisor(home.database, home.folder, LocalExecutor(home.folder))

    with home.supervisor.lock(), pytest.raises(RunBusyError, match="another worker"), other.lock():
        pass


def test_a_job_sees_no_secret_of_the_server(home: Home, slow_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_DATABASE_URL", "postgresql://x:secret@h/d")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    pid = home.running_pid(home.add(slow_file))

    environment = Path(f"/proc/{pid}/environ").read_bytes()

    assert b"secret" not in environment and b"DANLU_HOME=" in environment
    os.kill(pid, signal.SIGKILL)
