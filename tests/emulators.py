"""Object stores of this machine for tests: servers that speak the protocols of S3, Azure and Google, each with an empty bucket `danlu`."""

import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The published key of every Azurite; it opens nothing else."""


@contextmanager
def s3() -> Iterator[dict[str, str]]:
    """Environment in which `s3://danlu` is a bucket of moto."""
    pytest.importorskip("moto")
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    names = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=url, **names).create_bucket(Bucket="danlu")
    yield {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    server.stop()


@contextmanager
def azure(folder: Path) -> Iterator[dict[str, str]]:
    """Environment in which `az://danlu` is a container of Azurite."""
    needs("adlfs", "pip install 'danlu[azure]'")
    program = program_or_skip("azurite-blob", "npm install -g azurite")
    port = free_port()
    # Its newest library may speak a version that Azurite does not know yet; what is stored is the same.
    words = [program, "--silent", "--skipApiVersionCheck", "--disableTelemetry", "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder)]
    with running(words, f"http://127.0.0.1:{port}/"):
        endpoint = f"http://127.0.0.1:{port}/devstoreaccount1"
        address = f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={AZURITE_KEY};BlobEndpoint={endpoint};"
        from azure.storage.blob import BlobServiceClient

        with BlobServiceClient.from_connection_string(address) as service:
            service.create_container("danlu")
        yield {"AZURE_STORAGE_CONNECTION_STRING": address}


@contextmanager
def gcs(folder: Path) -> Iterator[dict[str, str]]:
    """Environment in which `gs://danlu` is a bucket of gcp-storage-emulator."""
    needs("gcsfs", "pip install 'danlu[gcs]'")
    needs("gcp_storage_emulator", "pip install gcp-storage-emulator")
    port = free_port()
    words = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host", "127.0.0.1", "--port", str(port), "--in-memory", "--default-bucket", "danlu"]
    with running(words, f"http://127.0.0.1:{port}/storage/v1/b/danlu", cwd=folder):
        yield {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}


def needs(package: str, how: str) -> None:
    """Skip the test where a package is missing."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed ({how})")


def program_or_skip(name: str, how: str) -> str:
    """Path of a program, or skip the test."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} on this machine ({how})")
    return found


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(words: list[str], url: str, *, cwd: Path | None = None) -> Iterator[None]:
    """A server, from when it answers at `url` until the block ends."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=cwd, env={"HOME": str(cwd or ""), **os.environ})
    try:
        deadline = time.monotonic() + 60
        while not answers(url):
            assert process.poll() is None and time.monotonic() < deadline, f"{words[0]} does not answer at {url}"
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> bool:
    """Whether anybody says anything there."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False
    return True
