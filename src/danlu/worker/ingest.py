"""What jobs leave in files, brought into the database: points of curves, events, results, exports. And folders of what was deleted, removed.

When several homes share a database, only what lies in this one is looked at: the files of the others are not gone, they are elsewhere.
Everything here may be killed at any instant and is done again: offsets are stored with the rows they stand for, results replace
themselves. It runs in threads beside the supervisor, so a slow disk never delays a job.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from danlu.errors import DanluError, DatabaseError
from danlu.files import storage_errors
from danlu.run_dir import RunDir
from danlu.services.platform import results
from danlu.services.platform.platform import Platform
from danlu.settings import Settings
from danlu.store import measurements, removals, workers
from danlu.store.engine import Database
from danlu.store.jobs import JOBS
from danlu.store.measurements import Point, RunEvent
from danlu.store.runs import RUNS, Run, discarded, forget

logger = logging.getLogger(__name__)
PAUSE_SECONDS = 0.5
BATCH_BYTES = 1 << 20
"""About so much of a file is read into one transaction: some thousand points, well below a tenth of a second of writing."""
MAX_LINE_BYTES = 8 << 20
"""A line that is longer than this is not one of ours."""
DEFECTS = (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError)
"""What files that another version or a broken disk has left can raise where they are made sense of."""


@contextmanager
def running(database: Database, home: Path) -> Iterator[None]:
    """Do all of it in threads while the context lasts."""
    is_stopping = threading.Event()
    threads = [threading.Thread(target=_repeat, args=(work, is_stopping), daemon=True, name=name) for name, work in _works(database, home).items()]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_stopping.set()
        for thread in threads:
            thread.join(timeout=10)


def catch_up(database: Database, home: Path) -> None:
    """Do all of it once, to the end."""
    for work in _works(database, home).values():
        work()


def _works(database: Database, home: Path) -> dict[str, Callable[[], None]]:
    """What is done again and again. Closing runs keeps large exports, so it has a thread of its own: curves do not wait for it."""
    platform = Platform(replace(Settings.from_environment(), home=home), database)
    of_reading, of_closing = dict[str, str](), dict[str, str]()
    return {
        "danlu-ingest": lambda: _of_each(platform, read_run, of_reading),
        "danlu-close": lambda: _of_each(platform, close_run, of_closing),
        "danlu-removals": lambda: remove_folders(database, home),
    }


def _repeat(work: Callable[[], None], is_stopping: threading.Event) -> None:
    said = ""
    while not is_stopping.is_set():
        try:
            work()
            said = ""
        except (DanluError, OSError) as error:  # a database or a disk that is away: the next round tries again
            if str(error) != said:  # told once, not twice a second for as long as it lasts
                logger.error("%s", error)
            said = str(error)
        is_stopping.wait(PAUSE_SECONDS)


def _of_each(platform: Platform, work: Callable[[Platform, Run], None], said: dict[str, str]) -> None:
    """Do `work` for each run that is not read to its end; `said` holds what was told of runs whose files cannot be made sense of."""
    with platform.database.reading() as connection:
        found = measurements.unread_runs(connection, home=_only(platform.database, platform.home))
    for run in found:
        try:
            work(platform, run)
            said.pop(run.id, None)
        except DatabaseError:
            raise
        except (DanluError, *DEFECTS) as error:  # the files of one run must not keep the others from being read
            if said.get(run.id) != repr(error):  # told once, not twice a second for as long as it lasts
                logger.error("run %s: %s", run.id, error if isinstance(error, DanluError) else repr(error))
            said[run.id] = repr(error)


def _only(database: Database, home: Path) -> str | None:
    """Id of this home, where the database may know of others."""
    return None if database.is_sqlite else workers.home_id(database, home)


def read_run(platform: Platform, run: Run) -> None:
    """Read what a run has written since the last time, to its end."""
    run_dir = RunDir(platform.run_folder(run.id))
    while _read_batch(platform.database, run_dir):
        pass
    with platform.database.reading() as connection:
        found = results.changes(connection, run, run_dir)
    if found:
        with platform.database.writing() as connection:
            now = RUNS.find(connection, id=run.id)
            if now is not None:
                results.keep(connection, now, found)


def close_run(platform: Platform, run: Run) -> None:
    """Keep what came of a run that is over, and do not look at it again until something else works on it."""
    if not run.is_over:
        return
    read_run(platform, run)
    run_dir = RunDir(platform.run_folder(run.id))
    with platform.database.reading() as connection:
        before = measurements.read_of(connection, run.id)
        folders = results.new_exports(connection, run, run_dir)
        is_at_work = any(not job.is_over for job in JOBS.all(connection, run_id=run.id))
    for folder in folders:
        results.keep_export(platform, run, folder)
    if is_at_work:
        return
    with platform.database.writing() as connection:
        now = RUNS.find(connection, id=run.id)
        if now is not None and now.finished_at == run.finished_at and measurements.read_of(connection, run.id) == before:  # else it went on meanwhile
            measurements.store(connection, replace(before, read_until=run.finished_at))


@dataclass
class Lines:
    """Whole lines of a file from an offset on."""

    values: list[Any] = field(default_factory=list)
    """The value of each line; None for one that is no JSON object."""
    end: int = 0
    """Offset behind the last whole line."""
    is_all: bool = True
    """Whether the file held no more whole lines."""


def whole_lines(path: Path, offset: int, descriptor: int | None = None) -> Lines:
    """Read whole lines from `offset` on; what has no newline yet is left for the next time."""
    try:
        handle = os.open(path, os.O_RDONLY) if descriptor is None else descriptor
    except FileNotFoundError:
        return Lines(end=offset)
    try:
        size = os.fstat(handle).st_size
        content = os.pread(handle, BATCH_BYTES, offset)
        while b"\n" not in content and len(content) < MAX_LINE_BYTES and offset + len(content) < size:
            content += os.pread(handle, BATCH_BYTES, offset + len(content))
    finally:
        if descriptor is None:
            os.close(handle)
    cut = content.rfind(b"\n") + 1
    if not cut and len(content) >= MAX_LINE_BYTES:
        return Lines([None], offset + len(content), is_all=False)
    return Lines([_parse(line) for line in content[:cut].split(b"\n")[:-1]], offset + cut, is_all=offset + len(content) >= size)


def _parse(line: bytes) -> Any:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _read_batch(database: Database, run_dir: RunDir) -> bool:
    """Read one batch of both files in one transaction; return whether there is more."""
    with database.reading() as connection:
        read = measurements.read_of(connection, run_dir.id)
    before, last = read, None
    with _opened(run_dir.metrics) as (descriptor, inode, size):
        if descriptor is not None and (read.metrics_file != inode or size < read.metrics_offset):
            # A resumed run has cut its file back to a checkpoint: what lay behind is not so any more.
            last = _last_step(descriptor, size) if read.metrics_file is not None else None
            read = measurements.again_from_start(read, inode)
        metrics = Lines(end=read.metrics_offset) if descriptor is None else whole_lines(run_dir.metrics, read.metrics_offset, descriptor)
    events = whole_lines(run_dir.events, read.events_offset)
    points = [_point(value) for value in metrics.values]
    told = [_event(read.num_events + place, value) for place, value in enumerate(events.values)]
    read = replace(
        read,
        metrics_offset=metrics.end,
        events_offset=events.end,
        num_events=read.num_events + len(told),
        num_bad_lines=read.num_bad_lines + points.count(None) + told.count(None),
        read_until=None,
    )
    if read == before:
        return False
    with database.writing() as connection:
        if RUNS.find(connection, id=run_dir.id) is None:
            return False
        if measurements.read_of(connection, run_dir.id) != before:
            return True  # another reader was here: look again
        good = [point for point in points if point is not None]
        measurements.store(connection, read, good, [event for event in told if event is not None], drop_after=last)
    return not (metrics.is_all and events.is_all)


def _last_step(descriptor: int, size: int) -> int:
    """Step of the last whole line of metrics.jsonl; -1 when it has none."""
    tail = os.pread(descriptor, BATCH_BYTES, max(0, size - BATCH_BYTES))
    for line in reversed(tail.split(b"\n")[:-1]):
        point = _point(_parse(line))
        if point is not None:
            return point.step
    return -1


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int | None, int | None, int]]:
    """Descriptor, inode and size of a file, all of the same one; None for what is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield None, None, 0
        return
    try:
        status = os.fstat(descriptor)
        yield descriptor, status.st_ino, status.st_size
    finally:
        os.close(descriptor)


