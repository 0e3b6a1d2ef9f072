"""The data stage as a program: a user's file in, clean, accounted and split examples out. Knows nothing of tokens.

Two passes: the first stages clean examples on disk (see staging.py), then duplicates and splits are told from their
hashes, and the second copies each example to its split. Memory is bounded by a few hundred bytes a row.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson

from danlu import __version__
from danlu.data.accounting import Accounting, DataWarning
from danlu.data.convert import examples, open_dataset, open_prepared
from danlu.data.duplicates import NUM_BANDS, first_rows
from danlu.data.examples import Kind
from danlu.data.mix import LEAKED, Beside, leak_warning, matches_any, stage_given, stage_mix
from danlu.data.reasons import count_reasons, in_chinese
from danlu.data.sources import hash_file, open_source
from danlu.data.split import NAMES, TEST, TRAIN, VALIDATION, Split, split_rows, straddling
from danlu.data.staging import Staged, stage
from danlu.errors import TooFewExamplesError
from danlu.files import atomic_open, read_json, storage_errors, write_json
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir

__all__ = ["examples", "prepare"]

DROPPED = -1
REPLAY, EARLIER, GIVEN = "replay", "earlier rounds", "given as "
"""Names of the inputs that are no files mixed in; the last is followed by the split."""
BARRED = "held out by an earlier round"


def prepare(
    recipe: Recipe,
    run_dir: RunDir,
    reporter: Reporter,
    *,
    dataset: Path,
    mix: Mapping[str, Path],
    given: Mapping[str, Path] = MappingProxyType({}),
    replay: Path | None = None,
    earlier: Path | None = None,
) -> Accounting:
    """Write train, validation and test .jsonl, dropped.jsonl and accounting.json into the run's data folder.

    `mix` gives the file of each name in `recipe.data.mix`, `given` that of each split in `recipe.data.split.datasets`, `replay` the
    training rows of the run in `recipe.data.replay`, and `earlier` the rows that earlier rounds held out: no held-out row, nor a near
    duplicate of one, is trained on. Does nothing when it has been done with the same input.

    Raises:
        DataError: a file cannot be read, or does not say what `data.split.column` shall say.
        FormatError: its format cannot be told, or does not fit the objective.
        TooFewExamplesError: nothing is left to train on.
    """
    needs: Kind = recipe.objective.needs  # type: ignore[assignment]
    splits = {split: f"{GIVEN}{split}" for split in given}
    paths = {"": dataset, **mix} | {splits[split]: path for split, path in given.items()}
    paths |= {name: path for name, path in ((REPLAY, replay), (EARLIER, earlier)) if path is not None}
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
        column = recipe.data.split.column
        source = open_dataset(dataset, format=recipe.data.format, needs=needs, system=recipe.data.system, split_column=column)
        staged = stage(source, staging / "main", lambda done: reporter.progress("reading rows", done, max(total, done) if total else None))
        before = [] if earlier is None else [stage(open_prepared(earlier, needs), staging / "earlier", lambda done: None)]
        beside = stage_given(recipe, needs, given, staging, reporter)
        held_out = [one.staged for one in beside.values()]
        plan = _plan(recipe, staged, dataset, reporter, matches_any(before, staged, "earlier"), matches_any(held_out, staged, "given"))
        is_held_out, num_train = (plan.places == VALIDATION) | (plan.places == TEST), plan.split.counts[TRAIN]
        others = {name: (open_dataset(path, needs=needs, system=recipe.data.system), recipe.data.mix[name]) for name, path in mix.items()}
        if replay is not None and recipe.data.replay is not None:
            others[REPLAY] = (open_prepared(replay, needs), recipe.data.replay.share)
        mixed = {
            name: stage_mix(recipe, needs, name, *other, staging, (staged, is_held_out), num_train, [*before, *held_out], reporter)
            for name, other in others.items()
        }
        accounting = _write(recipe, run_dir.data, staged, plan, mixed, beside, sources)
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
    leaked: np.ndarray
    """Whether it equals, or nearly equals, a row that the data holds out."""
    split: Split


def _plan(recipe: Recipe, staged: Staged, dataset: Path, reporter: Reporter, barred: np.ndarray, leaked: np.ndarray) -> Plan:
    order = np.arange(staged.num_rows)
    original = first_rows(staged.hashes) if staged.num_rows else np.zeros(0, np.int64)
    groups = staged.near.groups(original == order, staged.read_near_texts, lambda done: reporter.progress("comparing examples", done, NUM_BANDS))
    if staged.told is not None:
        leaked = leaked | straddling(staged.told, groups[original])
    original, groups = _among(~leaked, original, groups[original])
    is_first = ~leaked & (original == order)
    is_used = is_first & (groups == order) if recipe.data.near_duplicates == "drop" else is_first
    is_used = is_used & ~barred
    rows = np.flatnonzero(is_used)
    split = _split(recipe, staged, rows, groups)
    if not split.counts[TRAIN]:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in (staged.dropped + Counter({LEAKED: int(leaked.sum())})).most_common(3))
        raise TooFewExamplesError(
            f"{dataset}: no example is left to train on",
            why=f"{staged.rows_in} rows read as {staged.dataset.format.type}; dropped: {reasons or 'none'}",
            fix="correct the rows, or set data.format if the columns were taken wrongly",
        )
    places = np.full(staged.num_rows, DROPPED, np.int8)
    places[rows] = split.places
    return Plan(places, original, groups, barred & is_first, leaked, split)


def _among(is_in: np.ndarray, original: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row the first one with the same content, and, of such, the first of its group, both among the rows that are in."""
    firsts, groups = np.arange(len(original)), np.arange(len(original))
    rows = np.flatnonzero(is_in)
    if len(rows):
        firsts[rows] = rows[first_rows(original[rows])]
        rows = rows[firsts[rows] == rows]
        groups[rows] = rows[first_rows(labels[rows])]
    return firsts, groups


