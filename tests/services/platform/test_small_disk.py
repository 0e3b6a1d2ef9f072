"""A home on a disk that is really full, or really read-only: what is refused says so, what was acknowledged is there, and it goes on when there is room."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from danlu.errors import DanluError, DatabaseError, StorageError
from danlu.executors.base import Attempt
from danlu.executors.local import LocalExecutor
from danlu.services.platform import datasets, projects, storage, uploads
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.services.platform.uploads import NewUpload
from danlu.settings import Settings
from danlu.store import schema
from danlu.worker.supervisor import Supervisor

OWNER = Actor.local()
MIB = 1 << 20
LINE = b'{"instruction": "Which colour has door 7?", "output": "Door 7 is green."}\n'


class Disk:
    """A file system of its own, in memory."""

    def __init__(self, path: Path) -> None:
        self.path, self.filler = path, path / "filler"

    def fill(self, leave: int = 0) -> None:
        """Leave so many bytes."""
        with self.filler.open("wb") as file:
            file.write(b"\0" * max(0, shutil.disk_usage(self.path).free - leave))

    def free(self) -> None:
        self.filler.unlink()

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.path)], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Sixteen megabytes."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(path)], capture_output=True).returncode:
        pytest.skip("no right to mount a file system here")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True, capture_output=True)


@pytest.fixture
def home(disk: Disk, sqlite_template: Path) -> Iterator[Platform]:
    """A home on it."""
    folder = disk.path / "home"
    folder.mkdir()
    shutil.copyfile(sqlite_template, folder / "danlu.sqlite")
    platform = Platform.open(Settings(home=folder, min_free_bytes=0))
    yield platform
    platform.close()


def send(platform: Platform, upload_id: str, offset: int, chunk: bytes) -> int:
    return uploads.append(platform, OWNER, upload_id, offset=offset, chunk=chunk, sha256=hashlib.sha256(chunk).hexdigest()).received_bytes


def test_an_upload_goes_on_when_there_is_room_again(disk: Disk, home: Platform) -> None:
    project = projects.create_project(home, OWNER, NewProject(name="p")).id
    content = LINE * (3 * MIB // len(LINE))
    half = len(content) // 2
    upload = uploads.begin_upload(home, OWNER, project, NewUpload(file_name="doors.jsonl", size_bytes=len(content)))
    send(home, upload.id, 0, content[:half])
    disk.fill(leave=MIB // 2)

    with pytest.raises(StorageError):
        send(home, upload.id, half, content[half:])
    assert uploads.get_upload(home, OWNER, upload.id).received_bytes == half

    disk.free()
    assert send(home, upload.id, half, content[half:]) == len(content)
    version = uploads.finish_upload(home, OWNER, upload.id)
    assert storage.cached(home, datasets.get_dataset_version(home, OWNER, version.id)).read_bytes() == content
    assert storage.check(home).problems == []


def test_nothing_acknowledged_is_lost_when_the_disk_of_the_database_is_full(disk: Disk, home: Platform) -> None:
    made = [projects.create_project(home, OWNER, NewProject(name=f"p{number}")).name for number in range(3)]
    disk.fill()
    refused: list[DanluError] = []
    for number in range(3, 300):
        try:
            made.append(projects.create_project(home, OWNER, NewProject(name=f"p{number}", description="x" * 1000)).name)
        except DanluError as error:
            refused.append(error)
            break

    assert isinstance(refused[0], DatabaseError) and "make room" in refused[0].fix
    assert sorted(one.name for one in projects.list_projects(home, OWNER, limit=200).items) == sorted(made)
    disk.free()
    assert projects.create_project(home, OWNER, NewProject(name="again")).name == "again" and schema.problems(home.database) == []


def test_jobs_wait_for_room_and_the_worker_says_so(disk: Disk, home: Platform) -> None:
    project = projects.create_project(home, OWNER, NewProject(name="p")).id
    datasets.create_dataset(home, OWNER, project, datasets.NewDataset(example="danlu/zhangjiajie"))  # is looked over by a job
    worker = Supervisor(home.database, home.home, LocalExecutor(home.home))
    disk.fill(leave=200_000)
    turns = iter(range(2))
    worker.run(lambda: next(turns, None) is None)

    assert worker.alarm is not None and "No space left" in worker.alarm
    disk.free()
    worker.tick()
    assert worker.alarm is None and next((home.home / "jobs").glob("job_*/attempt-1"))
    for path in (home.home / "jobs").glob("job_*/attempt-1"):
        worker.executor.clear(Attempt(path.parent.name, 1, path))


@pytest.fixture
def danlu() -> Callable[..., tuple[int, str]]:
    """Run a command of its own on a home."""

    def run(*words: str, home: Path) -> tuple[int, str]:
        environment = os.environ | {"DANLU_HOME": str(home), "DANLU_LANG": "en"}
        done = subprocess.run([sys.executable, "-m", "danlu", *words], capture_output=True, text=True, env=environment, timeout=120)
        return done.returncode, done.stderr

    return run


@pytest.mark.parametrize("command", [["studio", "--no-open", "--port", "0"], ["worker"], ["projects", "list"], ["backup", "/proc/none"]])
def test_a_read_only_home_is_told_in_three_lines(disk: Disk, home: Platform, command: list[str], danlu: Callable[..., tuple[int, str]]) -> None:
    home.close()
    disk.remount("ro")

    code, said = danlu(*command, home=home.home)

    assert code == 7 and "Traceback" not in said and "\n  why: " in said and "\n  fix: " in said, said
    assert "read-only" in said.lower() or "readonly" in said.lower(), said
