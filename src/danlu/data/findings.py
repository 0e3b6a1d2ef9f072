"""A data file looked over, with the place of every finding and what a split of it would be, kept for later questions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson

from danlu.data.inspect import Inspection, inspect
from danlu.data.sources import named_only
from danlu.data.split import split_rows
from danlu.data.staging import Staged
from danlu.data.table_of_rows import index_rows
from danlu.errors import ArtifactDamagedError
from danlu.files import atomic_open, storage_errors

FINDINGS, GROUPS = ".findings.jsonl", ".groups.npy"
Action = Literal["dropped", "fixed", "duplicate", "near_duplicate"]
HELD_OUT_SHOWN = 20


@dataclass(frozen=True)
class Finding:
    """Something about one row."""

    number: int
    """Line, sheet row or record."""
    action: Action
    """`dropped`: it cannot be trained on. `fixed`: it was repaired. The others: it repeats an earlier row."""
    reasons: list[str]
    same_as: int | None
    """The earlier row that it repeats."""


@dataclass(frozen=True)
class SplitPreview:
    """What a split would give."""

    train: int
    validation: int
    test: int
    test_rows: list[int]
    """Numbers of the first rows that would be held out for the test."""


def look_over(path: Path, *, digest: str = "", keep_in: Path | None = None) -> Inspection:
    """Read a file, and leave its findings, its groups of duplicates and the table of its rows in `keep_in`.

    Raises:
        ArtifactDamagedError: it has another SHA-256 than `digest`.
        DataError: it cannot be read.
    """
    if digest:
        check_digest(path, digest)
    if keep_in is None:
        return inspect(path)
    with named_only(path):
        index_rows(path, keep_in)
        return inspect(path, look_closer=lambda staged, original, groups: _keep(keep_in, staged, original, groups))


def check_digest(path: Path, digest: str) -> None:
    """Compare a file with its digest.

    Raises:
        ArtifactDamagedError: it is another one. The file is removed, so that it is fetched anew.
    """
    with storage_errors(path), path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        path.unlink(missing_ok=True)
        raise ArtifactDamagedError(f"{path.name} is damaged", why=f"its SHA-256 is {found[:12]}..., not {digest[:12]}...", fix="try again; check the disk")


def has_findings(folder: Path) -> bool:
    """Whether the file was looked over."""
    return (folder / FINDINGS).is_file() and (folder / GROUPS).is_file()


def read_findings(folder: Path, *, offset: int, limit: int, action: Action | None = None) -> tuple[list[Finding], int | None]:
    """Findings from place `offset` on, and the place where the next ones begin."""
    items: list[Finding] = []
    named = f'"{action or ""}'.encode()
    with storage_errors(folder), (folder / FINDINGS).open("rb") as file:
        file.seek(max(0, offset))
        for line in file:
            if named not in line:  # a million findings of other kinds are passed by unread
                continue
            finding = Finding(*orjson.loads(line))
            if action is None or finding.action == action:
                items.append(finding)
            if len(items) >= limit:
                break
        end = file.tell()
        return items, end if end < os.fstat(file.fileno()).st_size else None


def all_findings(folder: Path) -> Iterator[Finding]:
    """Every finding."""
    with storage_errors(folder), (folder / FINDINGS).open("rb") as file:
        for line in file:
            yield Finding(*orjson.loads(line))


def preview_split(folder: Path, *, validation: float, test: float, seed: int, max_examples: int | None = None) -> SplitPreview:
    """What training would hold out, at most `max_examples` for each: the same rows, by the same rule."""
    with storage_errors(folder):
        kept = np.load(folder / GROUPS, allow_pickle=False)
    lines, hashes, groups = kept["line"], kept["hash"], kept["group"]
    if not len(lines):
        return SplitPreview(0, 0, 0, [])
    largest = 1.0 if max_examples is None else max_examples / len(lines)
    split = split_rows(hashes, groups, validation=min(validation, largest), test=min(test, largest), seed=seed)
    return SplitPreview(*split.counts, [int(line) for line in lines[split.places == 2][:HELD_OUT_SHOWN]])


def _keep(folder: Path, staged: Staged, original: np.ndarray, groups: np.ndarray) -> None:
    is_first = original == np.arange(staged.num_rows)
    rows = np.flatnonzero(is_first)
    table = np.zeros(len(rows), np.dtype([("line", np.int64), ("hash", np.uint64), ("group", np.int64)]))
    table["line"], table["hash"], table["group"] = staged.lines[rows], staged.hashes[rows], groups[rows]
    with atomic_open(folder / FINDINGS) as file:
        for written in _findings(staged, original, groups):
            file.write(orjson.dumps(written, option=orjson.OPT_APPEND_NEWLINE))
    with atomic_open(folder / GROUPS) as file:
        np.save(file, table, allow_pickle=False)


def _findings(staged: Staged, original: np.ndarray, groups: np.ndarray) -> Iterator[list[Any]]:
    for _, line, action, reasons in staged.read_notes():
        yield [line, action, reasons, None]
    for row in np.flatnonzero(original != np.arange(staged.num_rows)):
        yield [int(staged.lines[row]), "duplicate", ["same content"], int(staged.lines[original[row]])]
    near = (original == np.arange(staged.num_rows)) & (groups != np.arange(staged.num_rows))
    for row in np.flatnonzero(near):
        yield [int(staged.lines[row]), "near_duplicate", ["nearly the same content"], int(staged.lines[groups[row]])]
