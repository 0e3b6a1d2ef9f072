"""A home folder that lies elsewhere than before: moved, or put back from a backup into a new one. What waits goes on there. Holds no operations."""

from __future__ import annotations

import logging
from pathlib import Path

from danlu.errors import StorageError
from danlu.files import read_json, write_json
from danlu.services.platform.inputs import fetch
from danlu.services.platform.platform import Platform
from danlu.services.platform.storage import needed_files
from danlu.store import queue, workers
from danlu.store.moves import relocate, with_folder

logger = logging.getLogger(__name__)
RECORDS = ("*/run.json", "*/sweep/runs/*/run.json")
"""Where runs, and the members of sweeps, have written down where their data lies."""


def move_in(platform: Platform, before: str | None) -> int:
    """Let jobs and runs name this home's folder where they named that one; return how many jobs did. To be called by who holds the home's lock.

    Raises:
        StorageError: a file cannot be written.
    """
    here = str(platform.home)
    if before is None or before == here:
        return 0
    with platform.database.writing() as connection:
        count = relocate(connection, workers.home_id(platform.database, platform.home), before, here)
    for pattern in RECORDS:
        for path in (platform.home / "runs").glob(pattern):
            _move_record(path, before, here)
    if count:
        logger.info("the home folder has moved from %s to %s: %d jobs follow it", before, here, count)
    return count


def folder_before(platform: Platform) -> str | None:
    """The folder in which this home's last worker was; None when there was none."""
    home = workers.home_id(platform.database, platform.home)
    with platform.database.reading() as connection:
        return next((worker.folder for worker in workers.all_workers(connection) if worker.home == home), None)


def fetch_inputs(platform: Platform) -> list[str]:
    """Bring the data of jobs that are not over into the cache, where it is not there; return the ids of jobs whose data is nowhere."""
    missing, home = [], workers.home_id(platform.database, platform.home)
    with platform.database.reading() as connection:
        unfinished = [job for job in queue.unfinished(connection) if job.home in (None, home)]
    for job in unfinished:
        try:
            fetch(platform, needed_files(job.payload))
        except StorageError as error:
            logger.warning("job %s: %s", job.id, error)
            missing.append(job.id)
    return missing


def _move_record(path: Path, before: str, here: str) -> None:
    try:
        record = read_json(path)
    except StorageError as error:  # that run has its own trouble
        logger.warning("%s", error)
        return
    if isinstance(record, dict) and (moved := with_folder(record.get("paths"), before, here)) != record.get("paths"):
        write_json(path, record | {"paths": moved})
