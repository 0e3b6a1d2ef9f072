"""Use cases on runs: start or continue one, find it, read its report. Composes the stages; every door calls these."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import danlu
from danlu import bundled
from danlu.errors import DataError, NoEffectError, RunNotFoundError, TooFewExamplesError
from danlu.files import read_json, read_jsonl, write_bytes, write_json
from danlu.recipe.recipe import Recipe
from danlu.recipe.recommend import Facts, Reason, resolve
from danlu.reporter import Listener, Reporter
from danlu.run_dir import RunDir
from danlu.settings import Settings

if TYPE_CHECKING:
    from danlu.data.chat import ChatRenderer
    from danlu.models.catalogue import BaseModel

SPLITS = ("train", "validation", "test")
LENGTH_PROBE_EXAMPLES = 2000


@dataclass(frozen=True)
class RunResult:
    """How a call of `run` ended."""

    run_dir: RunDir
    outcome: str
    """`finished` or `paused`."""
    report: dict[str, Any] | None
    """Content of report.json when finished."""


def run(written: Recipe, *, run_dir: Path | None = None, new: bool = False, listeners: Iterable[Listener] = ()) -> RunResult:
    """Carry out `written` from data to report and exports, or go on with the unfinished run of the same recipe.

    Every stage leaves its results in the run folder and is skipped when they are there, so a run that was killed
    at any instant goes on where it was.
    """
    found = RunDir.create(run_dir) if run_dir is not None else _unfinished_run(written, new) or _new_run_dir(written)
    with found.lock():
        reporter = Reporter(found, *listeners)
        _claim(found, written)
        started = time.time()
        outcome = _stages(written, found, reporter)
        record = found.read_record()
        found.update_record(state=outcome, wall_seconds=round(record.get("wall_seconds", 0.0) + time.time() - started, 2))
        if outcome == "paused":
            return RunResult(found, outcome, None)
        from danlu.evaluation.report import build

        return RunResult(found, outcome, build(_resolved(found), found))


def resume(name: str, listeners: Iterable[Listener] = ()) -> RunResult:
    """Go on with the run `name` (id, folder or `last`)."""
    run_dir = open_run(name)
    return run(Recipe.model_validate(run_dir.read_record()["written"]), run_dir=run_dir.path, listeners=listeners)


def list_runs(settings: Settings | None = None) -> list[dict[str, Any]]:
    """Runs of this home, newest first: id, state, dataset, base model, verdict."""
    rows = []
    for record_path in (settings or Settings.from_environment()).runs_dir.glob("*/run.json"):
        run_dir = RunDir(record_path.parent)
        record = run_dir.read_record()
        report = read_json(run_dir.report_json) if run_dir.report_json.exists() else {}
        written = record.get("written", {})
        rows.append(
            {
                "id": run_dir.id,
                "state": record.get("state", "unknown"),
                "created": record.get("created", 0.0),
                "dataset": written.get("dataset"),
                "base_model": written.get("base_model"),
                "verdict": (report.get("verdict") or {}).get("label"),
            }
        )
    return sorted(rows, key=lambda row: row["created"], reverse=True)


def open_run(name: str) -> RunDir:
    """Find a run by id, folder or `last`."""
    return RunDir.open(name, Settings.from_environment().runs_dir)


def report(name: str) -> tuple[RunDir, dict[str, Any]]:
    """Build the report of a run again from its files, and return it."""
    from danlu.evaluation.report import build

    run_dir = open_run(name)
    return run_dir, build(_resolved(run_dir), run_dir)


def _stages(written: Recipe, run_dir: RunDir, reporter: Reporter) -> str:
    from danlu.models.catalogue import find_base_model

    run_dir.update_record(state="running", environment=environment())
    dataset, mix = find_dataset(written.dataset), {name: find_dataset(name) for name in written.data.mix}
    base = find_base_model(written.base_model)
    _stage(run_dir, reporter, "data", lambda: _prepare(written, run_dir, reporter, dataset, mix, base))
    recipe = _resolved(run_dir)
    outcome = _stage(run_dir, reporter, "training", lambda: _train(recipe, run_dir, reporter, base))
    if outcome == "paused":
        return "paused"
    _stage(run_dir, reporter, "evaluation", lambda: _evaluate(recipe, run_dir, reporter, base))
    for exporter in recipe.export:
        from danlu.services.exports import export

        _stage(run_dir, reporter, f"export_{exporter.type}", lambda exporter=exporter: export(run_dir, exporter.type, reporter))
    return "finished"


def _stage(run_dir: RunDir, reporter: Reporter, name: str, work: Callable[[], Any]) -> Any:
    """Run one stage and add its wall time to run.json (a stage that was killed adds what its later attempt took)."""
    start = time.time()
    result = work()
    timing = run_dir.read_record().get("timing", {})
    timing[f"{name}_seconds"] = round(timing.get(f"{name}_seconds", 0.0) + time.time() - start, 2)
    run_dir.update_record(timing=timing)
    return result


def find_dataset(name: str) -> Path:
    """File of a dataset: a path, or a bundled name such as `danlu/zhangjiajie`.

    Raises:
        DataError: there is none.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    found = bundled.dataset_path(name)
    if found is not None:
        return found
    raise DataError(
        f"there is no data file {name!r}",
        why=f"it is neither a file here ({Path.cwd()}) nor a bundled dataset ({', '.join(bundled.example_names())})",
        fix="check the path",
    )


