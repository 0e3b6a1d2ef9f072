"""Use case: try several settings of one recipe, leave the losers early, rank them, and prove the best.

Every member is a run folder of its own inside the sweep's folder; what decides (metrics, checkpoints) lies there, so a sweep
that was killed at any instant goes on where it was, and any member can be chatted with, exported or gone on with.
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson

from danlu.errors import DanluError, DivergedError, MissingExtraError, NoEffectError
from danlu.files import read_json, read_jsonl, write_json
from danlu.recipe.load import with_settings
from danlu.recipe.recipe import Recipe
from danlu.recipe.sweep import SweepConfig, parse_range, ranked
from danlu.reporter import Reporter
from danlu.run_dir import RunDir
from danlu.services import pipeline, runs
from danlu.settings import Settings

Tell = Callable[[str, str, dict[str, Any]], None]
"""Gets (member, kind, fields): what a member's reporter tells, and events of the sweep itself under the member ""."""
TRIALS_AT_ONCE = 4
"""Members that Optuna chooses before it sees a result: they share a pass."""


@dataclass
class Candidate:
    """One member of a sweep."""

    name: str
    settings: dict[str, Any]
    written: Recipe
    run_dir: RunDir
    state: str = "training"
    """`training`, `trained`, `left` (after a rung), or `failed`."""
    note: str = ""

    @property
    def resolved(self) -> Recipe:
        """The recipe with nothing left `auto`."""
        return pipeline.resolved(self.run_dir)


@dataclass(frozen=True)
class SweepResult:
    """How a call of `sweep` ended."""

    folder: Path
    outcome: str
    """`finished` or `paused`."""
    table: list[dict[str, Any]]
    """Members, best first (results.json holds the same)."""
    best: Path | None = None
    """Run folder of the best member."""


