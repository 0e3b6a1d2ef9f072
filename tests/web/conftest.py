"""A studio of its own for the browser tests: a home with a project, a finished run, a queued one and a dataset, served as users get it."""

import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from studio_server import Served, Window, serve

from danlu.data.findings import look_over
from danlu.files import write_json
from danlu.services.platform import datasets, projects, runs, sweeps
from danlu.services.platform.access import Actor
from danlu.services.platform.datasets import NewDataset
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.services.platform.runs import NewRun
from danlu.services.platform.storage import cached
from danlu.services.platform.sweeps import NewSweep
from danlu.settings import Settings
from danlu.store.datasets import DATASET_VERSIONS
from danlu.store.jobs import JOBS
from danlu.store.runs import RUNS
from danlu.worker import ingest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OWNER = Actor.local()


@pytest.fixture(scope="module")  # not longer: it runs an event loop, beside which tests of other modules could not run theirs
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if find_spec("playwright") is None:
        pytest.skip("playwright is not installed (pip install playwright)")
    if path is None:
        pytest.skip(f"no browser found ({', '.join(BROWSERS)})")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # The memory that containers give to /dev/shm is too small for a browser.
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@pytest.fixture
def window(browser: Any, studio: Served) -> Iterator[Window]:
    """A window on the studio."""
    opened = Window(browser, studio)
    yield opened
    opened.context.close()


@pytest.fixture
def platform(studio: Served) -> Iterator[Platform]:
    """The studio's home, for what others do meanwhile."""
    opened = Platform.open(Settings(home=studio.home))
    yield opened
    opened.close()


class Furnished(NamedTuple):
    """A home that holds something for every page, and what it is called."""

    home: Path
    project_id: str
    run_id: str
    dataset_id: str
    sweep_id: str


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory, finished_run: Path, small_model: Path) -> Furnished:
    """A home to copy: what the tests of one module do to it, those of others do not meet."""
    home = tmp_path_factory.mktemp("furnished") / "home"
    shutil.copytree(small_model, home / "models" / "small")
    platform = Platform.open(Settings(home=home))
    project_id = projects.create_project(platform, OWNER, NewProject(name="Travel guide", description="Answers about <b>Zhangjiajie</b>")).id
    run_id = _finished(platform, project_id, finished_run)
    runs.submit_run(platform, OWNER, project_id, NewRun(recipe={"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"}, name="queued \U0001f600 run"))
    dataset_id = _dataset(platform, project_id)
    sweep_id = _sweep(platform, project_id, finished_run)
    platform.close()
    return Furnished(home, project_id, run_id, dataset_id, sweep_id)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, furnished: Furnished) -> Iterator[Served]:
    """The studio over a home that holds something for every page."""
    home = tmp_path_factory.mktemp("studio") / "home"
    shutil.copytree(furnished.home, home)
    process, url = serve(home)
    served = Served(url, home, process, *furnished[1:])
    yield served
    served.process.terminate()  # a test may have put another one in its place
    served.process.wait(timeout=60)


def _finished(platform: Platform, project_id: str, folder: Path) -> str:
    """A run that is over, with the files of a real one, brought into the database the usual way."""
    run = runs.submit_run(platform, OWNER, project_id, NewRun(recipe={"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"}, name="Doors <i>1</i>"))
    log = platform.job_folder(_over(platform, run.id, folder)) / "attempt-1" / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("data begins\n<script>alert(1)</script>\ntraining begins\n", "utf-8")
    return run.id


def _sweep(platform: Platform, project_id: str, folder: Path) -> str:
    """A sweep that is over: three members, of which one was left; its run is the best of them."""
    body = NewSweep(recipe={"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"}, sweep={"set": {"method.rank": [2, 4, 8]}}, name="Doors 2")
    run = sweeps.submit_sweep(platform, OWNER, project_id, body)
    rows = []
    for number, (rank, state) in enumerate(((4, "trained"), (2, "left"), (8, "left")), 1):
        member = platform.run_folder(run.id) / "sweep" / "runs" / f"{number:03d}" / "metrics.jsonl"
        member.parent.mkdir(parents=True)
        curve = [{"step": step, "loss": 4.0 - step * 0.05 * number, "num_steps": 40} for step in range(1, 21)]
        member.write_text(
            "".join(json.dumps(line) + "\n" for line in [*curve, {"step": 10, "validation_loss": 3.5}, {"step": 20, "validation_loss": 3.0 + number / 10}])
        )
        rows.append(
            {"name": f"{number:03d}", "settings": {"method.rank": rank}, "validation_loss": 3.0 + number / 10, "best_step": 20, "state": state, "note": ""}
            | {"rank": number, "steps": 40 if state == "trained" else 20, "num_steps": 40, "path": "/nowhere"}
        )
    write_json(platform.run_folder(run.id) / "sweep" / "results.json", {"state": "finished", "best": "001", "members": rows})
    _over(platform, run.id, folder)
    return run.id


def _over(platform: Platform, run_id: str, folder: Path) -> str:
    """Bring what a real run left into the database the usual way; return its job."""
    shutil.copytree(folder, platform.run_folder(run_id), dirs_exist_ok=True)
    with platform.database.writing() as connection:
        job = JOBS.all(connection, run_id=run_id)[0]
        JOBS.update(connection, job.id, state="succeeded", attempt=1, started_at=1e9, finished_at=1e9 + 60)
        RUNS.update(connection, run_id, state="succeeded", started_at=1e9, finished_at=1e9 + 60)
    ingest.catch_up(platform.database, platform.home)
    return job.id


def _dataset(platform: Platform, project_id: str) -> str:
    """A dataset that was looked over."""
    made = datasets.create_dataset(platform, OWNER, project_id, NewDataset(example="danlu/product-json"))
    version = datasets.list_dataset_versions(platform, OWNER, made.id).items[0]
    path = cached(platform, version)
    report = look_over(path, keep_in=path.parent).to_dict()
    with platform.database.writing() as connection:
        DATASET_VERSIONS.update(connection, version.id, report=report)
        for job in JOBS.all(connection, kind="inspect"):
            JOBS.update(connection, job.id, state="succeeded", finished_at=1e9)
    return made.id
