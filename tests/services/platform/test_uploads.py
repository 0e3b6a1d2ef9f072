"""Uploads: cut, damaged, raced, killed, too large; what was acknowledged is there."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from pydantic import ValidationError

from danlu.errors import ConflictError, DanluError, ForbiddenError, NoRoomError, NotFoundError, SignInError, UploadError
from danlu.services.platform import datasets, projects, storage, uploads
from danlu.services.platform.access import NOBODY, Actor
from danlu.services.platform.file_names import safe_file_name
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.services.platform.uploads import NewUpload
from danlu.store.uploads import Upload

OWNER = Actor.local()
CONTENT = b"".join(orjson.dumps({"instruction": f"Question {n}?", "output": f"Answer {n}."}) + b"\n" for n in range(200))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def project_id(platform: Platform) -> str:
    return projects.create_project(platform, OWNER, NewProject(name="p")).id


def begin(platform: Platform, project_id: str, **values: object) -> Upload:
    body = {"file_name": "rows.jsonl", "size_bytes": len(CONTENT), "sha256": SHA256} | values
    return uploads.begin_upload(platform, OWNER, project_id, NewUpload.model_validate(body))


def send(platform: Platform, upload: Upload, start: int, end: int, actor: Actor = OWNER) -> Upload:
    chunk = CONTENT[start:end]
    return uploads.append(platform, actor, upload.id, offset=start, chunk=chunk, sha256=hashlib.sha256(chunk).hexdigest())


def test_a_file_arrives_in_pieces_and_becomes_a_version(platform: Platform, project_id: str) -> None:
    upload = begin(platform, project_id)
    assert send(platform, upload, 0, 1000).received_bytes == 1000
    assert uploads.get_upload(platform, OWNER, upload.id).received_bytes == 1000
    send(platform, upload, 1000, len(CONTENT))

    version = uploads.finish_upload(platform, OWNER, upload.id)

    assert (version.digest, version.size_bytes, version.number, version.file_name) == (SHA256, len(CONTENT), 1, "rows.jsonl")
    assert b"".join(platform.artifacts.read(version.digest)) == CONTENT
    assert uploads.finish_upload(platform, OWNER, upload.id) == version, "asked again after a lost answer"
    assert not (platform.home / "uploads" / upload.id).exists()
    second = begin(platform, project_id, dataset=version.dataset_id)
    send(platform, second, 0, len(CONTENT))
    assert uploads.finish_upload(platform, OWNER, second.id).number == 2


def test_two_files_of_one_name_on_their_way_become_two_datasets(platform: Platform, project_id: str) -> None:
    first, second = begin(platform, project_id), begin(platform, project_id)
    for upload in (first, second):
        send(platform, upload, 0, len(CONTENT))
        uploads.finish_upload(platform, OWNER, upload.id)

    assert sorted(one.name for one in datasets.list_datasets(platform, OWNER, project_id).items) == ["rows", "rows 2"]


def test_another_file_of_the_same_name_does_not_go_on_with_what_has_arrived(platform: Platform, project_id: str) -> None:
    upload = begin(platform, project_id, sha256=None)
    send(platform, upload, 0, 1500)
    right = [hashlib.sha256(CONTENT[start:end]).hexdigest() for start, end in ((0, 1000), (1000, 1500))]

    def is_same(sha256: list[str], length: int = 1500, actor: Actor = OWNER) -> bool:
        return uploads.has_received(platform, actor, upload.id, length=length, piece_bytes=1000, sha256=sha256)

    assert is_same(right)
    assert not is_same([right[0], "0" * 64]) and not is_same([*right, right[0]], 2500), "other content; more than has arrived"
    for sha256, length in ((right, 900), ([], 1500), (right, -1)):
        with pytest.raises(UploadError):
            is_same(sha256, length)
    with pytest.raises(SignInError):
        is_same(right, actor=NOBODY)


@pytest.mark.parametrize(("offset", "length"), [(0, 500), (500, 100), (1500, 100)])
def test_a_chunk_at_another_place_is_told_where_to_go_on(platform: Platform, project_id: str, offset: int, length: int) -> None:
    upload = begin(platform, project_id)
    send(platform, upload, 0, 1000)

    with pytest.raises(ConflictError, match="stands at 1000") as caught:
        send(platform, upload, offset, offset + length)
    assert "offset 1000" in caught.value.fix
    send(platform, upload, 1000, len(CONTENT))
    assert uploads.finish_upload(platform, OWNER, upload.id).digest == SHA256


def test_a_damaged_an_empty_a_huge_and_a_surplus_chunk_change_nothing(platform: Platform, project_id: str) -> None:
    upload = begin(platform, project_id)
    for chunk, sha256 in ((b"abc", "0" * 64), (b"", SHA256), (bytes(uploads.MAX_CHUNK_BYTES + 1), "0" * 64), (CONTENT + b"more", "")):
        sha256 = sha256 or hashlib.sha256(chunk).hexdigest()
        with pytest.raises(UploadError):
            uploads.append(platform, OWNER, upload.id, offset=0, chunk=chunk, sha256=sha256)

    assert uploads.get_upload(platform, OWNER, upload.id).received_bytes == 0
    assert (platform.home / "uploads" / upload.id / "data").read_bytes() == b""


def test_half_a_file_and_another_file_are_not_taken(platform: Platform, project_id: str) -> None:
    half, other = begin(platform, project_id), begin(platform, project_id, sha256="0" * 64)
    send(platform, half, 0, 100)
    send(platform, other, 0, len(CONTENT))

    with pytest.raises(ConflictError, match="cannot be finished"):
        uploads.finish_upload(platform, OWNER, half.id)
    with pytest.raises(UploadError, match="not the file that was announced"):
        uploads.finish_upload(platform, OWNER, other.id)
    assert datasets.list_datasets(platform, OWNER, project_id).items == []


def test_of_two_writers_one_wins_and_the_file_is_whole(platform: Platform, project_id: str) -> None:
    upload = begin(platform, project_id)
    outcomes: list[str] = []

    def write() -> None:
        for start in range(0, len(CONTENT), 1000):
            try:
                send(platform, upload, start, start + 1000)
                outcomes.append("taken")
            except ConflictError:
                outcomes.append("refused")

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while (stands := uploads.get_upload(platform, OWNER, upload.id).received_bytes) < len(CONTENT):
        send(platform, upload, stands, stands + 1000)
        outcomes.append("taken")

    assert outcomes.count("taken") == -(-len(CONTENT) // 1000)
    assert uploads.finish_upload(platform, OWNER, upload.id).digest == SHA256


CLIENT = """
import hashlib, sys
from danlu.services.platform import uploads
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
platform, content = Platform.open(), open(sys.argv[2], "rb").read()
start = uploads.get_upload(platform, Actor.local(), sys.argv[1]).received_bytes
while start < len(content):
    chunk = content[start:start + 97]
    uploads.append(platform, Actor.local(), sys.argv[1], offset=start, chunk=chunk, sha256=hashlib.sha256(chunk).hexdigest())
    start += len(chunk)
    print(start, flush=True)
