"""Files that can be fetched: what a door needs to send one, whole or in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from danlu.errors import NotFoundError
from danlu.files import storage_errors
from danlu.services.platform.operations import Call, operation
from danlu.store.runs import RUNS

PART_BYTES = 256 * 1024


@dataclass(frozen=True)
class Download:
    """A file whose content does not change under its tag."""

    file_name: str
    """What to call it where it is saved; any text."""
    size_bytes: int
    tag: str
    """Changes when the content does: the digest of an artifact, or size and time of a file."""
    read: Callable[[int, int], Iterator[bytes]]
    """Parts from an offset on, as many bytes as asked for."""
    is_page: bool = False
    """A report that Danlu wrote: may be shown in a browser, in a sandbox. Nothing else ever is."""

    @classmethod
    def of_file(cls, path: Path, *, file_name: str | None = None, is_page: bool = False) -> Download:
        """A file of the home folder.

        Raises:
            NotFoundError: it is not there (any more).
        """
        with storage_errors(path):
            if not path.is_file():
                raise NotFoundError(f"there is no {path.name} here", why="it has not been made yet, or it was deleted", fix="wait until the run has made it")
            facts = path.stat()
        return cls(
            file_name or path.name, facts.st_size, f"{facts.st_size:x}-{facts.st_mtime_ns:x}", lambda start, length: _parts(path, start, length), is_page
        )


@operation("GET", "/runs/{run_id}/report.html", right="viewer")
def download_report(call: Call, run_id: str) -> Download:
    """The report of a run as one page that needs nothing else."""
    run = RUNS.get(call.connection, run_id)
    return Download.of_file(call.platform.run_folder(run.id) / "report.html", file_name=f"{run.name or run.id} report.html", is_page=True)


def _parts(path: Path, start: int, length: int) -> Iterator[bytes]:
    with storage_errors(path), path.open("rb") as file:
        file.seek(start)
        while length > 0:
            part = file.read(min(PART_BYTES, length))
            if not part:
                return
            length -= len(part)
            yield part
