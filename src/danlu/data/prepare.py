"""The data stage as a program: a user's file in, clean, accounted and split examples out. Knows nothing of tokens.

Two passes: the first stages clean examples on disk (see staging.py), then duplicates and splits are told from their
hashes, and the second copies each example to its split. Memory is bounded by a few hundred bytes a row.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from danlu import __version__
from danlu.data.accounting import Accounting, DataWarning
from danlu.data.convert import examples, open_dataset, open_prepared
from danlu.data.duplicates import NUM_BANDS, NearDuplicates, first_rows
from danlu.data.examples import Kind
from danlu.data.reasons import count_reasons, in_chinese
from danlu.data.sources import hash_file, open_source
from danlu.data.split import NAMES, TEST, TRAIN, VALIDATION, Split, shuffled, split_rows
from danlu.data.staging import Staged, stage
from danlu.errors import TooFewExamplesError
from danlu.files import atomic_open, read_json, storage_errors, write_json
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir

__all__ = ["examples", "prepare"]

DROPPED = -1
REPLAY, EARLIER = "replay", "earlier rounds"
"""Names of the two inputs that are no data files of the recipe."""
BARRED = "held out by an earlier round"


def prepare(
    recipe: Recipe,
    run_dir: RunDir,
    reporter: Reporter,
    *,
    dataset: Path,
    mix: Mapping[str, Path],
    replay: Path | None = None,
    earlier: Path | None = None,
) -> Accounting:
    """Write train, validation and test .jsonl, dropped.jsonl and accounting.json into the run's data folder.

    `mix` gives the file of each name in `recipe.data.mix`, `replay` the training rows of the run in `recipe.data.replay`, and
    `earlier` the rows that earlier rounds held out: none of these, nor a near duplicate, is trained on.
    Does nothing when it has been done with the same input.

    Raises:
        DataError: a file cannot be read.
        FormatError: its format cannot be told, or does not fit the objective.
        TooFewExamplesError: nothing is left to train on.
    """
    needs: Kind = recipe.objective.needs  # type: ignore[assignment]
    paths = {"": dataset, **mix} | {name: path for name, path in ((REPLAY, replay), (EARLIER, earlier)) if path is not None}
    sources = {name: _describe(path) for name, path in paths.items()}
    known = _known(run_dir.data)
    num_lines = {name: _identify(source, paths[name], known, name) for name, source in sources.items()}
    if known and known.key == _key(recipe, sources):
        return known
    staging = run_dir.data / ".staging"
    with storage_errors(run_dir.data):
        shutil.rmtree(staging, ignore_errors=True)
    try:
        total = _total(dataset, num_lines[""])
        source = open_dataset(dataset, format=recipe.data.format, needs=needs, system=recipe.data.system)
        staged = stage(source, staging / "main", lambda done: reporter.progress("reading rows", done, max(total, done) if total else None))
        before = None if earlier is None else stage(open_prepared(earlier, needs), staging / "earlier", lambda done: None)
        plan = _plan(recipe, staged, dataset, reporter, _matches(before, staged, "earlier"))
        others = {name: (path, recipe.data.mix[name]) for name, path in mix.items()}
        if replay is not None and recipe.data.replay is not None:
            others[REPLAY] = (replay, recipe.data.replay.share)
        mixed = {name: _stage_mix(recipe, needs, name, *other, staging, staged, plan, before, reporter) for name, other in others.items()}
        accounting = _write(recipe, run_dir.data, staged, plan, mixed, sources)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return accounting


@dataclass(frozen=True)
class Plan:
    """What becomes of each staged row."""

    places: np.ndarray
    """TRAIN, VALIDATION, TEST or DROPPED."""
    original: np.ndarray
    """First row with the same content; itself when it is the first."""
    groups: np.ndarray
    """First row of its group of near duplicates."""
    barred: np.ndarray
    """Whether an earlier round held it (or a near duplicate) out."""
    split: Split


def _plan(recipe: Recipe, staged: Staged, dataset: Path, reporter: Reporter, barred: np.ndarray) -> Plan:
    original = first_rows(staged.hashes) if staged.num_rows else np.zeros(0, np.int64)
    is_first = original == np.arange(staged.num_rows)
    groups = staged.near.groups(is_first, staged.read_near_texts, lambda done: reporter.progress("comparing examples", done, NUM_BANDS))
    is_used = is_first & (groups == np.arange(staged.num_rows)) if recipe.data.near_duplicates == "drop" else is_first
    is_used = is_used & ~barred
    shares = recipe.data.split
    rows = np.flatnonzero(is_used)
    largest = 1.0 if shares.max_examples is None else shares.max_examples / max(1, len(rows))
    validation, test = min(shares.validation, largest), min(shares.test, largest)
    split = split_rows(staged.hashes[rows], groups[rows], validation=validation, test=test, seed=recipe.seed)
    if not split.counts[TRAIN]:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in staged.dropped.most_common(3))
        raise TooFewExamplesError(
            f"{dataset}: no example is left to train on",
            why=f"{staged.rows_in} rows read as {staged.dataset.format.type}; dropped: {reasons or 'none'}",
            fix="correct the rows, or set data.format if the columns were taken wrongly",
        )
    places = np.full(staged.num_rows, DROPPED, np.int8)
    places[rows] = split.places
    return Plan(places, original, groups, barred & is_first, split)


def _write(recipe: Recipe, folder: Path, staged: Staged, plan: Plan, mixed: dict[str, "Mixed"], sources: dict[str, dict[str, Any]]) -> Accounting:
    fixed: Counter[str] = Counter()
    num_fixed = num_duplicate = num_near = 0
    with ExitStack() as stack:
        files = [stack.enter_context(atomic_open(folder / f"{name}.jsonl")) for name in NAMES]
        dropped = stack.enter_context(atomic_open(folder / "dropped.jsonl"))
        notes = staged.read_notes()
        note = next(notes, None)
        for row, written in enumerate(staged.read_lines()):
            place = plan.places[row]
            while note and note[0] == row:
                if note[2] == "dropped" or place != DROPPED:
                    dropped.write(_entry(note[1], note[2], "; ".join(note[3])))
                if note[2] == "fixed" and place != DROPPED:
                    num_fixed += 1
                    count_reasons(fixed, note[3])
                note = next(notes, None)
            if place != DROPPED:
                files[place].write(written)
            elif plan.barred[row]:
                staged.dropped[BARRED] += 1
                dropped.write(_entry(int(staged.lines[row]), "dropped", BARRED))
            elif plan.original[row] != row:
                num_duplicate += 1
                dropped.write(_entry(int(staged.lines[row]), "duplicate", "same content", int(staged.lines[plan.original[row]])))
            else:
                num_near += 1
                dropped.write(_entry(int(staged.lines[row]), "near_duplicate", "nearly the same content", int(staged.lines[plan.groups[row]])))
        while note:
            dropped.write(_entry(note[1], note[2], "; ".join(note[3])))
            note = next(notes, None)
        for one in mixed.values():
            for written in one.lines():
                files[TRAIN].write(written)
    accounting = Accounting(
        source=sources[""],
        format=staged.dataset.format.type,
        columns=_columns(staged),
        container=staged.dataset.stream.container,
        encoding=staged.dataset.stream.source.encoding,
        unit=staged.dataset.stream.unit,
        rows_in=staged.rows_in,
        dropped=staged.dropped.total(),
        duplicate=num_duplicate,
        near_duplicate=num_near,
        near_duplicates_kept=int(np.count_nonzero((plan.places != DROPPED) & (plan.groups != np.arange(staged.num_rows)))),
        fixed=num_fixed,
        splits=dict(zip(NAMES, plan.split.counts, strict=True)),
        reasons={"dropped": dict(staged.dropped.most_common()), "fixed": dict(fixed.most_common())},
        mix={name: one.account | {"source": sources[name]} for name, one in mixed.items()},
        warnings=[*staged.dataset.warnings, *_split_warnings(recipe, staged, plan), *(w for one in mixed.values() for w in one.warnings)],
        key=_key(recipe, sources),
    )
    write_json(folder / "accounting.json", accounting.to_dict())
    return accounting


def _columns(staged: Staged) -> dict[str, str]:
    config = staged.dataset.format
    fields: set[str] = getattr(config, "model_fields_set", set()) - {"type"}
    return {name: str(getattr(config, name)) for name in sorted(fields)}


def _entry(line: int, action: str, reason: str, duplicate_of: int | None = None) -> bytes:
    entry: dict[str, Any] = {"line": line, "action": action, "reason": reason}
    if duplicate_of is not None:
        entry["duplicate_of"] = duplicate_of
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)


def _split_warnings(recipe: Recipe, staged: Staged, plan: Plan) -> list[DataWarning]:
    warnings = []
    used, shares = sum(plan.split.counts), recipe.data.split
    held_out = (("validation", "验证", shares.validation, VALIDATION), ("test", "测试", shares.test, TEST))
    for name, chinese, share, place in held_out:
        if share and not plan.split.counts[place]:
            warnings.append(
                DataWarning(
                    "empty_split",
                    f"the {name} split is empty: {used} examples are too few for a share of {share:g} (or nearly equal one another)",
                    f"{chinese}集为空：{used} 条样例不够分出 {share:g} 的份额（或彼此几乎相同）",
                )
            )
    largest = int(np.bincount(plan.groups[plan.places != DROPPED]).max())
    if largest > max(2, used // 4):
        warnings.append(
            DataWarning(
                "large_group",
                f"{largest} of {used} examples nearly equal one another; they are kept in one split",
                f"{used} 条样例中有 {largest} 条彼此几乎相同；它们放在同一个划分里",
            )
        )
    if staged.dropped.total() * 10 > staged.rows_in:
        reason, count = staged.dropped.most_common(1)[0]
        dropped = staged.dropped.total()
        warnings.append(
            DataWarning(
                "many_dropped",
                f"{dropped} of {staged.rows_in} rows were dropped, most often because: {reason} ({count})",
                f"{staged.rows_in} 行中有 {dropped} 行被舍弃，最常见的原因：{in_chinese(reason)}（{count}）",
            )
        )
    return warnings


@dataclass(frozen=True)
class Mixed:
    """Rows of another dataset that are added to training."""

    staged: Staged
    name: str
    rows: np.ndarray
    """Staged rows in the order they are added; a row may be there again."""
    account: dict[str, Any]
    warnings: list[DataWarning]

    def lines(self) -> Iterator[bytes]:
        """The examples as JSON lines that name their source."""
        with self.staged.examples_path.open("rb") as file:
            for row in self.rows:
                file.seek(int(self.staged.offsets[row]))
                example = orjson.loads(file.readline())
                yield orjson.dumps(example | {"source": self.name}, option=orjson.OPT_APPEND_NEWLINE)


def _matches(held_out: Staged | None, other: Staged, name: str) -> np.ndarray:
    """Which rows of `other` equal, or nearly equal, one of `held_out`."""
    none = np.zeros(other.num_rows, np.bool_)
    if held_out is None or not other.num_rows or not held_out.num_rows:
        return none
    same: np.ndarray = np.isin(other.hashes, held_out.hashes)
    near: np.ndarray = same | _near_to(held_out, np.ones(held_out.num_rows, np.bool_), other, ~same, name)
    return near


def _stage_mix(
    recipe: Recipe, needs: Kind, name: str, path: Path, share: float, staging: Path, main: Staged, plan: Plan, before: Staged | None, reporter: Reporter
) -> Mixed:
    """Stage a mixed dataset, leave out what equals a held-out row (of this or an earlier round), and draw from the rest."""
    source = open_prepared(path, needs) if name == REPLAY else open_dataset(path, needs=needs, system=recipe.data.system)
    staged = stage(source, staging / f"mix-{len(list(staging.iterdir()))}", lambda done: reporter.progress(f"reading rows of {name}", done, None))
    is_held_out = (plan.places == VALIDATION) | (plan.places == TEST)
    is_free = first_rows(staged.hashes) == np.arange(staged.num_rows) if staged.num_rows else np.zeros(0, np.bool_)
    num_own = int(np.count_nonzero(is_free))
    is_free &= ~np.isin(staged.hashes, main.hashes[is_held_out])
    is_free &= ~_near_to(main, is_held_out, staged, is_free, "held_out")
    is_free &= ~_matches(before, staged, "earlier")
    free = np.flatnonzero(is_free)
    if not len(free):
        raise TooFewExamplesError(
            f"{path}: no row is left to mix in as {name!r}",
            why=f"{staged.rows_in} rows read, {staged.dropped.total()} dropped, {num_own} nearly equal held-out examples",
            fix=f"give another file, or remove data.mix.{name}",
        )
    wanted = round(share * plan.split.counts[TRAIN])
    order = free[np.argsort(shuffled(staged.hashes[free], recipe.seed), kind="stable")]
    rows = np.resize(order, wanted)
    repeated = max(0, wanted - len(free))
    account = {
        "share": share, "rows_in": staged.rows_in, "dropped": staged.dropped.total(), "available": len(free), "added": wanted, "repeated": repeated,
        "held_out_duplicates": num_own - len(free), "format": staged.dataset.format.type,
    }  # fmt: skip
    warnings = [DataWarning(one.kind, f"{name}: {one.en}", f"{name}：{one.zh}") for one in staged.dataset.warnings]
    if repeated:
        warnings.append(
            DataWarning(
                "mix_repeated",
                f"{name}: {wanted} examples were asked for and {len(free)} are there; {repeated} are repetitions",
                f"{name}：要混入 {wanted} 条，只有 {len(free)} 条；其中 {repeated} 条是重复的",
            )
        )
    if not wanted:
        count = plan.split.counts[TRAIN]
        warnings.append(
            DataWarning(
                "mix_empty",
                f"{name}: a share of {share:g} of {count} training examples is no whole example; none is mixed in",
                f"{name}：{count} 条训练样例的 {share:g} 不足一条；没有混入",
            )
        )
    return Mixed(staged, name, rows, account, warnings)


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


def _describe(path: Path) -> dict[str, Any]:
    open_source(path)
    stat = path.stat()
    return {"name": path.name, "num_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": ""}


def _identify(source: dict[str, Any], path: Path, known: Accounting | None, name: str) -> int:
    """Fill in the file's hash, known if its size and time are; return its number of lines (0 when unknown)."""
    before = {} if known is None else known.source if not name else known.mix.get(name, {}).get("source", {})
    if all(before.get(field) == source[field] for field in ("num_bytes", "mtime_ns")):
        source["sha256"] = before["sha256"]
        return 0
    source["sha256"], num_lines = hash_file(path)
    return num_lines


def _total(dataset: Path, num_lines: int) -> int | None:
    return num_lines if dataset.suffix.lower() in (".jsonl", ".csv", ".tsv") and num_lines else None


def _key(recipe: Recipe, sources: dict[str, dict[str, Any]]) -> str:
    """Hash of everything that determines the result."""
    parts = [__version__, recipe.objective.needs, recipe.seed, recipe.data.model_dump(mode="json", exclude={"max_seq_len", "truncation"})]
    parts += [[name, source["sha256"]] for name, source in sources.items()]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _known(folder: Path) -> Accounting | None:
    """The account of an earlier call, if its files are all there."""
    path = folder / "accounting.json"
    if not all((folder / f"{name}.jsonl").exists() for name in (*NAMES, "dropped")) or not path.exists():
        return None
    value = read_json(path)
    return Accounting.from_dict(value) if value.get("key") else None
