"""A home folder that lies elsewhere than before: what waits in its queue goes on there, and touches nothing where it was."""

import shutil
from pathlib import Path

import pytest

from danlu.errors import RunBusyError
from danlu.executors.local import LocalExecutor
from danlu.files import read_json, write_json
from danlu.services.platform import backups, datasets, jobs, projects, runs, storage
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.services.platform.runs import NewRun
from danlu.settings import Settings
from danlu.store.moves import with_folder
from danlu.worker.supervisor import Supervisor

OWNER = Actor.local()
DAY = 86_400.0


class Queue:
    """A dataset, a run of it that waits, and a row that is to be shown."""

    def __init__(self, platform: Platform) -> None:
        self.project = projects.create_project(platform, OWNER, NewProject(name="p")).id
        made = datasets.create_dataset(platform, OWNER, self.project, datasets.NewDataset(example="danlu/zhangjiajie", name="z"))
        self.version = datasets.list_dataset_versions(platform, OWNER, made.id).items[0]
        self.run = runs.submit_run(platform, OWNER, self.project, NewRun(recipe={"base_model": "danlu/tiny", "dataset": "z"}))
        self.shown = datasets.show_example(platform, OWNER, self.version.id, 1, datasets.ExampleView())


def payloads(platform: Platform) -> str:
    return str([job.payload for job in jobs.list_queue(platform, OWNER)])


def test_a_backup_that_is_put_into_a_new_home_goes_on_there(platform: Platform, tmp_path: Path) -> None:
    queue, new = Queue(platform), Settings(home=tmp_path / "new")
    backups.backup(platform, tmp_path / "backup", with_artifacts=True)

    restored = backups.restore(new, tmp_path / "backup")

    assert (restored.artifacts_missing, restored.jobs_without_data) == ([], [])
    again = Platform.open(new)
    job = runs.list_run_jobs(again, OWNER, queue.run.id)[0]
    assert job.payload["run_dir"] == str(new.home / "runs" / queue.run.id) and str(platform.home) not in payloads(again)
    assert all(Path(path).read_bytes() for path in job.payload["artifacts"]) and list(job.payload["artifacts"].values()) == [queue.version.digest]
    assert runs.list_run_jobs(platform, OWNER, queue.run.id)[0].payload["run_dir"] == str(platform.run_folder(queue.run.id))  # the old one is as it was
    again.close()


def test_a_restored_job_whose_data_is_nowhere_is_named(platform: Platform, tmp_path: Path) -> None:
    queue = Queue(platform)
    backups.backup(platform, tmp_path / "backup")

    restored = backups.restore(Settings(home=tmp_path / "new"), tmp_path / "backup")

    assert restored.artifacts_missing == [queue.version.digest]
    assert len(restored.jobs_without_data) == 3  # the version is also still to be looked over


def test_a_home_that_was_moved_is_noticed_by_its_worker(platform: Platform, tmp_path: Path) -> None:
    queue = Queue(platform)
    member = platform.run_folder(queue.run.id) / "sweep" / "runs" / "1" / "run.json"
    for path in (platform.run_folder(queue.run.id) / "run.json", member):
        write_json(path, {"written": {}, "paths": {"z@1": str(platform.home / "cache" / "x"), "elsewhere": "/data/x"}})
    before = Supervisor.of(platform)
    with before.lock():
        before._beat([])
    platform.close()
    shutil.move(platform.home, tmp_path / "moved")

    moved = Platform.open(Settings(home=tmp_path / "moved"))
    worker = Supervisor(moved.database, moved.home, LocalExecutor(moved.home))
    worker.run(lambda: True)

    assert str(platform.home) not in payloads(moved) and runs.list_run_jobs(moved, OWNER, queue.run.id)[0].version == 1
    for path in (moved.run_folder(queue.run.id) / "run.json", moved.run_folder(queue.run.id) / member.relative_to(platform.run_folder(queue.run.id))):
        assert read_json(path)["paths"] == {"z@1": str(moved.home / "cache" / "x"), "elsewhere": "/data/x"}
    with worker.lock(), pytest.raises(RunBusyError), Supervisor.of(moved).lock():
        pass
    moved.close()


def test_only_whole_names_of_folders_are_changed() -> None:
    value = {"/a/b": ["/a/b/c", "/a/bc", "a/b", 3, None], "x": {"y": "/a/b"}}

    assert with_folder(value, "/a/b", "/n") == {"/n": ["/n/c", "/a/bc", "a/b", 3, None], "x": {"y": "/n"}}


def test_what_a_waiting_job_reads_stays_in_the_cache_however_long_it_waits(platform: Platform) -> None:
    queue = Queue(platform)
    path = storage.cached(platform, queue.version)

    assert storage.collect(platform, now=path.stat().st_mtime + 30 * DAY).cached_files == 0 and path.exists()
    for job in jobs.list_queue(platform, OWNER):
        jobs.cancel_job(platform, OWNER, job.id)
    assert storage.collect(platform, now=path.stat().st_mtime + 30 * DAY).cached_files == 1 and not path.exists()


def test_a_home_that_is_named_from_where_one_stands_is_the_same_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DANLU_HOME", "here")

    assert Settings.from_environment().home == tmp_path / "here"
