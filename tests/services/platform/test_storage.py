"""What is kept and what may go: garbage collection beside puts, quotas, checks, the cache."""

import hashlib
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from danlu.artifacts.place import LocalFolder
from danlu.errors import ArtifactDamagedError, ConflictError, NoRoomError, StorageError
from danlu.services.platform import datasets, jobs, projects, storage
from danlu.services.platform.access import Actor
from danlu.services.platform.datasets import NewDataset
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.settings import Settings
from danlu.store import artifacts
from danlu.store.datasets import DATASET_VERSIONS, DATASETS, DatasetVersion
from danlu.store.engine import Connection, Database

OWNER = Actor.local()
LATER = 10**9


def project(platform: Platform) -> str:
    return projects.create_project(platform, OWNER, NewProject(name="p")).id


def example(platform: Platform, project_id: str) -> DatasetVersion:
    made = datasets.create_dataset(platform, OWNER, project_id, NewDataset(example="danlu/zhangjiajie"))
    return datasets.list_dataset_versions(platform, OWNER, made.id).items[0]


def insert(connection: Connection, table: str, **values: object) -> None:
    values |= {"created_at": 0, "updated_at": 0, "version": 1}
    connection.execute(text(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(':' + name for name in values)})"), values)


def collect_later(platform: Platform) -> storage.Collected:
    return storage.collect(platform, now=time.time() + LATER)


def test_what_is_referred_to_or_young_stays_and_the_rest_goes(platform: Platform, tmp_path: Path) -> None:
    needed = example(platform, project(platform)).digest
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(b"w" * 100)
    model = platform.artifacts.put_folder(folder).digest
    orphan = hashlib.sha256(b"orphan").hexdigest()
    replace(platform).artifacts.put_bytes(b"orphan")
    with platform.database.writing() as connection:
        assert artifacts.forget(connection, orphan, put_before=time.time() + LATER)

    assert storage.collect(platform).artifacts == 0
    assert collect_later(platform).artifacts == 3
    kept = [digest for digest, _ in platform.artifacts.digests()]
    assert kept == [needed] and not platform.artifacts.exists(model)
    assert storage.check(platform).problems == []


def test_the_files_of_a_folder_that_a_model_needs_stay(platform: Platform, tmp_path: Path) -> None:
    project_id = project(platform)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "weights").write_bytes(b"w")
    digest = platform.artifacts.put_folder(tmp_path / "m").digest
    with platform.database.writing() as connection:
        insert(connection, "runs", id="run_1", project_id=project_id, name="", state="", recipe="{}", base_model="")
        insert(connection, "models", id="mdl_1", project_id=project_id, name="m", number=1, run_id="run_1", kind="adapter", digest=digest)

    assert collect_later(platform).artifacts == 0
    assert platform.artifacts.fetch_folder(digest, tmp_path / "back").is_dir()


class SlowToForget(LocalFolder):
    """Takes a while to remove something, so that whoever does not wait gets in between."""

    def remove(self, name: str) -> None:
        time.sleep(0.05)
        super().remove(name)


def test_content_that_is_put_while_it_is_collected_is_there_afterwards(platform: Platform) -> None:
    content = b"same content" * 1000
    digest = platform.artifacts.put_bytes(content).digest
    platform.artifacts.place = SlowToForget(platform.home / "artifacts")
    other = Platform.open(platform.settings)
    for _ in range(5):
        with platform.database.writing() as connection:
            connection.execute(text("UPDATE artifacts SET put_at = 0"))
        collecting = threading.Thread(target=lambda: storage.collect(platform))
        collecting.start()
        time.sleep(0.02)
        other.artifacts.put_bytes(content)
        collecting.join()
        assert other.artifacts.verify(digest) is None
    other.close()


