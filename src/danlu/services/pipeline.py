"""The stages of a run in their order, each skipped when its result is there: data, training, evaluation, exports."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.errors import ModelError, NoEffectError, TooFewExamplesError
from danlu.files import read_json, read_jsonl, write_json
from danlu.models.forecast import Lengths
from danlu.models.shape import ModelShape
from danlu.recipe.load import validate, with_settings
from danlu.recipe.placement import Placement
from danlu.recipe.recipe import Recipe
from danlu.recipe.recommend import Facts, recommend, resolve, with_values
from danlu.reporter import Reporter
from danlu.run_dir import RunDir
from danlu.services import forecasts, machine, processes, rounds, samples, selection, tokenising
from danlu.services.datasets import find_dataset
from danlu.settings import Settings
from danlu.training.coach import Coach

if TYPE_CHECKING:
    from danlu.data.accounting import Accounting
    from danlu.data.chat import ChatRenderer
    from danlu.models.catalogue import BaseModel

LENGTH_PROBE_EXAMPLES = 2000
ONE_PROCESS = Placement()
MIN_SEQ_LEN = 16
"""Fewest tokens `data.max_seq_len` may be."""


def carry_out(written: Recipe, run_dir: RunDir, reporter: Reporter, placement: Placement = ONE_PROCESS) -> str:
    """Run every stage that is not done; return `finished` or `paused`. `placement` says where training happens."""
    run_dir.update_record(state="running", environment=machine.environment(), placement=placement.model_dump(mode="json"))
    prepare_data(written, run_dir, reporter)
    recipe, base_dir = resolved(run_dir), base_folder(run_dir)
    coach = Coach(recipe, run_dir, reporter)
    reporter.listen(coach)
    coach.begin()
    with tokenising.beside_training(recipe, run_dir, reporter, base_dir) as finish_tokenising:
        if _timed(run_dir, "training", lambda: _train(recipe, run_dir, reporter, base_dir, placement)) == "paused":
            return "paused"
        finish_tokenising()
    _timed(run_dir, "evaluation", lambda: _evaluate(recipe, run_dir, reporter, base_dir))
    for exporter in recipe.export:
        if not (run_dir.exports / exporter.type / "verification.json").exists():
            from danlu.services.exports import export

            _timed(run_dir, f"export_{exporter.type}", functools.partial(export, run_dir, exporter.type, reporter))
    return "finished"


def prepare_data(written: Recipe, run_dir: RunDir, reporter: Reporter, *, at_once: bool = False) -> None:
    """The data stage, where it is not done: clean, split, complete the recipe, tokenise (`at_once`: also many rows, before training begins)."""
    if not run_dir.recipe.exists():
        paths = run_dir.read_record().get("paths", {})
        dataset, others, base = find_inputs(written, paths)
        run_dir.update_record(start=rounds.find_start(written, paths, base.folder))
        _timed(run_dir, "data", lambda: _prepare(written, run_dir, reporter, dataset, others, base, at_once=at_once))
    rounds.check_start(run_dir)


def find_inputs(written: Recipe, paths: Mapping[str, str] = MappingProxyType({})) -> tuple[Path, dict[str, Path], BaseModel]:
    """The data file, the mixed and the held-out ones by name, and the base model of a recipe.

    `paths` says where local names lay when the run was started, so that it goes on from any folder.

    Raises:
        DataError: there is no such data file.
        UnknownNameError: there is no such base model.
        ModelError: the hub cannot be reached or refuses.
    """
    from danlu.models.catalogue import find_base_model

    names = (*written.data.mix, *written.data.split.datasets.values())
    dataset, *others = (find_dataset(paths.get(name, name)) for name in (written.dataset, *names))
    base = replace(find_base_model(paths.get(written.base_model, written.base_model)), name=written.base_model)
    return dataset, dict(zip(names, others, strict=True)), base


def resolved(run_dir: RunDir) -> Recipe:
    """The recipe of a run with nothing left `auto`.

    Raises:
        NoEffectError: the run has not come that far.
    """
    if not run_dir.recipe.exists():
        raise NoEffectError(f"run {run_dir.id} has no resolved recipe yet", why="its data stage did not finish", fix=f"danlu resume {run_dir.id}")
    return validate(read_json(run_dir.recipe), source=str(run_dir.recipe))


def open_pair(run_dir: RunDir, recipe: Recipe, base_dir: Path, *, stacked: Sequence[Path] = ()) -> Any:
    """The base and tuned model of a finished run; with `stacked`, more adapters are active beside its own."""
    from danlu.models.device import device
    from danlu.models.pair import ModelPair

    if recipe.method.starts_anew:
        base_dir = run_dir.model  # there was no model before this one
    tuned = {"adapter_dir": run_dir.adapter} if recipe.method.makes_adapter else {"model_dir": run_dir.model}
    start = run_dir.read_record().get("start")
    return ModelPair(
        base_dir,
        **tuned,
        dtype=str(recipe.training.dtype),
        device=device(),
        quantisation=recipe.method.quantisation,
        previous_dir=Path(start["folder"]) if start else None,
        is_reward_model=recipe.objective.makes_reward_model,
        stacked=stacked,
    )


def base_folder(run_dir: RunDir) -> Path:
    """Folder of the base model a run was made from, checked to be unchanged.

    Raises:
        ModelError: it has gone, or its weights are others now.
    """
    recorded = run_dir.read_record().get("base_model", {})
    folder = Path(recorded.get("folder", ""))
    if not folder.is_dir():
        from danlu.models.catalogue import find_base_model

        folder = find_base_model(str(recorded.get("name", resolved(run_dir).base_model))).folder
    if recorded.get("sha256") and machine.weights_digest(folder) != recorded["sha256"]:
        raise ModelError(
            f"the base model in {folder} is not the one this run was made from",
            why="its weights have another checksum",
            fix="restore the old folder, or train again on the new one",
        )
    return folder


def _timed(run_dir: RunDir, name: str, work: Callable[[], Any]) -> Any:
    """Run one stage and add its wall time to run.json (a stage that was killed adds what its later attempt took)."""
    start = time.time()
    result = work()
    timing = run_dir.read_record().get("timing", {})
    timing[f"{name}_seconds"] = round(timing.get(f"{name}_seconds", 0.0) + time.time() - start, 2)
    run_dir.update_record(timing=timing)
    return result


def _prepare(written: Recipe, run_dir: RunDir, reporter: Reporter, dataset: Path, others: Mapping[str, Path], base: BaseModel, *, at_once: bool) -> None:
    """Data stage: clean and split the file, fill in what the recipe left `auto`, tokenise."""
    from danlu.data.chat import ChatRenderer
    from danlu.data.prepare import prepare
    from danlu.models.load import check_model_dir, load_tokenizer
    from danlu.models.new_tokens import add_new_tokens
    from danlu.models.quantise import require_bitsandbytes

    if written.method.quantisation is not None:
        require_bitsandbytes(f"method {written.method.type}", instead="set method.type to lora")
    if written.optim.optimizer == "adamw_8bit":
        require_bitsandbytes("optim.optimizer adamw_8bit", instead="set optim.optimizer to adamw")
    reporter.stage("data")
    config = check_model_dir(base.folder, needs_weights=not written.method.starts_anew)
    config = config.get("text_config", config)
    tokenizer = load_tokenizer(base.folder)
    add_new_tokens(tokenizer, written.data.new_tokens)
    renderer = ChatRenderer(tokenizer)
    replay, earlier = rounds.gather_earlier(written, run_dir.read_record().get("paths", {}), run_dir)
    mix = {name: others[name] for name in written.data.mix}
    given = {split: others[name] for split, name in written.data.split.datasets.items()}
    accounting = prepare(written, run_dir, reporter, dataset=dataset, mix=mix, given=given, replay=replay, earlier=earlier)
    if earlier is not None and written.start_from and not any(suite.type == "rounds" for suite in written.evaluation.suites):
        written = with_settings(written, {"evaluation.suites": [*written.to_dict()["evaluation"]["suites"], {"type": "rounds"}]})
    for warning in accounting.warnings:
        reporter.event("warning", warning.en, name=warning.kind, en=warning.en, zh=warning.zh)
    if renderer.uses_default_template and written.objective.needs == "messages":
        reporter.event("default_template", "the tokenizer has no chat template: the documented default (User: / Assistant:) is used and stored with the result")
    facts = _facts(written, run_dir, renderer, config, base, accounting)
    recipe, reasons = resolve(written, facts)
    run_dir.update_record(facts={"usual_learning_rate": _usual_learning_rate(recipe, facts), "model_max_seq_len": _model_max_seq_len(config, written)})
    _check_length(recipe, config)
    _encode(recipe, run_dir, reporter, renderer, at_once=at_once)
    for reason in reasons:
        reporter.event("recommended", f"{reason.path} = {reason.value}: {reason.en}", **asdict(reason))
    run_dir.update_record(
        reasons=[asdict(reason) for reason in reasons],
        base_model=asdict(base) | {"folder": str(base.folder), "sha256": machine.weights_digest(base.folder)},
        fingerprint=recipe.fingerprint,
    )
    write_json(run_dir.recipe, recipe.to_dict())


def _facts(written: Recipe, run_dir: RunDir, renderer: ChatRenderer, config: dict[str, Any], base: BaseModel, accounting: Accounting) -> Facts:
    """Measure what the recommendations need: token lengths of the first examples, model size, machine."""
    from danlu.models.device import gpu

    model_max = _model_max_seq_len(config, written) or 2048
    num_train, num_validation = (_num_lines(run_dir.data / f"{split}.jsonl") for split in ("train", "validation"))
    lengths: list[int] = []
    units: list[tuple[int, int]] = []
    num_probed = 0
    for example in islice(read_jsonl(run_dir.data / "train.jsonl"), LENGTH_PROBE_EXAMPLES):
        blocks = written.objective.encode([example], renderer, model_max)[0]  # type: ignore[attr-defined]
        lengths.extend(len(block.ids) for block in blocks)
        counts = [(len(block.ids), int(block.mask[1:].sum())) for block in blocks]
        units.extend(counts if written.objective.group_size == 1 else [(sum(n for n, _ in counts), sum(n for _, n in counts))])
        num_probed += 1
    if written.objective.needs == "text":  # documents are cut into blocks, and blocks are what a step counts
        num_train = max(1, round(num_train * len(lengths) / num_probed))
    has_gpu, has_bfloat16 = gpu()
    facts = Facts(
        num_train=num_train,
        length_p50=int(np.quantile(lengths, 0.5)),
        length_p995=int(np.quantile(lengths, 0.995)),
        length_max=max(lengths),
        model_max_seq_len=model_max,
        hidden_size=int(config.get("hidden_size") or config.get("n_embd") or 768),
        num_parameters=sum(file.stat().st_size for file in base.folder.glob("*.safetensors")) // 2,
        available_memory_bytes=forecasts.device().available_bytes,
        has_gpu=has_gpu,
        has_bfloat16=has_bfloat16,
        detected_format={"type": accounting.format} | accounting.columns,
        num_validation=num_validation,
    )
    try:
        shape = ModelShape.from_config(config)
    except ModelError:  # an architecture whose sizes go by other names: the defaults have to do
        return facts
    counted = Lengths([n for n, _ in units], [n for _, n in units], num_train, num_validation)
    return replace(facts, peak_bytes=functools.partial(forecasts.peak_of, shape, counted, forecasts.Device("cuda" if has_gpu else "cpu", 0)))


def _num_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _usual_learning_rate(recipe: Recipe, facts: Facts) -> float:
    """What would be recommended, whatever the recipe says: the coach compares with it."""
    reasons = recommend(with_values(recipe, {"optim.learning_rate": "auto"}), facts)
    return float(next(reason.value for reason in reasons if reason.path == "optim.learning_rate"))


def _model_max_seq_len(config: dict[str, Any], recipe: Recipe) -> int | None:
    """Tokens of an example that the model can read beside the virtual tokens of the method, where its config says so."""
    limit = config.get("max_position_embeddings") or config.get("n_positions")
    if not limit:
        return None
    room = int(limit) - recipe.method.num_extra_positions
    if room < MIN_SEQ_LEN:
        raise NoEffectError(
            f"method.num_virtual_tokens {recipe.method.num_extra_positions} leaves room for {max(0, room)} tokens of an example",
            why=f"the model reads up to {limit} tokens, virtual ones included",
            fix=f"set method.num_virtual_tokens to {int(limit) // 8} or less",
        )
    return room


def _check_length(recipe: Recipe, config: dict[str, Any]) -> None:
    limit = _model_max_seq_len(config, recipe)
    if limit and int(recipe.data.max_seq_len) > limit:
        taken = recipe.method.num_extra_positions
        raise NoEffectError(
            f"data.max_seq_len {recipe.data.max_seq_len} is more than the model can read ({limit})",
            why=f"{taken} positions are taken by virtual tokens" if taken else "positions beyond it were never trained",
            fix=f"set data.max_seq_len to {limit} or less",
        )


def _encode(recipe: Recipe, run_dir: RunDir, reporter: Reporter, renderer: ChatRenderer, *, at_once: bool) -> None:
    """Tokenise every split, or leave the training split of many rows for later."""
    from danlu.data.tokenise import SPLITS, tokenise, tokenise_a_sample

    tell = functools.partial(_tell_tokenised, reporter)
    if not at_once and tokenise_a_sample(recipe, run_dir, renderer, _num_lines(run_dir.data / "train.jsonl")):
        tokenise(recipe, run_dir, renderer, splits=("validation",), progress=tell)
        return
    tokenise(recipe, run_dir, renderer, splits=SPLITS, progress=tell)
    summary = read_json(run_dir.data / "encoded.json")["train"]
    if not summary["num_examples"]:
        Coach(recipe, run_dir, reporter).begin()
        first = next(entry for entry in read_jsonl(run_dir.data / "tokenised.jsonl") if entry["action"] == "dropped")
        raise TooFewExamplesError(
            "no example is left to train on after tokenising",
            why=f"{summary['dropped']} examples were dropped; the first: {first['reason']} (line {first['line']})",
            fix="raise data.max_seq_len, or correct the data",
        )


def _tell_tokenised(reporter: Reporter, split: str, done: int) -> None:
    reporter.progress(f"tokenising {split}", done, None)


def _foresee(recipe: Recipe, run_dir: RunDir, base_dir: Path, placement: Placement) -> None:
    """Record the forecast by formula before anything is loaded; refuse what cannot fit."""
    from danlu.data.pack import TokenFile
    from danlu.data.tokenise import train_counts, train_tokens
    from danlu.models.load import check_model_dir

    size = recipe.objective.group_size
    counts, tokens = train_counts(run_dir), train_tokens(run_dir)
    sums, labels = tokens.lengths.reshape(-1, size).sum(1), tokens.label_counts().reshape(-1, size).sum(1)
    num_validation = len(TokenFile(run_dir.data / "validation.tokens")) // size
    data_bytes = sum(file.stat().st_size for file in run_dir.data.glob("*.jsonl"))
    lengths = Lengths(sums.tolist(), labels.tolist(), counts.get("num_rows", len(sums)), num_validation, data_bytes)
    found = forecasts.refuse_what_cannot_fit(
        recipe,
        check_model_dir(base_dir, needs_weights=False),
        lengths,
        forecasts.device(),
        num_processes=placement.processes,
        is_sharded=placement.is_sharded(recipe),
    )
    if found is None or run_dir.read_record().get("forecast"):
        return
    share = counts["truncated"] / max(1, counts["num_examples"])
    price = Settings.from_environment().price_per_hour
    run_dir.update_record(forecast=found.to_dict() | {"truncated_share": round(share, 4), "price_per_hour": price})


def _train(recipe: Recipe, run_dir: RunDir, reporter: Reporter, base_dir: Path, placement: Placement) -> str:
    from danlu.models.device import device, num_gpus
    from danlu.training.run import run as train
    from danlu.training.samples import Sampler

    is_launched = processes.launched_by_torchrun() is not None
    placement.check(recipe, num_gpus=0 if is_launched else num_gpus())
    if recipe.training.sample_every_steps and (is_launched or placement.processes > 1):
        en = "no samples are made while several processes train: they would wait for the one that writes"
        reporter.event("warning", en, name="no_samples", en=en, zh="多进程训练时不生成样例：其他进程会等待写作的进程")
    if recipe.scores_answers and (is_launched or placement.processes > 1):
        raise NoEffectError(
            f"training.best_by {recipe.training.best_by} cannot be measured while several processes train",
            why="the others would wait for the one that writes the answers",
            fix="set training.best_by to loss, or train in one process",
        )
    if not is_launched and not (run_dir.path / "training.json").exists():
        _foresee(recipe, run_dir, base_dir, placement)
    if is_launched:
        return processes.train_among_processes(recipe, run_dir, reporter, model_dir=base_dir, device=device(), placement=placement)
    if placement.processes > 1:
        return processes.train_in_processes(recipe, run_dir, reporter, model_dir=base_dir, device=device(), placement=placement)
    can_answer = recipe.training.sample_every_steps and not recipe.objective.makes_reward_model
    sampler = Sampler(recipe, run_dir, reporter, samples.answerer(recipe, run_dir, base_dir)) if can_answer else None
    score = selection.scorer(recipe, run_dir, base_dir) if recipe.scores_answers else None
    return train(recipe, run_dir, reporter, model_dir=base_dir, device=device(), after_step=sampler, score=score)


def _evaluate(recipe: Recipe, run_dir: RunDir, reporter: Reporter, base_dir: Path) -> None:
    """Prove the result; a model that was made from nothing has no base to be compared with."""
    has_base = not recipe.method.starts_anew
    if not recipe.evaluation.suites or not has_base or (run_dir.evaluation / "scorecard.json").exists():
        return
    from danlu.evaluation.run import run as evaluate
    from danlu.models.device import device
    from danlu.training.forward import score_examples
    from danlu.training.reward_model import score_rewards

    def tell_smaller(tokens: int) -> None:
        reporter.event("out_of_memory", f"out of memory: examples are scored {tokens} tokens at a time; the scores do not change")

    tokens = int(read_json(run_dir.path / "training.json").get("micro_batch_tokens") or recipe.optim.micro_batch_tokens)  # training may have found less
    scorer = score_rewards if recipe.objective.makes_reward_model else score_examples
    score = functools.partial(scorer, micro_batch_tokens=tokens, device=device(), path=recipe.training.path, on_smaller=tell_smaller)
    evaluate(recipe, run_dir, reporter, pair=open_pair(run_dir, recipe, base_dir), score=score, device=device())