@dataclass
class Sweep:
    """A sweep at work in its folder."""

    written: Recipe
    config: SweepConfig
    folder: Path
    tell: Tell
    candidates: list[Candidate] = field(default_factory=list)
    paths: Mapping[str, str] = field(default_factory=dict)
    """Where names of the recipe lie that are no paths themselves."""

    def add(self, name: str, settings: dict[str, Any]) -> Candidate:
        """Make (or find) a member: claim its folder and carry out its data stage."""
        written = with_settings(self.written, settings)
        if written.training.best_by != "loss":
            raise NoEffectError(
                f"a sweep cannot go by training.best_by {written.training.best_by}",
                why="members are ranked by their validation loss",
                fix="remove training.best_by",
            )
        run_dir = RunDir.create(self.folder / "runs" / name)
        candidate = Candidate(name, settings, written, run_dir)
        runs.claim(run_dir, written, runs.local_paths(written, self.paths))
        if not run_dir.recipe.exists():
            self._copy_data(candidate)
            pipeline.prepare_data(written, run_dir, self.reporter(candidate), at_once=True)
        if not candidate.resolved.data.split.has_validation or not read_json(run_dir.data / "encoded.json")["validation"]["num_examples"]:
            raise NoEffectError(
                "a sweep needs validation rows", why="members are ranked by their validation loss", fix="set data.split.validation to 0.1, or give more rows"
            )
        record = run_dir.read_record()
        if record.get("state") == "failed":
            candidate.state, candidate.note = "failed", record["error"]
        self.candidates.append(candidate)
        return candidate

    def _copy_data(self, candidate: Candidate) -> None:
        """Take over the cleaned rows of a member with the same data settings; the data stage sees that they are its own."""
        for other in self.candidates:
            if (other.written.data, other.written.seed, other.written.objective) == (
                candidate.written.data,
                candidate.written.seed,
                candidate.written.objective,
            ):
                shutil.copytree(other.run_dir.data, candidate.run_dir.data, ignore=shutil.ignore_patterns("*.tokens", ".*"), dirs_exist_ok=True)
                return

    def reporter(self, candidate: Candidate) -> Reporter:
        """The member's own reporter, which also tells whoever watches the sweep."""
        return Reporter(candidate.run_dir, lambda kind, fields: self.tell(candidate.name, kind, fields))

    def train(self, candidates: Sequence[Candidate], rung: int | None) -> bool:
        """Train the members to their rung (None: to the end); return False when a signal stopped it."""
        for candidate in candidates:
            if (candidate.run_dir.path / "training.json").exists():
                candidate.state = "trained"
        for group in self._groups([candidate for candidate in candidates if candidate.state == "training"]):
            if all(self._is_at_rung(candidate, rung) for candidate in group):
                continue
            outcomes = self._train_group(group, [self.until(candidate, rung) for candidate in group])
            for candidate, outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, DivergedError):
                    candidate.state, candidate.note = "failed", outcome.what
                elif isinstance(outcome, DanluError):
                    raise outcome
                elif outcome == "paused" and not self._is_at_rung(candidate, rung):
                    return False
                elif outcome != "paused":
                    candidate.state = "trained"
            self.keep("running")
        return True

    def until(self, candidate: Candidate, rung: int | None) -> int | None:
        """The step after which the member pauses at that rung."""
        if rung is None:
            return None
        recipe = candidate.resolved
        steps = self.config.rung_steps(num_steps(recipe, candidate.run_dir), int(recipe.training.validate_every_steps))
        return steps[rung] if rung < len(steps) else None

    def _is_at_rung(self, candidate: Candidate, rung: int | None) -> bool:
        until = self.until(candidate, rung)
        return until is not None and last_step(candidate.run_dir) >= until

    def _groups(self, candidates: Sequence[Candidate]) -> list[list[Candidate]]:
        """Members that share a pass; one by one where they cannot."""
        from danlu.training.sweep import can_share

        groups: dict[str, list[Candidate]] = {}
        for candidate in candidates:
            recipe = candidate.resolved
            is_shared = self.config.together and can_share(recipe, read_json(pipeline.base_folder(candidate.run_dir) / "config.json"))
            key = f"{recipe.base_model} {recipe.training.dtype} {recipe.objective.type}" if is_shared else candidate.name
            groups.setdefault(key, []).append(candidate)
        return list(groups.values())

    def _train_group(self, group: Sequence[Candidate], untils: Sequence[int | None]) -> list[Any]:
        from danlu.models.device import device
        from danlu.training.run import run as train
        from danlu.training.sweep import Member, train_together

        base_dir = pipeline.base_folder(group[0].run_dir)
        if len(group) > 1:
            members = [Member(c.resolved, c.run_dir, self.reporter(c), until) for c, until in zip(group, untils, strict=True)]
            return train_together(members, model_dir=base_dir, device=device())
        [candidate], [until] = group, untils
        try:
            return [train(candidate.resolved, candidate.run_dir, self.reporter(candidate), model_dir=base_dir, device=device(), until=until)]
        except DivergedError as error:
            candidate.run_dir.update_record(state="failed", error=error.what)
            return [error]

    def halve(self, alive: Sequence[Candidate], rung: int) -> list[Candidate]:
        """The members that go on after a rung: the better ones by their best validation loss up to it."""
        order = sorted((c for c in alive if c.state != "failed"), key=lambda c: best_loss(c.run_dir, self.until(c, rung)))
        kept = order[: self.config.num_kept(len(order))]
        for candidate in order[len(kept) :]:
            candidate.state, candidate.note = "left", f"rung {rung + 1}"
        message = f"rung {rung + 1}: {len(kept)} of {len(alive)} members go on"
        self.keep("running")
        self.tell("", "rung", {"message": message, "rung": rung + 1, "kept": [candidate.name for candidate in kept]})
        return [candidate for candidate in alive if candidate in kept]

    def keep(self, state: str, **more: Any) -> list[dict[str, Any]]:
        """Store the table in results.json, for whoever watches, and return it."""
        table = self.table()
        write_json(self.folder / "results.json", {"state": state, **more, "members": table})
        return table

    def table(self) -> list[dict[str, Any]]:
        """Every member with its settings and result, best first: trained ones before those that were left."""
        rows: list[dict[str, Any]] = []
        for candidate in self.candidates:
            recipe, run_dir = candidate.resolved, candidate.run_dir
            loss = best_loss(run_dir, None)
            rows.append(
                {
                    "name": candidate.name,
                    "settings": {path: setting_of(recipe, path) for path in candidate.settings},
                    "validation_loss": loss if math.isfinite(loss) else None,
                    "best_step": best_step(run_dir),
                    "steps": last_step(run_dir),
                    "num_steps": num_steps(recipe, run_dir),
                    "state": candidate.state,
                    "note": candidate.note,
                    "path": str(run_dir.path),
                }
            )
        return ranked(rows)


