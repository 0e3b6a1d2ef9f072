"""The promises of artifacts in a bucket: on servers of this machine that speak the protocols of S3, Azure and Google.

S3's (moto) is always there. The others are used where they are installed: `pip install 'danlu[azure,gcs]' gcp-storage-emulator` and
`npm install -g azurite`.
"""

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import emulators
from danlu.artifacts import Artifacts
from danlu.artifacts.artifacts import BLOCK_BYTES
from danlu.errors import ArtifactDamagedError, ArtifactMissingError, StorageError
from danlu.services.platform import storage
from danlu.services.platform.platform import Platform
from danlu.settings import Settings
from emulators import needs

SCHEMES = {"s3": "s3", "azure": "az", "gcs": "gs"}
# What the providers' libraries leave to the garbage collector, and send without reading it in pieces, is their business.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"),
]
OF_PROVIDERS = ("AWS_", "AZURE_", "GOOGLE_", "GCLOUD_", "STORAGE_EMULATOR_HOST", "GCE_", "NO_GCE_CHECK")


@pytest.fixture(scope="module", params=list(SCHEMES))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """Scheme of an object store, and the environment in which it is found."""
    folder = tmp_path_factory.mktemp("objects")
    made = emulators.s3() if request.param == "s3" else emulators.azure(folder) if request.param == "azure" else emulators.gcs(folder)
    with made as environment:
        yield SCHEMES[request.param], environment


@pytest.fixture
def bucket(server: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> str:
    scheme, environment = server
    forget_credentials(monkeypatch)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return f"{scheme}://danlu/{os.urandom(4).hex()}"


@pytest.fixture
def artifacts(bucket: str, tmp_path: Path) -> Artifacts:
    return Artifacts.open(bucket, staging=tmp_path / "staging")


def forget_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(OF_PROVIDERS)]:
        monkeypatch.delenv(name)


def test_files_folders_and_parts_come_back(artifacts: Artifacts, tmp_path: Path) -> None:
    content = os.urandom(BLOCK_BYTES + 1000)
    (tmp_path / "model/sub").mkdir(parents=True)
    (tmp_path / "model/sub/weights").write_bytes(content)
    (tmp_path / "model/empty").write_bytes(b"")

    stored = artifacts.put_folder(tmp_path / "model")

    digest = hashlib.sha256(content).hexdigest()
    assert b"".join(artifacts.read(digest, BLOCK_BYTES - 3, 10)) == content[BLOCK_BYTES - 3 :][:10]
    assert b"".join(artifacts.read(digest, len(content) - 5)) == content[-5:]
    back = artifacts.fetch_folder(stored.digest, tmp_path / "back")
    assert (back / "sub/weights").read_bytes() == content and (back / "empty").read_bytes() == b""
    assert {found for found, _ in artifacts.digests()} == {digest, stored.digest, hashlib.sha256(b"").hexdigest()}
    assert all(1e9 < taken < 1e10 for _, taken in artifacts.digests()) and list((tmp_path / "staging").iterdir()) == []


def test_what_is_deleted_is_gone_and_may_be_deleted_and_put_again(artifacts: Artifacts) -> None:
    digest, other = artifacts.put_bytes(b"one").digest, artifacts.put_bytes(b"two").digest

    artifacts.delete(digest)
    artifacts.delete(digest)

    with pytest.raises(ArtifactMissingError):
        artifacts.read(digest)
    assert not artifacts.exists(digest) and [found for found, _ in artifacts.digests()] == [other]
    artifacts.put_bytes(b"one")
    artifacts.put_bytes(b"one")
    assert artifacts.verify(digest) is None and artifacts.size(digest) == 3


def test_a_store_without_anything_lists_nothing(artifacts: Artifacts) -> None:
    assert list(artifacts.digests()) == [] and not artifacts.exists("0" * 64)


def test_damage_in_the_bucket_is_never_handed_out(artifacts: Artifacts, tmp_path: Path) -> None:
    digest = artifacts.put_bytes(b"right").digest
    (tmp_path / "wrong").write_bytes(b"wrong")
    artifacts.place.take(tmp_path / "wrong", f"sha256/{digest[:2]}/{digest}")

    with pytest.raises(ArtifactDamagedError):
        artifacts.fetch(digest, tmp_path / "copy")
    artifacts.put_bytes(b"right")
    assert artifacts.verify(digest) is None
    artifacts.place.remove(f"sha256/{digest[:2]}/{digest}.blocks")
    with pytest.raises(ArtifactDamagedError, match="block sums are gone"):
        artifacts.read(digest)


def test_many_threads_may_put_and_read_at_once(artifacts: Artifacts) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        content = f"content {number % 3}".encode()
        try:
            digest = artifacts.put_bytes(content).digest
            wrong.extend([] if b"".join(artifacts.read(digest)) == content else [number])
        except StorageError as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_bucket_that_is_not_there_is_told(bucket: str, tmp_path: Path) -> None:
    artifacts = Artifacts.open(f"{bucket.partition(':')[0]}://no-such-bucket-here/a", staging=tmp_path)

    with pytest.raises(StorageError, match="there is no bucket"):
        artifacts.put_bytes(b"a")
    assert not artifacts.exists("0" * 64)


def test_a_platform_keeps_its_artifacts_there_and_collects_them(bucket: str, tmp_path: Path) -> None:
    platform = Platform.open(Settings(home=tmp_path, artifacts=bucket))
    digest = platform.artifacts.put_bytes(b"data").digest

    assert storage.cached_file(platform, digest, "rows.jsonl").read_bytes() == b"data"
    assert storage.check(platform).problems == [] and storage.collect(platform).artifacts == 0
    assert storage.collect(platform, now=4e9).artifacts == 1 and not platform.artifacts.exists(digest)
    platform.close()


def test_content_without_a_row_is_collected_too(bucket: str, tmp_path: Path) -> None:
    digest = Artifacts.open(bucket, staging=tmp_path / "staging").put_bytes(b"left by a restored database").digest
    platform = Platform.open(Settings(home=tmp_path, artifacts=bucket))

    assert storage.collect(platform).artifacts == 0 and platform.artifacts.exists(digest)
    assert storage.collect(platform, now=4e9).artifacts == 1 and not platform.artifacts.exists(digest)
    platform.close()


def test_an_address_of_s3_that_nobody_answers_at_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_credentials(monkeypatch)
    environment = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(StorageError, match="cannot be reached"):
        Artifacts.open("s3://danlu/a", staging=tmp_path).put_bytes(b"a")


def test_azure_without_an_account_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("adlfs", "pip install 'danlu[azure]'")
    forget_credentials(monkeypatch)

    with pytest.raises(StorageError, match="credentials") as caught:
        Artifacts.open("az://danlu/a", staging=tmp_path)
    assert "AZURE_STORAGE" in caught.value.fix