"""


def test_a_kill_loses_no_byte_that_was_acknowledged(platform: Platform, project_id: str, tmp_path: Path) -> None:
    upload = begin(platform, project_id)
    (tmp_path / "rows").write_bytes(CONTENT)
    environment = os.environ | {"DANLU_HOME": str(platform.home)}
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", CLIENT, upload.id, str(tmp_path / "rows")], stdout=subprocess.PIPE, env=environment) as client:
            assert client.stdout is not None
            acknowledged = [int(client.stdout.readline()) for _ in range(10)]
            client.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in client.stdout.read().split(b"\n")[:-1]]
        stands = uploads.get_upload(platform, OWNER, upload.id).received_bytes
        assert stands >= max(acknowledged)
        assert (platform.home / "uploads" / upload.id / "data").read_bytes()[:stands] == CONTENT[:stands]
    send(platform, upload, stands, len(CONTENT))

    assert uploads.finish_upload(platform, OWNER, upload.id).digest == SHA256


def test_a_kill_while_finishing_is_finished_the_next_time(platform: Platform, project_id: str) -> None:
    upload = begin(platform, project_id)
    send(platform, upload, 0, len(CONTENT))
    platform.artifacts.put_file(platform.home / "uploads" / upload.id / "data", is_final=True)  # as far as it came

    assert uploads.finish_upload(platform, OWNER, upload.id).digest == SHA256


def test_a_full_disk_takes_nothing_of_the_chunk(platform: Platform, project_id: str, small_file_limit: None) -> None:
    with pytest.raises(DanluError):
        upload = begin(platform, project_id, size_bytes=20_000_000, sha256=None)
        uploads.append(platform, OWNER, upload.id, offset=0, chunk=bytes(10_000_000), sha256=hashlib.sha256(bytes(10_000_000)).hexdigest())


def test_the_share_of_a_project_counts_uploads_under_way(platform: Platform, project_id: str) -> None:
    small = replace(platform, settings=replace(platform.settings, project_quota_bytes=2 * len(CONTENT) - 1))
    first = begin(small, project_id)

    with pytest.raises(NoRoomError, match="uploads under way included"):
        begin(small, project_id)
    uploads.abandon_upload(small, OWNER, first.id)
    begin(small, project_id)
    assert storage.get_usage(small, OWNER, project_id).reserved_bytes == len(CONTENT)


def test_an_upload_that_is_abandoned_or_forgotten_is_gone(platform: Platform, project_id: str) -> None:
    abandoned, forgotten, kept = (begin(platform, project_id) for _ in range(3))
    uploads.abandon_upload(platform, OWNER, abandoned.id)
    with platform.database.writing() as connection:
        uploads.UPLOADS.update(connection, forgotten.id, expires_at=0.0)
    for folder in (platform.home / "uploads").iterdir():
        os.utime(folder, (0, 0))

    assert storage.collect(platform).uploads == 1
    assert [path.name for path in (platform.home / "uploads").iterdir()] == [kept.id]
    with pytest.raises(NotFoundError):
        send(platform, forgotten, 0, 10)
    assert uploads.list_uploads(platform, OWNER, project_id).items == [uploads.get_upload(platform, OWNER, kept.id)]
    assert uploads.get_upload(platform, OWNER, kept.id).expires_at > time.time()


def test_others_can_neither_add_to_an_upload_nor_see_it(platform: Platform, project_id: str) -> None:
    upload = begin(platform, project_id)
    stranger = Actor(user_id="usr_x", is_signed_in=True)
    viewer = Actor(name="key", is_signed_in=True, is_operator=True, key_role="viewer", key_project_id=project_id)

    for actor, error in ((stranger, NotFoundError), (viewer, ForbiddenError), (NOBODY, DanluError)):
        with pytest.raises(error):
            send(platform, upload, 0, 100, actor)


def test_a_name_that_is_taken_is_told_before_anything_is_sent(platform: Platform, project_id: str) -> None:
    datasets.create_dataset(platform, OWNER, project_id, datasets.NewDataset(example="danlu/zhangjiajie", name="rows"))

    with pytest.raises(ConflictError, match="exists already"):
        begin(platform, project_id, name="rows")
    upload = begin(platform, project_id)
    send(platform, upload, 0, len(CONTENT))
    made = uploads.finish_upload(platform, OWNER, upload.id)
    assert datasets.get_dataset(platform, OWNER, made.dataset_id).name == "rows 2"


def test_a_dataset_of_another_project_is_no_target(platform: Platform, project_id: str) -> None:
    other = projects.create_project(platform, OWNER, NewProject(name="other")).id
    theirs = datasets.create_dataset(platform, OWNER, other, datasets.NewDataset(example="danlu/zhangjiajie"))

    with pytest.raises(NotFoundError):
        begin(platform, project_id, dataset=theirs.id)


@pytest.mark.parametrize(
    "values", [{"size_bytes": 0}, {"size_bytes": 20 * 1024**3 + 1}, {"sha256": "x"}, {"file_name": ""}, {"name": "a\x1b[2Jb"}, {"owner": "me"}]
)
def test_announcements_that_make_no_sense_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NewUpload.model_validate({"file_name": "a", "size_bytes": 1} | values)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("rows.jsonl", "rows.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\数据.xlsx", "数据.xlsx"),
        ("..", "data"),
        ("", "data"),
        (".bashrc", "bashrc"),
        ("a\x00b\x1b[31m.csv", "ab[31m.csv"),
        ("evil\u202egnp.exe", "evilgnp.exe"),
        ("CON.jsonl", "_CON.jsonl"),
        ("rows.jsonl.gz", "rows.jsonl.gz"),
        ("<script>.csv", "_script_.csv"),
        ("/", "data"),
    ],
)
def test_names_of_files_lead_nowhere(given: str, kept: str) -> None:
    assert safe_file_name(given) == kept


def test_names_of_any_length_fit_a_disk() -> None:
    for name in ("数" * 10_000 + ".jsonl", "a." + "b" * 10_000, "." * 500, "😀" * 100 + ".csv.gz"):
        found = safe_file_name(name)
        assert 0 < len(found.encode()) <= 200 and "/" not in found
    assert safe_file_name("数" * 10_000 + ".jsonl").endswith(".jsonl")
