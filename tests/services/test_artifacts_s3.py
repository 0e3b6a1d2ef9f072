"""The same promises in a bucket, on a real S3 server of this machine (moto in server mode)."""

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from danlu.artifacts import Artifacts
from danlu.artifacts.artifacts import BLOCK_BYTES
from danlu.errors import ArtifactDamagedError, ArtifactMissingError, StorageError
from danlu.services.platform import storage
from danlu.services.platform.platform import Platform
from danlu.settings import Settings

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """URL of an S3 server with an empty bucket `danlu`."""
    pytest.importorskip("moto")
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    names = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=url, **names).create_bucket(Bucket="danlu")
    yield url
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": s3_server}).items():
        monkeypatch.setenv(name, value)
    return f"s3://danlu/{os.urandom(4).hex()}"


@pytest.fixture
def artifacts(bucket: str, tmp_path: Path) -> Artifacts:
    return Artifacts.open(bucket, staging=tmp_path / "staging")


def test_files_folders_and_parts_come_back(artifacts: Artifacts, tmp_path: Path) -> None:
    content = os.urandom(BLOCK_BYTES + 1000)
    (tmp_path / "model/sub").mkdir(parents=True)
    (tmp_path / "model/sub/weights").write_bytes(content)
    (tmp_path / "model/empty").write_bytes(b"")

    stored = artifacts.put_folder(tmp_path / "model")

    digest = hashlib.sha256(content).hexdigest()
    assert b"".join(artifacts.read(digest, BLOCK_BYTES - 3, 10)) == content[BLOCK_BYTES - 3 :][:10]
    assert (artifacts.fetch_folder(stored.digest, tmp_path / "back") / "sub/weights").read_bytes() == content
    assert {found for found, _ in artifacts.digests()} == {digest, stored.digest, hashlib.sha256(b"").hexdigest()}
    assert all(taken > 1e9 for _, taken in artifacts.digests()) and list((tmp_path / "staging").iterdir()) == []
    artifacts.delete(digest)
    with pytest.raises(ArtifactMissingError):
        artifacts.read(digest)


def test_damage_in_the_bucket_is_never_handed_out(artifacts: Artifacts, tmp_path: Path) -> None:
    digest = artifacts.put_bytes(b"right").digest
    (tmp_path / "wrong").write_bytes(b"wrong")
    artifacts.place.take(tmp_path / "wrong", f"sha256/{digest[:2]}/{digest}")

    with pytest.raises(ArtifactDamagedError):
        artifacts.fetch(digest, tmp_path / "copy")
    artifacts.put_bytes(b"right")
    assert artifacts.verify(digest) is None


def test_a_store_that_is_away_is_told(bucket: str, s3_server: str, tmp_path: Path) -> None:
    artifacts = Artifacts.open("s3://no-such-bucket-here/a", staging=tmp_path)

    with pytest.raises(StorageError, match="there is no bucket"):
        artifacts.put_bytes(b"a")
    assert not artifacts.exists("0" * 64)


def test_an_address_nobody_answers_at_is_told(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    with pytest.raises(StorageError, match="cannot be reached"):
        Artifacts.open(bucket, staging=tmp_path).put_bytes(b"a")


def test_a_platform_keeps_its_artifacts_there_and_collects_them(bucket: str, tmp_path: Path) -> None:
    platform = Platform.open(Settings(home=tmp_path, artifacts=bucket))
    digest = platform.artifacts.put_bytes(b"data").digest

    assert storage.cached_file(platform, digest, "rows.jsonl").read_bytes() == b"data"
    assert storage.check(platform).problems == [] and storage.collect(platform).artifacts == 0
    assert storage.collect(platform, now=4e9).artifacts == 1 and not platform.artifacts.exists(digest)
    platform.close()