def _prepare(written: Recipe, run_dir: RunDir, reporter: Reporter, dataset: Path, mix: Mapping[str, Path], base: BaseModel) -> None:
    """Data stage: clean and split the file, fill in what the recipe left `auto`, tokenise."""
    done = run_dir.data / "encoded.json"
    if done.exists() and run_dir.recipe.exists():
        return
    from danlu.data.chat import ChatRenderer
    from danlu.data.prepare import prepare
    from danlu.models.load import check_model_dir, load_tokenizer

    reporter.stage("data")
    accounting = prepare(written, run_dir, reporter, dataset=dataset, mix=mix)
    for warning in accounting.warnings:
        reporter.event("warning", str(warning))
    config = check_model_dir(base.folder, needs_weights=getattr(written.method, "init", "pretrained") != "random")
    renderer = ChatRenderer(load_tokenizer(base.folder))
    if renderer.uses_default_template and written.objective.needs == "messages":
        reporter.event("default_template", "the tokenizer has no chat template: the documented default (User: / Assistant:) is used and stored with the result")
    recipe, reasons = resolve(written, _facts(written, run_dir, renderer, config, base, accounting.format))
    _check_lengths(recipe, config)
    _encode(recipe, run_dir, reporter, renderer)
    run_dir.update_record(
        reasons=[asdict(reason) for reason in reasons],
        base_model={"name": base.name, "folder": str(base.folder), "revision": base.revision, "licence": base.licence, "sha256": _weights_digest(base.folder)},
        fingerprint=recipe.fingerprint,
    )
    for reason in reasons:
        reporter.event("recommended", f"{reason.path} = {reason.value}: {reason.en}", **asdict(reason))
    write_json(run_dir.recipe, recipe.to_dict())


def _facts(written: Recipe, run_dir: RunDir, renderer: ChatRenderer, config: dict[str, Any], base: BaseModel, detected_format: str) -> Facts:
    """Measure what the recommendations need: token lengths of the first examples, model size, machine."""
    config = config.get("text_config", config)
    model_max = int(config.get("max_position_embeddings") or config.get("n_positions") or 2048)
    with_text_key = written.objective.needs == "text"
    sample = list(islice(read_jsonl(run_dir.data / "train.jsonl"), LENGTH_PROBE_EXAMPLES))
    num_train = sum(1 for _ in (run_dir.data / "train.jsonl").open("rb"))
    if not sample:
        raise TooFewExamplesError("no example is left to train on", why="every row was dropped; data/dropped.jsonl in the run folder names each with its reason", fix="correct the data file")
    lengths = []
    for example in sample:
        blocks = written.objective.encode([example], renderer, model_max)[0]  # type: ignore[attr-defined]
        lengths.extend(len(block.ids) for block in blocks)
    if with_text_key:
        num_train = max(1, round(num_train * len(lengths) / len(sample)))
    gpu, bfloat16 = _gpu()
    return Facts(
        num_train=num_train,
        length_p50=int(np.quantile(lengths, 0.5)),
        length_p995=int(np.quantile(lengths, 0.995)),
        length_max=max(lengths),
        model_max_seq_len=model_max,
        hidden_size=int(config.get("hidden_size") or config.get("n_embd") or 768),
        num_parameters=sum(file.stat().st_size for file in base.folder.glob("*.safetensors")) // 2,
        available_memory_bytes=_available_memory_bytes(),
        has_gpu=gpu,
        has_bfloat16=bfloat16,
        detected_format=detected_format,
    )


def _check_lengths(recipe: Recipe, config: dict[str, Any]) -> None:
    limit = config.get("text_config", config).get("max_position_embeddings") or config.get("n_positions")
    if limit and int(recipe.data.max_seq_len) > int(limit):
        raise NoEffectError(f"data.max_seq_len {recipe.data.max_seq_len} is more than the model can read ({limit})", why="positions beyond it were never trained", fix=f"set data.max_seq_len to {limit} or less")


