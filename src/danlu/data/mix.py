"""Rows of other files that go beside those of the dataset: mixed into training, or given as a held-out split.

What equals, or nearly equals, a held-out row is never trained on, whichever file it comes from.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from danlu.data.accounting import DataWarning
from danlu.data.convert import Dataset, open_dataset
from danlu.data.duplicates import NearDuplicates, first_rows
from danlu.data.examples import Kind
from danlu.data.split import shuffled
from danlu.data.staging import Staged, stage
from danlu.errors import TooFewExamplesError
from danlu.files import storage_errors
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter

LEAKED = "also among the held-out rows that the data gives"


@dataclass(frozen=True)
class Beside:
    """Rows of another file, and what became of the others in it."""

    staged: Staged
    name: str
    rows: np.ndarray
    """Staged rows in the order they are added; a row may be there again."""
    account: dict[str, Any]
    warnings: list[DataWarning] = field(default_factory=list)
    dropped: Mapping[int, str] = field(default_factory=dict)
    """Why a staged row is not among them, where that is told row by row."""

    def lines(self) -> Iterator[bytes]:
        """The examples as JSON lines that name their source."""
        with self.staged.examples_path.open("rb") as file:
            for row in self.rows:
                file.seek(int(self.staged.offsets[row]))
                example = orjson.loads(file.readline())
                yield orjson.dumps(example | {"source": self.name}, option=orjson.OPT_APPEND_NEWLINE)

    def entries(self) -> Iterator[dict[str, Any]]:
        """What dropped.jsonl says of its rows."""
        for _, line, action, reasons in self.staged.read_notes():
            if action == "dropped":
                yield {"dataset": self.name, "line": line, "action": action, "reason": "; ".join(reasons)}
        for row, reason in self.dropped.items():
            yield {"dataset": self.name, "line": int(self.staged.lines[row]), "action": "dropped" if reason == LEAKED else "duplicate", "reason": reason}


def stage_given(recipe: Recipe, needs: Kind, given: Mapping[str, Path], staging: Path, reporter: Reporter) -> dict[str, Beside]:
    """Stage the files that are a held-out split; what test has is not in validation as well.

    Raises:
        TooFewExamplesError: a file has no row that can be used.
    """
    found: dict[str, Beside] = {}
    for split in sorted(given):  # test before validation
        path, name = given[split], recipe.data.split.datasets[split]
        source = open_dataset(path, format=recipe.data.format, needs=needs, system=recipe.data.system)
        staged = stage(source, staging / f"given-{split}", partial(_tell_rows, reporter, name))
        is_first = first_rows(staged.hashes) == np.arange(staged.num_rows) if staged.num_rows else np.zeros(0, np.bool_)
        is_leaked = matches_any([one.staged for one in found.values()], staged, "given") & is_first
        rows = np.flatnonzero(is_first & ~is_leaked)
        if not len(rows):
            raise TooFewExamplesError(
                f"{path}: no row is left for the {split} split",
                why=f"{staged.rows_in} rows read, {staged.dropped.total()} dropped, {int(is_leaked.sum())} nearly equal test rows",
                fix=f"give another file, or remove data.split.{split}_dataset",
            )
        dropped = {int(row): "same content" for row in np.flatnonzero(~is_first)} | {int(row): LEAKED for row in np.flatnonzero(is_leaked)}
        account = {
            "rows_in": staged.rows_in, "dropped": staged.dropped.total(), "duplicate": int((~is_first).sum()), "leaked": int(is_leaked.sum()),
            "used": len(rows), "format": staged.dataset.format.type,
        }  # fmt: skip
        warnings = [DataWarning(one.kind, f"{name}: {one.en}", f"{name}：{one.zh}") for one in staged.dataset.warnings]
        if is_leaked.any():
            warnings.append(leak_warning(int(is_leaked.sum()), name, int(staged.lines[np.flatnonzero(is_leaked)[0]])))
        found[split] = Beside(staged, name, rows, account, warnings, dropped)
    return found


def _tell_rows(reporter: Reporter, name: str, done: int) -> None:
    reporter.progress(f"reading rows of {name}", done, None)


def leak_warning(count: int, name: str, line: int) -> DataWarning:
    """What to say of rows that a held-out row equals."""
    return DataWarning(
        "split_leak",
        f"{count} rows of {name} equal, or nearly equal, held-out rows that the data gives (first: line {line}); they are left out, so that the proof holds",
        f"{name} 中有 {count} 行与数据给定的留出样例相同或几乎相同（首次在第 {line} 行）；为保证验证有效，没有使用它们",
    )


def stage_mix(
    recipe: Recipe,
    needs: Kind,
    name: str,
    source: Dataset,
    share: float,
    staging: Path,
    main: tuple[Staged, np.ndarray],
    num_train: int,
    barring: Sequence[Staged],
    reporter: Reporter,
) -> Beside:
    """Stage a mixed dataset, leave out what equals a held-out row (those of `main`, and all of `barring`), and draw from the rest."""
    staged = stage(source, staging / f"mix-{len(list(staging.iterdir()))}", partial(_tell_rows, reporter, name))
    is_free = first_rows(staged.hashes) == np.arange(staged.num_rows) if staged.num_rows else np.zeros(0, np.bool_)
    num_own = int(np.count_nonzero(is_free))
    is_free &= ~np.isin(staged.hashes, main[0].hashes[main[1]])
    is_free &= ~_near_to(*main, staged, is_free, "held_out")
    is_free &= ~matches_any(barring, staged, "barred")
    free = np.flatnonzero(is_free)
    if not len(free):
        raise TooFewExamplesError(
            f"{source.stream.source.path}: no row is left to mix in as {name!r}",
            why=f"{staged.rows_in} rows read, {staged.dropped.total()} dropped, {num_own} nearly equal held-out examples",
            fix=f"give another file, or remove data.mix.{name}",
        )
    wanted = round(share * num_train)
    order = free[np.argsort(shuffled(staged.hashes[free], recipe.seed), kind="stable")]
    rows = np.resize(order, wanted)
    repeated = max(0, wanted - len(free))
    account = {
        "share": share, "rows_in": staged.rows_in, "dropped": staged.dropped.total(), "available": len(free), "added": wanted, "repeated": repeated,
        "held_out_duplicates": num_own - len(free), "format": staged.dataset.format.type,
    }  # fmt: skip
    return Beside(staged, name, rows, account, _mix_warnings(staged, name, share, num_train, len(free), wanted))


def _mix_warnings(staged: Staged, name: str, share: float, num_train: int, num_free: int, wanted: int) -> list[DataWarning]:
    warnings = [DataWarning(one.kind, f"{name}: {one.en}", f"{name}：{one.zh}") for one in staged.dataset.warnings]
    repeated = wanted - num_free
    if repeated > 0:
        warnings.append(
            DataWarning(
                "mix_repeated",
                f"{name}: {wanted} examples were asked for and {num_free} are there; {repeated} are repetitions",
                f"{name}：要混入 {wanted} 条，只有 {num_free} 条；其中 {repeated} 条是重复的",
            )
        )
    if not wanted:
        warnings.append(
            DataWarning(
                "mix_empty",
                f"{name}: a share of {share:g} of {num_train} training examples is no whole example; none is mixed in",
                f"{name}：{num_train} 条训练样例的 {share:g} 不足一条；没有混入",
            )
        )
    return warnings


def matches_any(held_out: Sequence[Staged], other: Staged, name: str) -> np.ndarray:
    """Which rows of `other` equal, or nearly equal, one of `held_out`; works in folders of that name."""
    found = np.zeros(other.num_rows, np.bool_)
    for number, one in enumerate(held_out):
        if other.num_rows and one.num_rows:
            same: np.ndarray = np.isin(other.hashes, one.hashes)
            found |= same | _near_to(one, np.ones(one.num_rows, np.bool_), other, ~same, f"{name}-{number}")
    return found


def _near_to(main: Staged, is_held_out: np.ndarray, other: Staged, is_free: np.ndarray, name: str) -> np.ndarray:
    """Which rows of `other` nearly equal a held-out row of `main`; works in a folder of that name."""
    folder = other.examples_path.parent / name
    folder.mkdir()
    held_out = np.flatnonzero(is_held_out)
    with storage_errors(folder), closing(NearDuplicates(folder)) as both:
        for staged, rows in ((main, held_out), (other, np.flatnonzero(is_free))):
            for start in range(0, len(rows), 1024):
                both.add(list(staged.read_near_texts([int(row) for row in rows[start : start + 1024]])))
    free = np.flatnonzero(is_free)

    def read(rows: Any) -> Iterator[str]:
        for row in rows:
            yield from main.read_near_texts([held_out[row]]) if row < len(held_out) else other.read_near_texts([free[row - len(held_out)]])

    labels = both.groups(np.ones(both.num_rows, np.bool_), read)
    # Held-out rows come first, so a group with one of them is labelled by one.
    near = np.zeros(other.num_rows, np.bool_)
    near[free] = labels[len(held_out) :] < len(held_out)
    return near
