"""The token files of a run: all made at once, or, of many rows, those of training while training goes on.

What is made later is announced by a sample, which forecast and coach read until the whole is there. An example that
tokenising drops then keeps its place, empty, because order and steps are drawn before it is known.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from danlu.data.encode import EncodeAccount, encode_to_file
from danlu.data.pack import TokenFile
from danlu.files import atomic_open, read_json, read_jsonl, write_json
from danlu.run_dir import RunDir

if TYPE_CHECKING:
    from danlu.data.chat import ChatRenderer
    from danlu.recipe.recipe import Recipe

Progress = Callable[[str, int], None]
SPLITS = ("train", "validation", "test")
MAX_AT_ONCE = 20_000
"""So many training examples are tokenised before training begins: some seconds."""
SAMPLE = 2000
"""Examples that stand for all of them until all are tokenised."""
MAX_DROPPED_SHARE = 0.1
"""Where tokenising drops more of the sample, it is done before training begins: too many places would stay empty."""


def tokenise(
    recipe: Recipe,
    run_dir: RunDir,
    renderer: ChatRenderer,
    *,
    splits: tuple[str, ...] = SPLITS,
    keeps_places: bool = False,
    progress: Progress = lambda split, done: None,
) -> None:
    """Write the token files of `splits`, then what that shortened or dropped to tokenised.jsonl, then the counts to encoded.json.

    Entries and counts of other splits stay.
    """
    notes, counts = run_dir.data / "tokenised.jsonl", run_dir.data / "encoded.json"
    others = [entry for entry in read_jsonl(notes) if entry["split"] not in splits] if splits != SPLITS else []
    summary = _encoded(run_dir) if splits != SPLITS else {}
    with atomic_open(notes) as file:
        for split in SPLITS:
            if split in splits:
                account = _encode(recipe, run_dir, renderer, split, file.write, progress, keeps_places=keeps_places)
                summary[split] = counts_of(account)
            else:
                file.writelines(orjson.dumps(entry) + b"\n" for entry in others if entry["split"] == split)
    write_json(counts, {split: summary[split] for split in SPLITS if split in summary})


def _encode(
    recipe: Recipe, run_dir: RunDir, renderer: ChatRenderer, split: str, write: Callable[[bytes], Any], progress: Progress, *, keeps_places: bool
) -> EncodeAccount:
    return encode_to_file(
        read_jsonl(run_dir.data / f"{split}.jsonl"),
        run_dir.data / f"{split}.tokens",
        objective=recipe.objective,
        renderer=renderer,
        max_seq_len=int(recipe.data.max_seq_len),
        truncation=recipe.data.truncation,
        note=lambda entry: write(orjson.dumps({"split": split, **entry}) + b"\n"),
        progress=lambda done: progress(split, done),
        keeps_places=keeps_places,
    )


def counts_of(account: EncodeAccount) -> dict[str, int]:
    """What encoded.json says of one split."""
    return {"num_examples": account.num_examples, "num_tokens": account.num_tokens, "truncated": account.num_truncated, "dropped": account.num_dropped}


def tokenise_a_sample(recipe: Recipe, run_dir: RunDir, renderer: ChatRenderer, num_rows: int) -> bool:
    """Leave the training split for later, with a sample of it; return False, and leave nothing, where all has to be tokenised at once."""
    forget_sample(run_dir)
    if num_rows <= MAX_AT_ONCE or not can_wait(recipe):
        return False
    wanted = {number * num_rows // SAMPLE for number in range(SAMPLE)}
    account = encode_to_file(
        _rows_at(run_dir.data / "train.jsonl", wanted),
        _sample(run_dir),
        objective=recipe.objective,
        renderer=renderer,
        max_seq_len=int(recipe.data.max_seq_len),
        truncation=recipe.data.truncation,
        note=lambda entry: None,
        keeps_places=True,
    )
    if account.num_dropped > MAX_DROPPED_SHARE * len(wanted):
        forget_sample(run_dir)
        return False
    for name in ("tokenised.jsonl", "encoded.json"):  # of an attempt that was killed
        (run_dir.data / name).unlink(missing_ok=True)
    write_json(_sample_counts(run_dir), {"num_rows": num_rows, "num_sampled": len(wanted), **counts_of(account)})
    return True


def _rows_at(path: Path, numbers: set[int]) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        yield from (orjson.loads(line) for number, line in enumerate(file) if number in numbers)


def can_wait(recipe: Recipe) -> bool:
    """Whether each example gives its sequences by itself, always as many, and is asked for by no one before its step."""
    objective = recipe.objective
    return not (objective.needs == "text" or hasattr(objective, "arrange") or objective.has_reference or objective.is_online)


def _sample(run_dir: RunDir) -> Path:
    return run_dir.data / "sample.tokens"


def _sample_counts(run_dir: RunDir) -> Path:
    return run_dir.data / "sample.json"


def has_sample(run_dir: RunDir) -> bool:
    """Whether the training split was left for later and is not, or was not until now, complete."""
    return _sample_counts(run_dir).exists()


def forget_sample(run_dir: RunDir) -> None:
    """Remove the sample: the whole is there, or is made at once."""
    _sample_counts(run_dir).unlink(missing_ok=True)
    shutil.rmtree(_sample(run_dir), ignore_errors=True)


def is_complete(run_dir: RunDir) -> bool:
    """Whether the token file of the training split is whole and accounted for."""
    return not has_sample(run_dir) or "train" in _encoded(run_dir)


def _encoded(run_dir: RunDir) -> dict[str, Any]:
    path = run_dir.data / "encoded.json"
    return dict(read_json(path)) if path.exists() else {}


def train_tokens(run_dir: RunDir) -> TokenFile:
    """The token file of the training split, or its sample while that is all there is."""
    return TokenFile(run_dir.data / "train.tokens" if is_complete(run_dir) else _sample(run_dir))


def train_counts(run_dir: RunDir) -> dict[str, Any]:
    """What encoded.json says of the training split; before it does, the same from the sample, with `num_rows`. Empty before either is there."""
    encoded = _encoded(run_dir)
    if "train" in encoded or not has_sample(run_dir):
        return dict(encoded.get("train", {}))
    sample = read_json(_sample_counts(run_dir))
    scale = sample["num_rows"] / sample["num_sampled"]
    return {key: round(sample[key] * scale) for key in ("num_examples", "num_tokens", "truncated", "dropped")} | {"num_rows": sample["num_rows"]}