def test_the_rows_of_artifacts_on_both_databases(database: Database, project: str) -> None:
    whole, part = "a" * 64, "b" * 64
    with database.writing() as connection:
        artifacts.record(connection, part, 10, now=1.0)
        artifacts.record(connection, whole, 5, [part], now=2.0)
        artifacts.record(connection, whole, 5, [part], now=3.0)
    with database.writing() as connection:
        assert [found.put_at for found in artifacts.all_artifacts(connection, batch=1)] == [3.0, 1.0]
        assert not artifacts.claim_orphan(connection, part) and artifacts.claim_orphan(connection, "c" * 64)
        assert not artifacts.forget(connection, part, put_before=9.0), "the folder needs it"
        assert not artifacts.forget(connection, whole, put_before=3.0), "it was put again"
        assert [found.digest for found in artifacts.unreferenced(connection, put_before=9.0)] == [whole]
        dataset = DATASETS.insert(connection, project_id=project, name="d").id
        DATASET_VERSIONS.insert(connection, project_id=project, dataset_id=dataset, file_name="f", size_bytes=5, number=1, digest=whole)
        assert artifacts.used_bytes(connection, project) == 15 == artifacts.used_bytes(connection)
        assert not artifacts.forget(connection, whole, put_before=9.0)
    with database.reading() as connection:
        assert artifacts.find(connection, "c" * 64) is None


def test_a_project_gets_no_more_than_its_share(platform: Platform) -> None:
    small = replace(platform, settings=replace(platform.settings, project_quota_bytes=1000))
    project_id = project(platform)

    with pytest.raises(NoRoomError, match="more than the project's share"):
        example(small, project_id)
    assert datasets.list_datasets(platform, OWNER, project_id).items == []
    example(platform, project_id)
    usage = storage.get_usage(small, OWNER, project_id)
    assert usage.used_bytes > 1000 and usage.quota_bytes == 1000 and usage.free_bytes > 0


def test_damage_and_loss_are_found_by_a_check(platform: Platform) -> None:
    version = example(platform, project(platform))
    path = platform.home / "artifacts" / "sha256" / version.digest[:2] / version.digest
    shutil.copyfile(path, path.with_suffix(".copy"))
    path.unlink()

    missing = storage.check(platform).problems
    path.with_suffix(".copy").rename(path)
    with path.open("r+b") as file:
        file.write(b"x")
    damaged = storage.check(platform).problems

    assert [(found.subject, found.is_referred_to) for found in missing + damaged] == [(version.digest, True)] * 2
    assert "removed from outside" in missing[0].what and "do not match" in damaged[0].what
    shutil.rmtree(platform.home / "cache")
    with pytest.raises(ArtifactDamagedError):
        storage.cached(platform, version)


def test_the_cache_is_made_anew_and_forgets_what_nobody_uses(platform: Platform) -> None:
    project_id = project(platform)
    version = example(platform, project_id)
    path = storage.cached(platform, version)
    assert path == platform.home / "cache" / version.digest / "zhangjiajie.jsonl" and path.is_file()

    assert collect_later(platform).cached_files == 0 and path.is_file()  # the job that looks the data over waits for it
    for job in jobs.list_jobs(platform, OWNER, project_id).items:
        jobs.cancel_job(platform, OWNER, job.id)
    assert collect_later(platform).cached_files == 1 and not path.exists()
    assert storage.cached(platform, version).read_bytes() == b"".join(platform.artifacts.read(version.digest))


def test_a_limit_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_PROJECT_QUOTA_BYTES", "10 GB")

    with pytest.raises(StorageError, match="DANLU_PROJECT_QUOTA_BYTES is not understood"):
        Platform.open(Settings.from_environment())


def test_a_version_of_content_that_was_collected_is_refused(platform: Platform) -> None:
    project_id = project(platform)
    stored = platform.artifacts.put_bytes(b"gone")
    collect_later(platform)

    with pytest.raises(ConflictError), platform.database.writing() as connection:
        datasets.add_version(connection, platform, project_id, stored, file_name="a.jsonl", name="n")
    assert datasets.list_datasets(platform, OWNER, project_id).items == []
