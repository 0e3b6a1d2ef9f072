"""Artifacts in a folder: what is put comes back or is refused; killed, full, damaged, raced."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from danlu.artifacts import Artifacts, Stored
from danlu.artifacts.artifacts import BLOCK_BYTES
from danlu.errors import ArtifactDamagedError, ArtifactMissingError, NoRoomError, StorageError, UnsafeModelError


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts.open(str(tmp_path / "kept"))


def content_of(artifacts: Artifacts, digest: str) -> Path:
    return artifacts.place.path(f"sha256/{digest[:2]}/{digest}")  # type: ignore[attr-defined, no-any-return]


def damage(path: Path, at: int) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def test_what_is_put_comes_back_whole_and_in_parts(artifacts: Artifacts, tmp_path: Path) -> None:
    content = os.urandom(BLOCK_BYTES + 1000)
    source = tmp_path / "a"
    source.write_bytes(content)

    stored = artifacts.put_file(source)

    assert stored == Stored(hashlib.sha256(content).hexdigest(), len(content))
    assert b"".join(artifacts.read(stored.digest)) == content
    for start, length in ((0, 10), (BLOCK_BYTES - 5, 10), (BLOCK_BYTES + 990, 500), (len(content), 5), (7, 0)):
        assert b"".join(artifacts.read(stored.digest, start, length)) == content[start : start + length]
    assert artifacts.fetch(stored.digest, tmp_path / "there" / "b").read_bytes() == content
    assert artifacts.verify(stored.digest) is None and list(artifacts.staging.iterdir()) == []


def test_nothing_and_a_file_that_is_not_copied(artifacts: Artifacts, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "final").write_bytes(b"abc")

    assert b"".join(artifacts.read(artifacts.put_file(tmp_path / "empty").digest)) == b""
    final = artifacts.put_file(tmp_path / "final", is_final=True)

    assert (tmp_path / "final").samefile(content_of(artifacts, final.digest))


@pytest.mark.parametrize("at", [0, BLOCK_BYTES + 3])
def test_a_changed_bit_is_never_handed_out(artifacts: Artifacts, tmp_path: Path, at: int) -> None:
    content = bytes(BLOCK_BYTES + 10)
    digest = artifacts.put_bytes(content).digest
    damage(content_of(artifacts, digest), at)

    assert artifacts.verify(digest) is not None
    with pytest.raises(ArtifactDamagedError):
        artifacts.fetch(digest, tmp_path / "copy")
    assert not (tmp_path / "copy").exists() and list(tmp_path.glob(".*")) == []
    with pytest.raises(ArtifactDamagedError):
        list(artifacts.read(digest, at, 1))
    artifacts.put_bytes(content)
    assert b"".join(artifacts.read(digest)) == content, "putting it again heals it"


def test_cut_content_and_cut_sums_are_damage(artifacts: Artifacts) -> None:
    first, second = artifacts.put_bytes(b"first").digest, artifacts.put_bytes(b"second").digest
    content_of(artifacts, first).chmod(0o644)
    os.truncate(content_of(artifacts, first), 3)
    sums = content_of(artifacts, second).with_name(f"{second}.blocks")
    sums.unlink()

    for digest in (first, second):
        with pytest.raises(ArtifactDamagedError):
            list(artifacts.read(digest))


@pytest.mark.parametrize("digest", ["0" * 64, "../../etc/passwd", "", "A" * 64, "0" * 63 + "\n"])
def test_what_is_not_there_is_told_at_once(artifacts: Artifacts, tmp_path: Path, digest: str) -> None:
    assert not artifacts.exists(digest)
    artifacts.delete(digest)
    for ask in (lambda: artifacts.read(digest), lambda: artifacts.fetch(digest, tmp_path / "x"), lambda: artifacts.fetch_folder(digest, tmp_path / "y")):
        with pytest.raises(ArtifactMissingError):
            ask()


def test_the_same_content_put_by_many_at_once_is_there_once(artifacts: Artifacts, tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(os.urandom(300_000))
    found: list[Stored] = []
    threads = [threading.Thread(target=lambda: found.append(artifacts.put_file(source))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8 and len(set(found)) == 1
    assert [digest for digest, _ in artifacts.digests()] == [found[0].digest]
    assert artifacts.verify(found[0].digest) is None


PUT = """
import os, signal, sys
from pathlib import Path
from danlu.artifacts import Artifacts
place, moment = sys.argv[1], int(sys.argv[2])
calls = 0
def count(event, arguments):
    global calls
    if event in ("open", "os.rename", "os.chmod", "os.utime") and "/kept/" in str(arguments[0]):
        calls += 1
        if calls == moment:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