def _split(recipe: Recipe, staged: Staged, rows: np.ndarray, groups: np.ndarray) -> Split:
    """Where each of `rows` goes: where the data puts it, else as the shares say."""
    wanted = recipe.data.split
    places = np.zeros(len(rows), np.int8) if staged.told is None else staged.told[rows].copy()
    drawn = np.flatnonzero(places == TRAIN)
    shares = {name: 0.0 if _is_given(recipe, staged, name) else getattr(wanted, name) for name in ("validation", "test")}
    largest = 1.0 if wanted.max_examples is None else wanted.max_examples / max(1, len(drawn))
    found = split_rows(
        staged.hashes[rows[drawn]], groups[rows[drawn]], validation=min(shares["validation"], largest), test=min(shares["test"], largest), seed=recipe.seed
    )
    places[drawn] = found.places
    counts = np.bincount(places, minlength=3)
    return Split(places, (int(counts[TRAIN]), int(counts[VALIDATION]), int(counts[TEST])))


def _is_given(recipe: Recipe, staged: Staged, split: str) -> bool:
    """Whether the data says itself what is in that split."""
    is_told = staged.told is not None and bool((staged.told == NAMES.index(split)).any())
    return is_told or split in recipe.data.split.datasets


def _write(
    recipe: Recipe, folder: Path, staged: Staged, plan: Plan, mixed: dict[str, Beside], beside: dict[str, Beside], sources: dict[str, dict[str, Any]]
) -> Accounting:
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
            elif plan.leaked[row]:
                staged.dropped[LEAKED] += 1
                dropped.write(_entry(int(staged.lines[row]), "dropped", LEAKED))
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
        for place, one in [*((TRAIN, one) for one in mixed.values()), *((NAMES.index(split), one) for split, one in beside.items())]:
            files[place].writelines(one.lines())
        for one in beside.values():
            dropped.writelines(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE) for entry in one.entries())
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
        given={split: one.account | {"source": sources[f"{GIVEN}{split}"]} for split, one in beside.items()},
        warnings=[
            *staged.dataset.warnings,
            *_split_warnings(recipe, staged, plan),
            *(warning for one in (*beside.values(), *mixed.values()) for warning in one.warnings),
        ],
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
        if (share or _is_given(recipe, staged, name)) and name not in shares.datasets and not plan.split.counts[place]:
            warnings.append(
                DataWarning(
                    "empty_split",
                    f"the {name} split is empty: {used} examples are too few for a share of {share:g} (or nearly equal one another)",
                    f"{chinese}集为空：{used} 条样例不够分出 {share:g} 的份额（或彼此几乎相同）",
                )
            )
    if plan.leaked.any():
        warnings.append(leak_warning(int(plan.leaked.sum()), recipe.dataset, int(staged.lines[np.flatnonzero(plan.leaked)[0]])))
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


def _describe(path: Path) -> dict[str, Any]:
    open_source(path)
    stat = path.stat()
    return {"name": path.name, "num_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": ""}


def _identify(source: dict[str, Any], path: Path, known: Accounting | None, name: str) -> int:
    """Fill in the file's hash, known if its size and time are; return its number of lines (0 when unknown)."""
    others = {} if known is None else {**known.mix, **{f"{GIVEN}{split}": one for split, one in known.given.items()}}
    before = known.source if known is not None and not name else others.get(name, {}).get("source", {})
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