def _encode(recipe: Recipe, run_dir: RunDir, reporter: Reporter, renderer: ChatRenderer) -> None:
    """Tokenise every split and write what that shortened or dropped beside the data accounting."""
    from danlu.data.encode import encode_to_file

    summary: dict[str, Any] = {}
    lines = []
    for split in SPLITS:
        account = encode_to_file(
            read_jsonl(run_dir.data / f"{split}.jsonl"),
            run_dir.data / f"{split}.tokens",
            objective=recipe.objective,
            renderer=renderer,
            max_seq_len=int(recipe.data.max_seq_len),
            truncation=recipe.data.truncation,
            progress=lambda done, split=split: reporter.progress(f"tokenising {split}", done, None),
        )
        summary[split] = {"num_examples": account.num_examples, "num_tokens": account.num_tokens, "truncated": len(account.truncated), "dropped": len(account.dropped)}
        lines += [{"split": split, "action": action, **entry} for action, entries in (("truncated", account.truncated), ("dropped", account.dropped)) for entry in entries]
    if summary["train"]["num_examples"] == 0:
        raise TooFewExamplesError("no example is left to train on after tokenising", why=lines[0]["reason"] if lines else "the training split is empty", fix="raise data.max_seq_len, or correct the data")
    from danlu.files import atomic_open

    with atomic_open(run_dir.data / "tokenised.jsonl") as file:
        import orjson

        for line in lines:
            file.write(orjson.dumps(line) + b"\n")
    write_json(run_dir.data / "encoded.json", summary)


def _train(recipe: Recipe, run_dir: RunDir, reporter: Reporter, base: BaseModel) -> str:
    from danlu.training.run import run as train

    return train(recipe, run_dir, reporter, model_dir=base.folder, device=device())


def _evaluate(recipe: Recipe, run_dir: RunDir, reporter: Reporter, base: BaseModel) -> None:
    if not recipe.evaluation.suites or getattr(recipe.method, "init", "pretrained") == "random":
        return
    import functools

    from danlu.evaluation.run import run as evaluate
    from danlu.training.forward import score_examples

    score = functools.partial(score_examples, micro_batch_tokens=int(recipe.optim.micro_batch_tokens), device=device(), path=recipe.training.path)
    evaluate(recipe, run_dir, reporter, pair=open_pair(run_dir, recipe, base.folder), score=score, device=device())


def open_pair(run_dir: RunDir, recipe: Recipe, base_dir: Path) -> Any:
    """The base and tuned model of a finished run."""
    import torch

    from danlu.models.pair import ModelPair

    tuned = {"adapter_dir": run_dir.adapter} if recipe.method.makes_adapter else {"model_dir": run_dir.model}
    return ModelPair(base_dir, **tuned, dtype=getattr(torch, str(recipe.training.dtype)), device=device())


def base_folder(run_dir: RunDir) -> Path:
    """Folder of the base model a run was made from, checked to be unchanged."""
    from danlu.errors import ModelError

    recorded = run_dir.read_record().get("base_model", {})
    folder = Path(recorded.get("folder", ""))
    if not folder.is_dir():
        from danlu.models.catalogue import find_base_model

        folder = find_base_model(str(recorded.get("name", _resolved(run_dir).base_model))).folder
    if recorded.get("sha256") and _weights_digest(folder) != recorded["sha256"]:
        raise ModelError(f"the base model in {folder} is not the one this run was made from", why="its weights have another checksum", fix="restore the old folder, or train again on the new one")
    return folder


def _resolved(run_dir: RunDir) -> Recipe:
    return Recipe.model_validate(read_json(run_dir.recipe))


def _claim(run_dir: RunDir, written: Recipe) -> None:
    """Store the written recipe; refuse a folder that belongs to another one."""
    record = run_dir.read_record()
    if record and record.get("written") != written.to_dict():
        raise NoEffectError(
            f"{run_dir.path} belongs to a run with another recipe",
            why="its data and checkpoints do not fit the recipe given now",
            fix="choose another --run-dir, or repeat the command the run was started with",
        )
    if not record:
        write_json(run_dir.record, {"written": written.to_dict(), "created": time.time(), "state": "created"})


def _unfinished_run(written: Recipe, new: bool) -> RunDir | None:
    if new:
        return None
    for record_path in sorted(Settings.from_environment().runs_dir.glob("*/run.json"), reverse=True):
        run_dir = RunDir(record_path.parent)
        record = run_dir.read_record()
        if record.get("state") != "finished" and record.get("written") == written.to_dict():
            return run_dir
    return None


def _new_run_dir(written: Recipe) -> RunDir:
    stem = re.sub(r"[^\w-]+", "-", Path(written.dataset).name.split(".")[0])[:40] or "run"
    runs = Settings.from_environment().runs_dir
    base = f"{time.strftime('%Y%m%d-%H%M%S')}-{stem}"
    number = 1
    while True:
        path = runs / (base if number == 1 else f"{base}-{number}")
        if not path.exists():
            return RunDir.create(path)
        number += 1


def environment() -> dict[str, Any]:
    """Versions and hardware, for the record."""
    return {
        "danlu": danlu.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "num_cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "device": device(),
        "packages": {name: _version(name) for name in ("torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def device() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    return "cuda" if _gpu()[0] else "cpu"


def _gpu() -> tuple[bool, bool]:
    import torch

    available = torch.cuda.is_available()
    return available, bool(available and torch.cuda.is_bf16_supported())


def _available_memory_bytes() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _weights_digest(folder: Path) -> str:
    """SHA-256 over the weight files of a model folder, in name order."""
    import hashlib

    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()