Artifacts.open(place).put_file(Path(sys.argv[3]))
print("put", calls)
"""


@pytest.mark.parametrize("moment", [1, 3, 5, 7, 8])
def test_a_put_that_is_killed_leaves_nothing_or_the_whole(artifacts: Artifacts, tmp_path: Path, moment: int) -> None:
    source = tmp_path / "a"
    source.write_bytes(os.urandom(100_000))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()

    done = subprocess.run([sys.executable, "-c", PUT, str(tmp_path / "kept"), str(moment), str(source)], capture_output=True, text=True)

    assert done.returncode == -signal.SIGKILL, done
    assert not artifacts.exists(digest) or artifacts.verify(digest) is None
    assert artifacts.put_file(source).digest == digest and artifacts.verify(digest) is None
    artifacts.sweep_staging(older_than_seconds=0)
    assert list(artifacts.staging.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(artifacts: Artifacts, small_file_limit: None) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        artifacts.put_bytes(bytes(64_000_000))

    assert list(artifacts.digests()) == [] and list(artifacts.staging.iterdir()) == []


def test_room_that_is_kept_free_is_kept(tmp_path: Path) -> None:
    artifacts = Artifacts.open(str(tmp_path / "kept"), min_free_bytes=10**18)

    with pytest.raises(NoRoomError, match="would not leave enough room"):
        artifacts.put_bytes(b"a")


def test_a_folder_comes_back_as_it_was(artifacts: Artifacts, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for name, text in {"config.json": "{}", "sub/weights.safetensors": "w" * 1000, "sub/文件.txt": "x", "same": "{}"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    stored = artifacts.put_folder(folder)
    back = artifacts.fetch_folder(stored.digest, tmp_path / "back")

    files = {path.relative_to(back): path.read_bytes() for path in back.rglob("*") if path.is_file()}
    assert files == {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert stored.size_bytes == 1005 and artifacts.put_folder(folder) == stored
    with pytest.raises(StorageError):
        artifacts.fetch_folder(stored.digest, back)


@pytest.mark.parametrize("kind", ["symlink", "folder link", "pipe", "dangling"])
def test_links_and_devices_are_no_part_of_a_folder(artifacts: Artifacts, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    make = {
        "symlink": lambda: (folder / "a").symlink_to(tmp_path / "secret"),
        "folder link": lambda: (folder / "a").symlink_to("/etc"),
        "pipe": lambda: os.mkfifo(folder / "a"),
        "dangling": lambda: (folder / "a").symlink_to("nowhere"),
    }
    make[kind]()

    with pytest.raises(UnsafeModelError, match="only plain files|cannot be kept"):
        artifacts.put_folder(folder)


@pytest.mark.parametrize("name", ["../up", "/absolute", "a/../../up", "a\\b", "a\0b", "CON", "nul.txt", "", "a//b", "x" * 300, "a.", "a\u202eb", "c:x", "."])
def test_a_manifest_leads_nowhere_else(artifacts: Artifacts, tmp_path: Path, name: str) -> None:
    import orjson

    part = artifacts.put_bytes(b"x").digest
    manifest = artifacts.put_bytes(orjson.dumps({"danlu_folder": 1, "files": [{"name": name, "digest": part, "size_bytes": 1}]})).digest

    with pytest.raises(ArtifactDamagedError, match="damaged"):
        artifacts.fetch_folder(manifest, tmp_path / "target")
    assert not (tmp_path / "target").exists() and not (tmp_path / "up").exists()


def test_a_folder_of_which_a_file_is_gone_is_not_made(artifacts: Artifacts, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_text("a")
    stored = artifacts.put_folder(folder)
    artifacts.delete(hashlib.sha256(b"a").hexdigest())

    with pytest.raises(ArtifactMissingError):
        artifacts.fetch_folder(stored.digest, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "simplecache::s3://bucket/a", "file::s3://b", "ftp://a/b", "memory://a", "s3::http://a"])
def test_addresses_of_other_kinds_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be kept"):
        Artifacts.open(url, staging=tmp_path)


@pytest.mark.parametrize("url", ["s3://key:secret-word@bucket/a", "http://key:secret-word@host/a", "s3::http://key:secret-word@a"])
def test_an_address_with_a_key_is_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        Artifacts.open(url, staging=tmp_path)

    assert "secret-word" not in str(caught.value)


def test_memory_is_bounded_by_blocks(artifacts: Artifacts, tmp_path: Path) -> None:
    import tracemalloc

    source = tmp_path / "large"
    with source.open("wb") as file:
        file.truncate(80 * 1024 * 1024)
    tracemalloc.start()
    stored = artifacts.put_file(source)
    for _ in artifacts.read(stored.digest):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 6 * BLOCK_BYTES