def sweep(
    written: Recipe,
    config: SweepConfig,
    *,
    folder: Path | None = None,
    tell: Tell = lambda member, kind, fields: None,
    paths: Mapping[str, str] = MappingProxyType({}),
) -> SweepResult:
    """Carry out a sweep, or go on with the unfinished one of the same recipe and settings.

    The best member becomes a finished run with its proof; the table is kept in results.json.

    Raises:
        RecipeError: a member's recipe does not validate.
        NoEffectError: there is nothing to rank by, or the folder belongs to another sweep.
    """
    for settings in config.members() if config.set else []:
        with_settings(written, settings)  # all mistakes before anything starts
    definition = {"written": written.to_dict(), "sweep": config.model_dump(mode="json"), "paths": runs.local_paths(written, paths)}
    found = folder or Settings.from_environment().home / "sweeps" / _name(written, definition)
    RunDir.create(found)
    with RunDir(found).lock():
        record = read_json(found / "sweep.json") if (found / "sweep.json").exists() else {}
        if record and {key: record.get(key) for key in definition} != definition:
            raise NoEffectError(
                f"{found} belongs to another sweep", why="its members do not fit what is asked now", fix="choose another --out, or repeat the first command"
            )
        write_json(found / "sweep.json", {"created": time.time(), **record, **definition})
        work = Sweep(written, config, found, tell, paths=paths)
        is_whole = _search(work) if config.trials else _halving(work)
        if not is_whole:
            return SweepResult(found, "paused", work.keep("paused"))
        return _finish(work, work.table())


def _finish(work: Sweep, table: list[dict[str, Any]]) -> SweepResult:
    """Prove the best member and store the table."""
    if table[0]["state"] != "trained":
        raise DivergedError(
            "no member of the sweep could be trained to its end",
            why="; ".join(f"{row['name']}: {row['note']}" for row in table[:3]),
            fix="try lower learning rates",
        )
    best = next(candidate for candidate in work.candidates if candidate.name == table[0]["name"])
    for candidate in work.candidates:
        if candidate is not best and candidate.state != "failed":
            candidate.run_dir.update_record(state="paused", error=None)
    write_json(work.folder / "results.json", {"state": "proving", "best": best.name, "members": table})
    told = [lambda kind, fields: work.tell(best.name, kind, fields)]
    result = runs.run(best.written, run_dir=best.run_dir.path, listeners=told, paths=work.paths)
    verdict = (result.report or {}).get("verdict")
    write_json(work.folder / "results.json", {"state": result.outcome, "best": best.name, "verdict": verdict, "members": table})
    return SweepResult(work.folder, result.outcome, table, best.run_dir.path)


def _halving(work: Sweep) -> bool:
    """All combinations, with losers left at every rung."""
    alive = [work.add(f"{number:03d}", settings) for number, settings in enumerate(work.config.members(), 1)]
    work.keep("running")
    for rung in range(work.config.rungs):
        if len(alive) == 1:
            break
        if not work.train(alive, rung):
            return False
        alive = work.halve(alive, rung)
    return work.train(alive, None)  # those that failed stay out of it


