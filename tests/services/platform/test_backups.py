"""Backup and restore: whole or not at all, the damaged file kept, what is missing told."""

import fcntl
import json
import shutil
from pathlib import Path

import pytest

from danlu.errors import DatabaseError, RunBusyError, StorageError
from danlu.files import read_json
from danlu.services.platform import backups, datasets, projects
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.services.platform.storage import check

OWNER = Actor.local()


@pytest.fixture
def version(platform: Platform) -> datasets.DatasetVersion:
    project = projects.create_project(platform, OWNER, NewProject(name="p"))
    made = datasets.create_dataset(platform, OWNER, project.id, datasets.NewDataset(example="danlu/zhangjiajie"))
    return datasets.list_dataset_versions(platform, OWNER, made.id).items[0]


@pytest.mark.parametrize("with_artifacts", [False, True])
def test_a_damaged_home_is_as_it_was(platform: Platform, version: datasets.DatasetVersion, tmp_path: Path, with_artifacts: bool) -> None:
    platform.artifacts.put_bytes(b"nobody refers to this")
    made = backups.backup(platform, tmp_path / "backup", with_artifacts=with_artifacts)
    assert (made.artifacts, made.bytes, made.holds_artifacts) == (1, version.size_bytes, with_artifacts)
    projects.create_project(platform, OWNER, NewProject(name="later"))
    platform.close()
    database = platform.home / "danlu.sqlite"
    database.write_bytes(b"garbage" * 1000)
    shutil.rmtree(platform.home / "artifacts")

    restored = backups.restore(platform.settings, tmp_path / "backup")

    again = Platform.open(platform.settings)
    assert [project.name for project in projects.list_projects(again, OWNER).items] == ["p"]
    assert any(Path(path).read_bytes() == b"garbage" * 1000 for path in restored.set_aside)
    assert (restored.artifacts_restored, restored.artifacts_missing) == ((1, []) if with_artifacts else (0, [version.digest]))
    assert [problem.subject for problem in check(again).problems] == ([] if with_artifacts else [version.digest])
    again.close()


def test_artifacts_that_are_there_are_not_touched_and_damaged_ones_are_healed(platform: Platform, version: datasets.DatasetVersion, tmp_path: Path) -> None:
    backups.backup(platform, tmp_path / "backup", with_artifacts=True)
    assert backups.restore(platform.settings, tmp_path / "backup").artifacts_restored == 0
    path = platform.home / "artifacts" / "sha256" / version.digest[:2] / version.digest
    with path.open("r+b") as file:
        file.write(b"xx")

    assert backups.restore(platform.settings, tmp_path / "backup").artifacts_restored == 1
    assert platform.artifacts.verify(version.digest) is None


def test_half_a_backup_and_a_damaged_one_are_no_backup(platform: Platform, version: datasets.DatasetVersion, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    backups.backup(platform, folder)
    with (folder / "danlu.sqlite").open("r+b") as file:
        file.seek(5000)
        file.write(b"changed")
    with pytest.raises(StorageError, match="is damaged"):
        backups.restore(platform.settings, folder)
    (folder / "backup.json").unlink()
    for path in (folder, tmp_path / "none", tmp_path):
        with pytest.raises(StorageError, match="is no backup"):
            backups.restore(platform.settings, path)

    assert check(platform).problems == [], "what was there stays"


def test_a_backup_with_a_damaged_database_is_refused(platform: Platform, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    backups.backup(platform, folder)
    content = bytearray((folder / "danlu.sqlite").read_bytes())
    content[4096:9000] = b"\xff" * (9000 - 4096)
    (folder / "danlu.sqlite").write_bytes(content)
    seal = read_json(folder / "backup.json") | {"database_sha256": backups._sha256(folder / "danlu.sqlite")}
    (folder / "backup.json").write_text(json.dumps(seal))

    with pytest.raises(DatabaseError, match="damaged"):
        backups.restore(platform.settings, folder)
    assert check(platform).problems == []


def test_a_backup_never_replaces_anything_and_leaves_no_half(platform: Platform, version: datasets.DatasetVersion, tmp_path: Path) -> None:
    backups.backup(platform, tmp_path / "backup")
    with pytest.raises(StorageError, match="exists already"):
        backups.backup(platform, tmp_path / "backup")
    platform.artifacts.delete(version.digest)

    with pytest.raises(StorageError):
        backups.backup(platform, tmp_path / "second", with_artifacts=True)
    assert [path.name for path in tmp_path.glob("*second*")] == []


@pytest.mark.parametrize("name", backups.LOCKS)
def test_nothing_is_restored_under_a_running_server(platform: Platform, tmp_path: Path, name: str) -> None:
    backups.backup(platform, tmp_path / "backup")
    with (platform.home / name).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RunBusyError, match="works on"):
            backups.restore(platform.settings, tmp_path / "backup")


def test_the_commands(platform: Platform, version: datasets.DatasetVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from danlu.cli.main import app

    monkeypatch.setenv("DANLU_HOME", str(platform.home))
    runner, folder = CliRunner(), str(tmp_path / "backup")

    for command, words in (
        (["backup", folder, "--with-artifacts"], "1 artifacts"),
        (["check"], "all is whole"),
        (["restore", folder], "restored; 0 artifacts put back"),
        (["check", "--json"], '"problems": []'),
    ):
        done = runner.invoke(app, command, env={"DANLU_LANG": "en"})
        assert done.exit_code == 0 and words in done.output, done.output
    platform.artifacts.delete(version.digest)
    done = runner.invoke(app, ["check"], env={"DANLU_LANG": "zh"})
    assert done.exit_code == 7 and version.digest[:12] in done.output and "已读" in done.output
