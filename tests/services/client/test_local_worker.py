"""The worker that a local studio starts: it works, is alone, outlives nobody's patience, and ends when nothing is left to do."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from danlu import Studio
from danlu.client.working import has_work, until_idle
from danlu.executors.local import LocalExecutor
from danlu.services.platform.platform import Platform
from danlu.store import jobs
from danlu.store.jobs import Job
from danlu.worker.supervisor import Supervisor


def inspect_job(platform: Platform, project: str, path: Path) -> Job:
    with platform.database.writing() as connection:
        return jobs.submit(connection, project_id=project, kind="inspect", payload={"type": "inspect", "path": str(path)})


def test_a_local_studio_gets_its_work_done(platform: Platform, rows_file: Path) -> None:
    """A worker is started by waking, and does the job; a second waking finds it there."""
    with Studio.open(platform.home) as studio:
        project = studio.projects.create("p").id
        job = inspect_job(platform, project, rows_file)
        studio.transport.wake()
        studio.transport.wake()
        deadline = time.monotonic() + 90
        while not studio.jobs.get(job.id).is_over and time.monotonic() < deadline:
            time.sleep(0.2)
        log = (platform.home / "worker.log").read_text("utf-8")

        assert studio.jobs.get(job.id).state == "succeeded", log + "".join(studio.jobs.log(job.id))


def test_a_second_worker_leaves_at_once(platform: Platform) -> None:
    with Supervisor(platform.database, platform.home, LocalExecutor(platform.home)).lock():
        environment = os.environ | {"DANLU_HOME": str(platform.home)}
        done = subprocess.run([sys.executable, "-m", "danlu.client.working"], env=environment, capture_output=True, text=True, timeout=90)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_idle_is_when_nothing_waits_for_a_while(platform: Platform, tmp_path: Path) -> None:
    now = [0.0]
    with Studio.open(platform.home, worker=False) as studio:
        job = inspect_job(platform, studio.projects.create("p").id, tmp_path / "none.jsonl")
        is_idle = until_idle(platform, idle_seconds=10, clock=lambda: now[0])
        outcomes = []
        for now[0], change in ((9.0, None), (25.0, studio.jobs.pause), (34.9, None), (35.0, None)):
            outcomes.append(is_idle())
            if change is not None:
                change(job.id)

        assert outcomes == [False, False, False, True] and not has_work(platform)


@pytest.mark.parametrize("name", ["~/x", "relative"])
def test_a_home_is_opened_by_any_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    with Studio.open(name) as studio:
        assert repr(studio) == f"<Studio {tmp_path / name.removeprefix('~/')}>"
        assert (tmp_path / name.removeprefix("~/") / "danlu.sqlite").is_file()
