"""Use cases on the rows of a dataset version: page through them, see the findings, correct them into a new version."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field

from danlu.data import findings, table_of_rows
from danlu.data.convert import examples
from danlu.data.findings import Finding, SplitPreview
from danlu.data.sources import named_only
from danlu.data.table_of_rows import FileRow, Rows
from danlu.errors import ConflictError, DataError, NoEffectError, OutdatedError
from danlu.recipe.base import StrictModel
from danlu.recipe.recipe import SplitConfig
from danlu.services.platform.datasets import add_version
from danlu.services.platform.operations import Call, operation
from danlu.services.platform.storage import cached, check_quota, keep_cached, scratch_folder, write_lines
from danlu.store.datasets import DATASET_VERSIONS, DatasetVersion, newest_version
from danlu.store.engine import Connection

MAX_ROWS = 200
READ_AT_ONCE_BYTES = 4 * 1024 * 1024
"""Of a larger file that has not been read yet the first rows are shown, instead of keeping who asks waiting for all of them."""
FindingKind = Literal["dropped", "fixed", "duplicate", "near_duplicate"]


class RowEdits(StrictModel):
    """What to change of a version. Numbers are those of the preview."""

    replace: dict[int, dict[str, Any]] = Field(default_factory=dict, max_length=10_000)
    """Row number -> all of its columns."""
    delete: list[int] = Field(default_factory=list, max_length=1_000_000)
    """Numbers of the rows to leave out."""


class ColumnMapping(StrictModel):
    """Which columns to keep, under which names."""

    columns: dict[str, Annotated[str, Field(max_length=table_of_rows.MAX_NAME_CHARS)]] = Field(min_length=1, max_length=1000)
    """Name in this version -> name in the new one; columns that are not named are left out."""


class Fixes(StrictModel):
    """What to put right."""

    repair: bool = True
    """Write every row as it is read after cleaning: control characters and template debris removed, turns in order. Unusable rows are left out too."""
    drop_unusable: bool = True
    """Leave out rows that cannot be trained on."""
    drop_duplicates: bool = True
    """Leave out rows that repeat an earlier one exactly."""
    drop_near_duplicates: bool = False
    """Leave out rows that nearly repeat an earlier one."""


@dataclass(frozen=True)
class Corrected:
    """A new version, and how it came about: rows_in = rows_out + removed + unreadable."""

    version: DatasetVersion
    rows_in: int
    rows_out: int
    changed: int
    removed: int
    unreadable: int
    """Rows that nobody can read; they are not in the new version."""


@dataclass(frozen=True)
class Findings:
    """Some findings, in the order of the file by kind."""

    items: list[Finding]
    next: int | None
    """Give it as `offset` for what follows; null at the end."""


@operation("GET", "/dataset-versions/{dataset_version_id}/rows", right="viewer", own_transaction=True)
def preview_rows(
    call: Call,
    dataset_version_id: str,
    offset: int = 0,
    limit: int = 50,
    contains: str | None = None,
    only_problems: bool = False,
    from_number: int | None = None,
) -> Rows:
    """Rows from `offset` on (counted from 0), or from the row numbered `from_number` on; those that hold a text, or that cannot be read.

    A search looks at 200,000 rows at a time: an empty page with `next` set means that it is not at the end.
    """
    limit = max(1, min(limit, MAX_ROWS))
    is_search = bool(contains or only_problems)
    if offset <= 0 and from_number is None and not is_search:
        path = cached(call.platform, _version(call, dataset_version_id))
        if not table_of_rows.has_index(path.parent) and path.stat().st_size > READ_AT_ONCE_BYTES:
            with named_only(path):
                return table_of_rows.read_head(path, limit=limit)
    folder = _table(call, dataset_version_id)
    if from_number is not None:
        offset = table_of_rows.place_of(folder, from_number)
    if is_search:
        return table_of_rows.search(folder, offset=offset, limit=limit, text=(contains or "")[:1000], only_problems=only_problems)
    return table_of_rows.read_page(folder, offset=offset, limit=limit)


@operation("GET", "/dataset-versions/{dataset_version_id}/findings", right="viewer", own_transaction=True)
def list_findings(call: Call, dataset_version_id: str, offset: int = 0, limit: int = 50, kind: FindingKind | None = None) -> Findings:
    """What is wrong with which row: dropped and fixed ones, duplicates.

    Raises:
        ConflictError: the version has not been looked over yet.
    """
    items, following = findings.read_findings(_looked_over(call, dataset_version_id), offset=offset, limit=max(1, min(limit, MAX_ROWS)), action=kind)
    return Findings(items, following)


@operation("GET", "/dataset-versions/{dataset_version_id}/split", right="viewer", own_transaction=True)
def preview_split(
    call: Call, dataset_version_id: str, validation: float = 0.1, test: float = 0.1, seed: int = 0, max_examples: int = SplitConfig().max_examples or 0
) -> SplitPreview:
    """How many rows training would take and hold out, and which; at most `max_examples` in each part that is held out, 0 for no limit.

    Raises:
        ConflictError: the version has not been looked over yet.
        NoEffectError: the shares do not leave anything to train on.
    """
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise NoEffectError("these shares leave nothing to train on", why=f"validation {validation}, test {test}", fix="take shares from 0 to 0.5")
    folder, most = _looked_over(call, dataset_version_id), max(0, max_examples) or None
    return findings.preview_split(folder, validation=validation, test=test, seed=seed % 2**31, max_examples=most)


@operation("POST", "/dataset-versions/{dataset_version_id}/edit", right="editor", own_transaction=True)
def edit_rows(call: Call, dataset_version_id: str, body: RowEdits, newest: int | None = None) -> Corrected:
    """Replace and delete rows; a new version.

    Raises:
        NoEffectError: nothing would change.
        DataError: a row of that number is not there.
        OutdatedError: `newest`, the number of the newest version that is known, is not the newest any more.
    """
    removed = set(body.delete)
    if not removed and not body.replace:
        raise NoEffectError("nothing would change", why="no row is named", fix="name rows to replace or to delete")
    unknown = (removed | set(body.replace)) - {row.number for row in table_of_rows.all_rows(_table(call, dataset_version_id))}
    if unknown:
        raise DataError(f"there is no row {min(unknown)}", why=f"{len(unknown)} of the named rows are not in this version", fix="take numbers from the preview")

    def change(row: FileRow) -> dict[str, Any] | None:
        return None if row.number in removed else body.replace.get(row.number, row.row)

    return _correct(call, dataset_version_id, change, newest, readable=set(body.replace) - removed)


@operation("POST", "/dataset-versions/{dataset_version_id}/columns", right="editor", own_transaction=True)
def map_columns(call: Call, dataset_version_id: str, body: ColumnMapping, newest: int | None = None) -> Corrected:
    """Rename columns and leave the others out; a new version.

    Raises:
        DataError: two columns would have the same name, or no row has any of them.
        OutdatedError: `newest`, the number of the newest version that is known, is not the newest any more.
    """
    if len(set(body.columns.values())) != len(body.columns) or not all(name.strip() for name in body.columns.values()):
        raise DataError("two columns would have the same name", why="each new name can be given once, and none can be empty", fix="choose other names")

    def change(row: FileRow) -> dict[str, Any] | None:
        return {new: row.row[old] for old, new in body.columns.items() if old in row.row} if row.row is not None else None

    return _correct(call, dataset_version_id, change, newest)


@operation("POST", "/dataset-versions/{dataset_version_id}/fix", right="editor", own_transaction=True)
def fix_rows(call: Call, dataset_version_id: str, body: Fixes, newest: int | None = None) -> Corrected:
    """Put right what the data doctor has found; a new version.

    Raises:
        ConflictError: the version has not been looked over yet.
        NoEffectError: there is nothing to put right.
        OutdatedError: `newest`, the number of the newest version that is known, is not the newest any more.
    """
    folder = _looked_over(call, dataset_version_id)
    wanted = {"dropped": body.drop_unusable, "duplicate": body.drop_duplicates, "near_duplicate": body.drop_near_duplicates}
    removed, has_repairs = set(), False
    for finding in findings.all_findings(folder):
        if wanted.get(finding.action):
            removed.add(finding.number)
        has_repairs |= finding.action == "fixed" and body.repair
    if not removed and not has_repairs:
        raise NoEffectError("there is nothing to put right", why="no finding is of the kinds that were asked for", fix="use the version as it is")
    clean = _Clean(cached(call.platform, _version(call, dataset_version_id))) if has_repairs else None

    def change(row: FileRow) -> dict[str, Any] | None:
        if row.number in removed:
            return None
        return row.row if clean is None else clean.row(row.number)

    return _correct(call, dataset_version_id, change, newest)


def _version(call: Call, dataset_version_id: str) -> DatasetVersion:
    with call.platform.database.reading() as connection:
        return DATASET_VERSIONS.get(connection, dataset_version_id)


def _table(call: Call, dataset_version_id: str) -> Path:
    """Folder with the table of the rows, which is made when it is not there."""
    path = cached(call.platform, _version(call, dataset_version_id))
    if not table_of_rows.has_index(path.parent):
        with named_only(path):
            table_of_rows.index_rows(path, path.parent)
    return path.parent


def _looked_over(call: Call, dataset_version_id: str) -> Path:
    path = cached(call.platform, _version(call, dataset_version_id))
    if not findings.has_findings(path.parent):
        raise ConflictError(
            f"{dataset_version_id} has not been looked over", why="its job has not run yet, or what it kept was removed", fix="wait, or inspect it again"
        )
    return path.parent


class _Clean:
    """The rows of a file as training reads them, asked for in the order of the file."""

    def __init__(self, path: Path) -> None:
        self._examples = examples(path)
        self._next = next(self._examples, None)

    def row(self, number: int) -> dict[str, Any] | None:
        """The clean row; None when it cannot be trained on."""
        while self._next is not None and self._next["line"] < number:
            self._next = next(self._examples, None)
        if self._next is None or self._next["line"] != number:
            return None
        return {key: value for key, value in self._next.items() if key != "line"}


def _correct(
    call: Call, dataset_version_id: str, change: Callable[[FileRow], dict[str, Any] | None], newest: int | None, *, readable: Collection[int] = ()
) -> Corrected:
    """Write what `change` makes of each row as a new version in JSON lines."""
    platform, version = call.platform, _version(call, dataset_version_id)
    folder = _table(call, dataset_version_id)
    with platform.database.reading() as connection:
        _check_newest(connection, version, newest)
        check_quota(connection, platform, version.project_id, version.size_bytes)
    account = {"in": 0, "out": 0, "changed": 0, "removed": 0, "unreadable": 0}

    def written() -> Iterator[bytes]:
        for row in table_of_rows.all_rows(folder):
            account["in"] += 1
            if row.row is None and row.number not in readable:
                account["unreadable"] += 1
                continue
            new = change(row)
            if not new:
                account["removed"] += 1
                continue
            account["changed"] += new != row.row
            account["out"] += 1
            yield orjson.dumps(new, option=orjson.OPT_APPEND_NEWLINE)

    file_name = f"{version.file_name.partition('.')[0] or 'data'}.jsonl"
    with scratch_folder(platform) as scratch:
        path = scratch / "data.jsonl"
        write_lines(platform, version.project_id, path, written())
        if not account["out"]:
            raise DataError("no row would be left", why="every row would be removed, or has none of these columns", fix="check the numbers and the columns")
        stored = platform.artifacts.put_file(path, is_final=True)
        keep_cached(platform, stored.digest, file_name, path)
    if stored.digest == version.digest:
        raise NoEffectError("nothing would change", why="every row stays as it is", fix="use the version as it is")
    with platform.database.writing() as connection:
        _check_newest(connection, version, newest)
        made = add_version(
            connection,
            platform,
            version.project_id,
            stored,
            file_name=file_name,
            dataset_id=version.dataset_id,
            parent_id=version.id,
            created_by=call.actor.user_id,
        )
        corrected = Corrected(made, account["in"], account["out"], account["changed"], account["removed"], account["unreadable"])
        call.settle(connection, corrected)
    return corrected


def _check_newest(connection: Connection, version: DatasetVersion, known: int | None) -> None:
    """Nobody passes over a version that somebody else has made in between, unless knowingly."""
    there = newest_version(connection, version.dataset_id)
    if known is not None and there is not None and there.number != known:
        raise OutdatedError(
            f"{version.dataset_id} has a newer version",
            why=f"version {there.number} was made since; a correction of version {version.number} would not hold what is new in it",
            fix=f"look at version {there.number}, and repeat your change there; or leave `newest` out to go on beside it",
        )
