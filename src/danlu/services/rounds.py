"""Use case: one more round on new data, from the weights of an earlier run, with some of its rows so that they are not forgotten.

What any earlier round held out is never trained on, and is measured again: the proof says what this round gained on its
own rows and what it lost on those of the rounds before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from danlu.errors import ModelError, NoEffectError, RunNotFoundError
from danlu.files import atomic_open, read_json, read_jsonl
from danlu.recipe.load import parse_override, validate, with_settings
from danlu.recipe.recipe import Recipe
from danlu.run_dir import RunDir
from danlu.services import machine
from danlu.settings import Settings

EARLIER = "earlier.jsonl"
"""In the data folder: rows that earlier rounds held out, each with its round and split."""


def next_recipe(name: str, *, dataset: str, replay: float, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a round on `dataset` that goes on from the run `name`, replaying a share of its training rows.

    Raises:
        RunNotFoundError: there is no such run, or it has not finished training.
    """
    run_dir = find_run(name)
    earlier = validate(read_json(run_dir.recipe), source=str(run_dir.recipe))
    values: dict[str, Any] = dict(run_dir.read_record()["written"])
    values["method"] = earlier.to_dict()["method"]
    own = dict.fromkeys(("column", "validation_dataset", "test_dataset"))  # they belong to the data of the round before
    values["data"] = {**values["data"], "format": "auto", "split": {**values["data"]["split"], **own}}
    settings: dict[str, Any] = {"dataset": dataset, "start_from": str(run_dir.path)}
    if replay:
        settings["data.replay"] = {"run": str(run_dir.path), "share": replay}
    else:
        values["data"]["replay"] = None
    recipe = with_settings(validate({**values, "start_from": str(run_dir.path)}, source=f"the recipe of {run_dir.id}"), settings)
    for override in overrides:
        path, _, _ = override.partition("=")
        value: Any = parse_override(override)
        for key in path.strip().lstrip("-").split("."):
            value = value[key]
        recipe = with_settings(recipe, {path.strip().lstrip("-"): value})
    return recipe


def find_run(name: str) -> RunDir:
    """A run that has finished training.

    Raises:
        RunNotFoundError: there is none of that name, or it has not come that far.
    """
    run_dir = RunDir.open(name, Settings.from_environment().runs_dir)
    if not (run_dir.path / "training.json").exists():
        raise RunNotFoundError(
            f"run {run_dir.id} has not finished training", why="there are no weights to go on from", fix=f"finish it first: danlu resume {run_dir.id}"
        )
    return run_dir


def find_start(written: Recipe, paths: Mapping[str, str], base_dir: Path) -> dict[str, Any] | None:
    """Where training starts from, for the record: folder and checksum of the weights; None when it starts from the base model.

    Raises:
        ModelError: the weights belong to another base model, or have another vocabulary.
        NoEffectError: they are of another kind than the method's.
    """
    from danlu.models.adapters import check_base, is_adapter, weights_sha256

    if written.start_from is None:
        return None
    name = paths.get(written.start_from, written.start_from)
    base_sha256 = machine.weights_digest(base_dir)
    if is_adapter(Path(name)):
        folder, run_id = Path(name).resolve(), None
    else:
        run_dir = find_run(name)
        recorded = run_dir.read_record()["base_model"]
        if recorded["sha256"] != base_sha256:
            raise ModelError(
                f"run {run_dir.id} was trained on another base model",
                why=f"it has {recorded['name']}, whose weights have another checksum than those of {written.base_model}",
                fix=f"set base_model to {recorded['name']}",
            )
        folder, run_id = (run_dir.adapter if run_dir.adapter.exists() else run_dir.model), run_dir.id
    if is_adapter(folder) != written.method.makes_adapter:
        kind = "an adapter" if is_adapter(folder) else "a whole model"
        raise NoEffectError(
            f"method {written.method.type} cannot start from {folder}",
            why=f"it holds {kind}",
            fix="use the method it was trained with, or give the whole model as base_model",
        )
    if written.method.makes_adapter:
        check_base(folder, base_dir, base_sha256, new_tokens=written.data.new_tokens)
    return {"folder": str(folder), "run": run_id, "sha256": weights_sha256(folder)}


def check_start(run_dir: RunDir) -> None:
    """Refuse to go on when the weights a run starts from have gone or are others now.

    Raises:
        ModelError: they are not those of the record.
    """
    from danlu.models.adapters import weights_sha256

    start = run_dir.read_record().get("start")
    if start and (not Path(start["folder"]).is_dir() or weights_sha256(Path(start["folder"])) != start["sha256"]):
        raise ModelError(
            f"the weights this run starts from are not in {start['folder']} any more",
            why="they are missing, or have another checksum",
            fix="restore the folder, or start a new run",
        )


def gather_earlier(written: Recipe, paths: Mapping[str, str], run_dir: RunDir) -> tuple[Path | None, Path | None]:
    """Copy what earlier rounds held out into the run's data folder; return the replayed rows' file and that copy.

    Raises:
        NoEffectError: the earlier run's examples are of another kind.
    """
    names = {written.start_from, written.data.replay.run if written.data.replay else None} - {None}
    found = [RunDir.open(name, Settings.from_environment().runs_dir) for name in sorted(paths.get(str(name), str(name)) for name in names) if _is_run(name)]
    if not found:
        return None, None
    for one in found:
        needs = validate(read_json(one.recipe), source=str(one.recipe)).objective.needs
        if needs != written.objective.needs:
            raise NoEffectError(
                f"run {one.id} was trained on {needs} examples, and objective {written.objective.type} needs {written.objective.needs}",
                why="what it held out cannot be measured, and its rows cannot be trained on",
                fix=f"give the adapter folder instead of the run: start_from={one.adapter}",
            )
    earlier = run_dir.data / EARLIER
    with atomic_open(earlier) as file:
        for row in _held_out(found):
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    replay = written.data.replay
    return (find_run(paths.get(replay.run, replay.run)).data / "train.jsonl" if replay else None), earlier


def _is_run(name: str) -> bool:
    return (Path(name) / "run.json").is_file()


def _held_out(found: Sequence[RunDir]) -> Iterator[dict[str, Any]]:
    """Held-out rows of these runs and of the rounds before them, each once."""
    seen: set[str] = set()
    for run_dir in found:
        rows = [{"round": run_dir.id, "split": split, **row} for split in ("validation", "test") for row in read_jsonl(run_dir.data / f"{split}.jsonl")]
        for row in [*rows, *read_jsonl(run_dir.data / EARLIER)]:
            key = orjson.dumps({k: v for k, v in row.items() if k != "line"}).decode()
            if key not in seen:
                seen.add(key)
                yield row
