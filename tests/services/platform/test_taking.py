"""Runs that wait on one machine and are carried out by another one of the same database; on two real homes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from danlu.errors import ArtifactMissingError, ConflictError, NotFoundError
from danlu.services.platform import datasets, jobs, projects, runs, sweeps, taking
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.services.platform.runs import NewRun
from danlu.services.platform.sweeps import NewMerge
from danlu.settings import Settings
from danlu.store import jobs as queue
from danlu.store import workers
from danlu.store.engine import Database
from danlu.store.jobs import Job
from danlu.store.runs import Run, home_of

OWNER = Actor.local()
ROWS = b'{"instruction": "1+1?", "output": "2"}\n' * 40


@pytest.fixture
def homes(tmp_path: Path, new_postgres_database: Callable[[], Database]) -> tuple[Platform, Platform]:
    """Two homes with one database and one artifact store."""
    shared = new_postgres_database()
    here, there = (Platform(Settings(home=tmp_path / name, artifacts=str(tmp_path / "artifacts")), shared) for name in ("here", "there"))
    return here, there


@pytest.fixture
def project(homes: tuple[Platform, Platform]) -> str:
    """A project with a dataset that was brought in at the other home."""
    there = homes[1]
    made = projects.create_project(there, OWNER, NewProject(name="p")).id
    stored = there.artifacts.put_bytes(ROWS)
    with there.database.writing() as connection:
        datasets.add_version(connection, there, made, stored, file_name="rows.jsonl", name="rows")
    return made


def submit(platform: Platform, project: str, **values: Any) -> Run:
    return runs.submit_run(platform, OWNER, project, NewRun(recipe={"base_model": "danlu/tiny", "dataset": "rows"} | values))


def claimed(platform: Platform) -> Job | None:
    """The next run that this home's worker would start."""
    while True:
        with platform.database.writing() as connection:
            job = queue.claim(connection, worker_id="w", home=workers.home_id(platform.database, platform.home), total_slots=9)
        if job is None or job.run_id is not None:
            return job


def end(platform: Platform, job: Job | None, state: str) -> None:
    assert job is not None
    with platform.database.writing() as connection:
        queue.finish(connection, job.id, job.attempt, state)


def test_a_run_that_waits_is_carried_out_by_who_takes_it(homes: tuple[Platform, Platform], project: str) -> None:
    here, there = homes
    run = submit(there, project)
    assert claimed(here) is None

    taken = taking.take_run(here, OWNER, run.id)

    assert (taken.id, taken.state) == (run.id, "queued") and claimed(there) is None
    job = claimed(here)
    assert job is not None and job.run_id == run.id and str(there.home) not in str(job.payload)
    [path] = job.payload["artifacts"]
    assert Path(path).read_bytes() == ROWS and Path(path).is_relative_to(here.home)
    assert job.payload["run_dir"] == str(here.run_folder(run.id)) and job.payload["recipe"] == run.recipe
    with here.database.reading() as connection:
        assert home_of(connection, run.id) == workers.home_id(here.database, here.home)


def test_what_has_begun_stays_where_it_is(homes: tuple[Platform, Platform], project: str) -> None:
    here, there = homes
    run = submit(there, project)
    with pytest.raises(ConflictError, match="this machine's already"):
        taking.take_run(there, OWNER, run.id)
    job = claimed(there)

    with pytest.raises(ConflictError, match="has begun"):
        taking.take_run(here, OWNER, run.id)
    end(there, job, "paused")
    with pytest.raises(ConflictError, match="has begun"):
        taking.take_run(here, OWNER, run.id)
    assert job is not None and jobs.get_job(here, OWNER, job.id).home == workers.home_id(there.database, there.home)


def test_of_two_who_want_it_one_gets_it(homes: tuple[Platform, Platform], project: str) -> None:
    """Between looking and writing its own machine may have started it."""
    here, there = homes
    run = submit(there, project)
    seen = runs.list_run_jobs(there, OWNER, run.id)[0]
    claimed(there)

    with here.database.writing() as connection, pytest.raises(ConflictError, match="has begun"):
        queue.go_to(connection, seen.id, home=workers.home_id(here.database, here.home), payload=seen.payload)
    assert jobs.get_job(there, OWNER, seen.id).payload == seen.payload


def test_a_machine_that_does_not_reach_the_data_takes_nothing(homes: tuple[Platform, Platform], project: str, tmp_path: Path) -> None:
    there = homes[1]
    run = submit(there, project)
    apart = Platform(Settings(home=tmp_path / "apart", artifacts=str(tmp_path / "other-artifacts")), there.database)

    with pytest.raises(ArtifactMissingError):
        taking.take_run(apart, OWNER, run.id)
    assert claimed(apart) is None and claimed(there) is not None


def test_what_goes_on_from_files_elsewhere_is_not_taken(homes: tuple[Platform, Platform], project: str) -> None:
    here, there = homes
    made = [submit(there, project).id for _ in range(2)]
    for _ in made:
        end(there, claimed(there), "succeeded")
    next_round = submit(there, project, start_from=made[0])
    merge = sweeps.submit_merge(there, OWNER, project, NewMerge(run_ids=made))

    for run in (next_round, merge):
        with pytest.raises(ConflictError, match="on another machine|is a merge"):
            taking.take_run(here, OWNER, run.id)


def test_a_stranger_takes_nothing(homes: tuple[Platform, Platform], project: str) -> None:
    here, there = homes
    run = submit(there, project)

    with pytest.raises(NotFoundError):
        taking.take_run(here, Actor(user_id="usr_no", name="no", is_signed_in=True), run.id)


def test_a_home_by_itself_has_nobody_to_take_from(platform: Platform) -> None:
    project = projects.create_project(platform, OWNER, NewProject(name="p")).id
    run = submit(platform, project, dataset="danlu/zhangjiajie")

    with pytest.raises(ConflictError, match="this machine's already"):
        taking.take_run(platform, OWNER, run.id)
