"""A bucket of S3, Google Cloud Storage or Azure as a place for artifacts, through fsspec.

Which bucket is the administrator's choice alone (DANLU_ARTIFACT_URL); addresses are never taken from a request, and chains of
file systems (`simplecache::...`) are refused. Credentials are those that the provider's own library finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from danlu.errors import MissingExtraError, StorageError
from danlu.logs import redact

EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
"""Which extra reads which kind of address."""


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
            from fsspec.core import url_to_fs

            self.files, self.root = self._open(url_to_fs, url)
        except ImportError as error:
            raise MissingExtraError(
                f"artifacts at {scheme}:// need a part that is not installed", why=str(error), fix=f"pip install 'danlu[{EXTRAS[scheme]}]'"
            ) from error

    def _open(self, url_to_fs: Any, url: str) -> tuple[Any, str]:
        with _told(url):
            files, root = url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
        return files, str(root).rstrip("/")

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
                raise StorageError(f"there is no bucket for {self.root}", why=str(error), fix="make it, or correct DANLU_ARTIFACT_URL") from error
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
        with _told(self.root):
            found = self.files.find(f"{self.root}/sha256", detail=True)
        for path, info in sorted(found.items()):
            taken = next((value for value in (info.get(key) for key in ("LastModified", "last_modified", "mtime", "updated")) if value), None)
            yield path[len(self.root) + 1 :], _seconds(taken)

    def _object(self, name: str) -> str:
        return f"{self.root}/{name}"


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