def _search(work: Sweep) -> bool:
    """Members as Optuna chooses them, a few at a time; its journal lies in the sweep's folder.

    Reference: Akiba et al. 2019, arXiv:1907.10902; Bergstra et al. 2011 (TPE).
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
        from optuna.trial import TrialState
    except ImportError as error:
        raise MissingExtraError("Optuna is not installed", why="trials are chosen by it", fix="pip install 'danlu[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(work.folder / "optuna.jsonl")))
    sampler = optuna.samplers.TPESampler(seed=work.written.seed, constant_liar=True, n_startup_trials=max(2, min(8, (work.config.trials or 0) // 2)))
    study = optuna.create_study(study_name="sweep", storage=storage, sampler=sampler, load_if_exists=True)
    distributions = {path: _distribution(optuna, parse_range(path, text)) for path, text in work.config.space.items()}
    for trial in study.trials:
        if trial.state == TrialState.COMPLETE or trial.state == TrialState.FAIL:
            candidate = work.add(f"{trial.number + 1:03d}", dict(trial.params))
            candidate.state = "trained" if trial.state == TrialState.COMPLETE else "failed"
    while (num_left := (work.config.trials or 0) - sum(trial.state.is_finished() for trial in study.trials)) > 0:
        started = [trial for trial in study.trials if not trial.state.is_finished()][:num_left]
        wanted = min(num_left, TRIALS_AT_ONCE) - len(started)
        chosen = [(trial.number, dict(trial.params)) for trial in started if set(trial.params) == set(distributions)]
        for trial in started:  # killed before all of it was chosen
            if set(trial.params) != set(distributions):
                study.tell(trial.number, state=TrialState.FAIL)
        chosen += [(trial.number, dict(trial.params)) for trial in (study.ask(distributions) for _ in range(wanted))]
        batch = [(number, work.add(f"{number + 1:03d}", params)) for number, params in chosen]
        if not work.train([candidate for _, candidate in batch], None):
            return False
        for number, candidate in batch:
            loss = best_loss(candidate.run_dir, None)
            if candidate.state == "failed" or not math.isfinite(loss):
                study.tell(number, state=TrialState.FAIL)
            else:
                study.tell(number, loss)
    return True


def _distribution(optuna: Any, where: Any) -> Any:
    if where.values:
        return optuna.distributions.CategoricalDistribution(where.values)
    if where.is_integer:
        return optuna.distributions.IntDistribution(int(where.low), int(where.high), log=where.is_log)
    return optuna.distributions.FloatDistribution(where.low, where.high, log=where.is_log)


def _name(written: Recipe, definition: Mapping[str, Any]) -> str:
    """The same sweep has the same folder, so that the same command goes on with it."""
    stem = re.sub(r"[^\w-]+", "-", Path(written.dataset).name.split(".")[0])[:40] or "sweep"
    return f"{stem}-{hashlib.sha256(orjson.dumps(definition, option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]}"


def num_steps(recipe: Recipe, run_dir: RunDir) -> int:
    """Steps the run will take, from its recipe and what was tokenised."""
    if recipe.optim.max_steps is not None:
        return recipe.optim.max_steps
    num_examples = int(read_json(run_dir.data / "encoded.json")["train"]["num_examples"])
    return max(1, math.ceil(float(recipe.optim.num_epochs) * math.ceil(num_examples / int(recipe.optim.global_batch_size))))


def _validations(run_dir: RunDir) -> Iterator[tuple[int, float]]:
    for line in read_jsonl(run_dir.metrics):
        if line.get("validation_loss") is not None:
            yield int(line["step"]), float(line["validation_loss"])


def best_loss(run_dir: RunDir, until: int | None) -> float:
    """The lowest validation loss up to that step; infinite when there was none."""
    return min((loss for step, loss in _validations(run_dir) if until is None or step <= until), default=math.inf)


def best_step(run_dir: RunDir) -> int | None:
    """The step of the lowest validation loss."""
    found = sorted((loss, step) for step, loss in _validations(run_dir))
    return found[0][1] if found else None


def last_step(run_dir: RunDir) -> int:
    """Step of the newest checkpoint; 0 when there is none."""
    return max((int(folder.name.removeprefix("step-")) for folder in run_dir.checkpoints.glob("step-*")), default=0)


def setting_of(recipe: Recipe, path: str) -> Any:
    """The value at a dotted path of a recipe."""
    value: Any = recipe.to_dict()
    for key in path.split("."):
        value = value[key]
    return value
