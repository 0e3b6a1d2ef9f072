"""A bucket of S3, Google Cloud Storage or Azure as a place for artifacts, through fsspec.

Which bucket is the administrator's choice alone (DANLU_ARTIFACT_URL); addresses are never taken from a request, and chains of
file systems (`simplecache::...`) are refused. Credentials are those that the provider's own library finds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from danlu.errors import MissingExtraError, StorageError
from danlu.logs import redact

EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
"""Which extra reads which kind of address."""
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
    "azure": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY",
}
"""Where the provider's library finds credentials first, by extra."""
EMULATOR = "STORAGE_EMULATOR_HOST"
"""Address of a server that stands for Google's; it knows no accounts."""


class Bucket:
    """A folder in a bucket."""

    is_local = False

    def __init__(self, url: str) -> None:
        scheme = url.partition("://")[0]
        if scheme not in EXTRAS or "::" in url:
            raise StorageError(
                f"artifacts cannot be kept at an address that begins with {scheme[:20]!r}",
                why=f"it is neither a folder nor an address that begins with one of: {', '.join(f'{name}://' for name in EXTRAS)}",
                fix="correct DANLU_ARTIFACT_URL",
            )
        if ":" in url.partition("://")[2].rpartition("@")[0]:  # addresses are shown in messages
            raise StorageError(
                "DANLU_ARTIFACT_URL holds a key", why="an address is shown where something goes wrong", fix="give keys as the provider's library reads them"
            )
        try:
            with _told(url):
                self.files, root = _opened(url, EXTRAS[scheme])
        except ImportError as error:
            raise MissingExtraError(
                f"artifacts at {scheme}:// need a part that is not installed", why=str(error), fix=f"pip install 'danlu[{EXTRAS[scheme]}]'"
            ) from error
        except StorageError as error:
            raise StorageError(error.what, why=error.why, fix=f"set {CREDENTIALS[EXTRAS[scheme]]}; check DANLU_ARTIFACT_URL and the network") from error
        self.root = root.rstrip("/")

    def size(self, name: str) -> int | None:
        """Bytes of the object."""
        try:
            with _told(name):
                return int(self.files.info(self._object(name))["size"])
        except FileNotFoundError:
            return None

    def take(self, staged: Path, name: str) -> None:
        """Upload the file; an object appears when it is whole, or not at all."""
        with _told(name):
            try:
                self.files.put_file(str(staged), self._object(name))
            except FileNotFoundError as error:
                raise self._no_bucket(error) from error
        if self.size(name) != staged.stat().st_size:
            raise StorageError(f"the upload of {name} is not whole", why="the object has another size than the file", fix="try again")

    def read(self, name: str, start: int, length: int) -> bytes:
        """Read a part of the object."""
        with _told(name):
            return bytes(self.files.cat_file(self._object(name), start=start, end=start + length))

    def remove(self, name: str) -> None:
        """Delete the object."""
        try:
            with _told(name):
                self.files.rm_file(self._object(name))
        except FileNotFoundError:
            return

    def names(self) -> Iterator[tuple[str, float]]:
        """Every object, with the time of its upload."""
        try:
            with _told(self.root):
                found = self.files.find(f"{self.root}/sha256", detail=True)
        except FileNotFoundError as error:
            raise self._no_bucket(error) from error
        for path, info in sorted(found.items()):
            taken = next((value for value in (info.get(key) for key in ("LastModified", "last_modified", "mtime", "updated")) if value), None)
            yield path[len(self.root) + 1 :], _seconds(taken)

    def _no_bucket(self, error: Exception) -> StorageError:
        return StorageError(f"there is no bucket for {self.root}", why=redact(str(error)), fix="make it, or correct DANLU_ARTIFACT_URL")

    def _object(self, name: str) -> str:
        return f"{self.root}/{name}"


def _opened(url: str, extra: str) -> tuple[Any, str]:
    """The provider's file system, and the path of the address in it."""
    plain = {"skip_instance_cache": True, "use_listings_cache": False}
    if extra != "gcs":
        from fsspec.core import url_to_fs

        files, root = url_to_fs(url, **plain)
        return files, str(root)
    # Not by url_to_fs: what that gives asks another service, by gRPC, what kind each bucket is, and waits a minute where only HTTP gets through.
    from gcsfs.core import GCSFileSystem

    token = {"token": "anon"} if os.environ.get(EMULATOR) else {}
    return GCSFileSystem(**token, **plain), str(GCSFileSystem._strip_protocol(url))


def _seconds(taken: Any) -> float:
    if isinstance(taken, datetime):
        return taken.timestamp()
    if isinstance(taken, str):
        return datetime.fromisoformat(taken).timestamp()
    return float(taken) if taken is not None else float("inf")  # unknown counts as young: it is not collected


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what the provider's library says into what a person can act on; that something does not exist passes."""
    try:
        yield
    except (FileNotFoundError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"the artifact store cannot be reached ({what})",
            why=redact((str(error).strip() or type(error).__name__).splitlines()[0]),
            fix="check DANLU_ARTIFACT_URL, the credentials and the network; nothing that was acknowledged is lost",
        ) from error