def _point(value: Any) -> Point | None:
    if value is None or not isinstance(value.get("step"), int) or not 0 <= value["step"] < 2**31:
        return None
    kind = "validation" if "validation_loss" in value else "train"
    return Point(value["step"], kind, {name: content for name, content in value.items() if name != "step"})


def _event(number: int, value: Any) -> RunEvent | None:
    if value is None or not isinstance(value.get("kind"), str):
        return None
    return RunEvent(number, value["kind"][:200], {name: content for name, content in value.items() if name != "kind"})


def remove_folders(database: Database, home: Path) -> None:
    """Delete discarded runs that nothing works on any more, and the folders of everything that was deleted."""
    with database.reading() as connection:
        has_discarded = bool(discarded(connection))
    if has_discarded:
        with database.writing() as connection:
            for run in discarded(connection):
                forget(connection, run)
    with database.reading() as connection:
        folders = removals.pending(connection, home=_only(database, home))
    for name in folders:
        folder = (home / name).resolve()
        if folder == home.resolve() or not folder.is_relative_to(home.resolve()):
            logger.error("%s is not removed: it lies outside the home folder", folder)
        elif folder.is_dir():
            with storage_errors(folder):
                shutil.rmtree(folder)
        with database.writing() as connection:
            removals.done(connection, name)
