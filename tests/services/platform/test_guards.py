"""What no operation may forget: the quota of the queue, and the receipt of what it did."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import orjson
import pytest

from danlu.errors import ConflictError, QuotaError
from danlu.services.platform import audit, chat, datasets, exports, jobs, models, projects, receipts, rows, runs, storage, sweeps, taking, uploads, votes
from danlu.services.platform.access import Actor
from danlu.services.platform.operations import Operation, load_all
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.settings import Network, Settings
from danlu.store import jobs as queue
from danlu.store.datasets import DATASET_VERSIONS
from danlu.store.engine import Database
from danlu.store.jobs import JOBS
from danlu.store.runs import RUNS, Run

OWNER = Actor.local()
RECIPE = {"base_model": "danlu/tiny", "dataset": "zhangjiajie"}
LINES = b"".join(orjson.dumps({"question": f"{number}?", "answer": str(number)}) + b"\n" for number in range(4))


class Home:
    """A project with a dataset version, two finished runs and a paused one; nothing waits."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.project = projects.create_project(platform, OWNER, NewProject(name="p")).id
        stored = platform.artifacts.put_bytes(LINES)
        storage.cached_file(platform, stored.digest, "rows.jsonl")
        with platform.database.writing() as connection:
            self.version = datasets.add_version(connection, platform, self.project, stored, file_name="rows.jsonl", name="rows").id
        self.runs = [runs.submit_run(platform, OWNER, self.project, runs.NewRun(recipe=RECIPE)).id for _ in range(3)]
        with platform.database.writing() as connection:
            for job in JOBS.all(connection, project_id=self.project):
                JOBS.update(connection, job.id, state="paused" if job.run_id == self.runs[2] else "succeeded")
            for run in self.runs[:2]:
                RUNS.update(connection, run, state="succeeded", resolved=RUNS.get(connection, run).recipe)
            self.paused = JOBS.all(connection, run_id=self.runs[2])[0].id

    def with_adapter(self) -> str:
        """A finished run that has made something."""
        folder = self.platform.run_folder(self.runs[0]) / "adapter"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
        return self.runs[0]

    def voted(self) -> str:
        """The project, with a vote."""
        answers = [{"model": "danlu/tiny", "text": text} for text in ("worse", "better")]
        vote = votes.NewVote.model_validate({"messages": [{"role": "user", "content": "?"}], "answers": answers, "winner": 1})
        votes.create_vote(self.platform, OWNER, self.project, vote)
        return self.project

    def uploaded(self) -> str:
        """An upload that is whole."""
        made = uploads.begin_upload(self.platform, OWNER, self.project, uploads.NewUpload(file_name="more.jsonl", size_bytes=len(LINES)))
        uploads.append(self.platform, OWNER, made.id, offset=0, chunk=LINES, sha256=hashlib.sha256(LINES).hexdigest())
        return made.id

    def elsewhere(self) -> str:
        """A run that waits on another machine."""
        made = runs.submit_run(self.platform, OWNER, self.project, runs.NewRun(recipe=RECIPE)).id
        with self.platform.database.writing() as connection:
            JOBS.update(connection, JOBS.all(connection, run_id=made)[0].id, home="home_there")
        return made

    def fill(self) -> None:
        """Let one job wait."""
        with self.platform.database.writing() as connection:
            queue.submit(connection, project_id=self.project, kind="inspect", payload={"type": "inspect"})


@pytest.fixture
def home(platform: Platform) -> Iterator[Home]:
    made = Home(platform)
    made.platform = replace(platform, settings=replace(platform.settings, network=Network(max_waiting_jobs=1)))
    yield made


SUBMITTERS: dict[str, Callable[[Home], object]] = {
    "submit_run": lambda home: runs.submit_run(home.platform, OWNER, home.project, runs.NewRun(recipe=RECIPE)),
    "duplicate_run": lambda home: runs.duplicate_run(home.platform, OWNER, home.runs[0], runs.Duplicate()),
    "continue_run": lambda home: runs.continue_run(home.platform, OWNER, home.runs[0], runs.NextRound(dataset="rows", replay=0)),
    "resume_run": lambda home: runs.resume_run(home.platform, OWNER, home.runs[2]),
    "resume_job": lambda home: jobs.resume_job(home.platform, OWNER, home.paused),
    "submit_sweep": lambda home: sweeps.submit_sweep(
        home.platform, OWNER, home.project, sweeps.NewSweep(recipe=RECIPE, sweep={"set": {"optim.learning_rate": [1e-4, 2e-4]}})
    ),
    "submit_merge": lambda home: sweeps.submit_merge(home.platform, OWNER, home.project, sweeps.NewMerge(run_ids=home.runs[:2])),
    "submit_export": lambda home: exports.submit_export(home.platform, OWNER, home.runs[0], exports.NewExport(type="adapter")),
    "load_engine": lambda home: chat.load_engine(home.platform, OWNER, home.project, chat.EngineChoice(model="danlu/tiny")),
    "answer": lambda home: chat.answer(
        home.platform,
        OWNER,
        home.project,
        chat.Question(model="danlu/tiny", messages=[{"role": "user", "content": "?"}]),  # type: ignore[list-item]
    ),
    "inspect_dataset": lambda home: datasets.inspect_dataset(home.platform, OWNER, home.version),
    "show_example": lambda home: datasets.show_example(home.platform, OWNER, home.version, 1, datasets.ExampleView()),
    "create_dataset": lambda home: datasets.create_dataset(home.platform, OWNER, home.project, datasets.NewDataset(example="danlu/product-json")),
    "edit_rows": lambda home: rows.edit_rows(home.platform, OWNER, home.version, rows.RowEdits(delete=[1])),
    "map_columns": lambda home: rows.map_columns(home.platform, OWNER, home.version, rows.ColumnMapping(columns={"question": "q", "answer": "a"})),
}


@pytest.mark.parametrize("name", SUBMITTERS)
def test_nothing_gets_into_a_full_queue(home: Home, name: str) -> None:
    home.fill()

    with pytest.raises(QuotaError, match="1 jobs of this project wait already"):
        SUBMITTERS[name](home)


def test_every_operation_that_gives_a_job_or_a_queued_run_is_tried_above() -> None:
    told = {name for name, operation in load_all().items() if operation.types.get("return") in (queue.Job, Run) and operation.verb == "POST"}

    assert told - {"cancel_job", "pause_job", "move_job", "unload_engine", "stop_run", "take_run"} <= set(SUBMITTERS)


class Killed(BaseException):
    """The server dies."""


def dying(operation: Operation[..., Any]) -> Operation[..., Any]:
    """The operation in a process that dies in the instant after the transaction that did the work."""

    @wraps(operation.function)
    def function(*args: Any, **values: Any) -> None:
        operation.function(*args, **values)
        raise Killed

    return replace(operation, function=function)


REPEATED: dict[str, tuple[Operation[..., Any], Callable[[Home], tuple[Any, ...]]]] = {
    "edit_rows": (rows.edit_rows, lambda home: (home.version, rows.RowEdits(delete=[1]))),
    "map_columns": (rows.map_columns, lambda home: (home.version, rows.ColumnMapping(columns={"question": "q", "answer": "a"}))),
    "create_dataset": (datasets.create_dataset, lambda home: (home.project, datasets.NewDataset(example="danlu/product-json"))),
    "inspect_dataset": (datasets.inspect_dataset, lambda home: (home.version,)),
    "show_example": (datasets.show_example, lambda home: (home.version, 1, datasets.ExampleView())),
    "begin_upload": (uploads.begin_upload, lambda home: (home.project, uploads.NewUpload(file_name="a.jsonl", size_bytes=5))),
    "submit_run": (runs.submit_run, lambda home: (home.project, runs.NewRun(recipe=RECIPE))),
    "duplicate_run": (runs.duplicate_run, lambda home: (home.runs[0], runs.Duplicate())),
    "continue_run": (runs.continue_run, lambda home: (home.runs[0], runs.NextRound(dataset="rows", replay=0))),
    "resume_run": (runs.resume_run, lambda home: (home.runs[2],)),
    "submit_sweep": (sweeps.submit_sweep, lambda home: (home.project, sweeps.NewSweep(recipe=RECIPE, sweep={"set": {"method.rank": [2, 4]}}))),
    "submit_merge": (sweeps.submit_merge, lambda home: (home.project, sweeps.NewMerge(run_ids=home.runs[:2]))),
    "register_model": (models.register_model, lambda home: (home.with_adapter(), models.NewModel(name="m"))),
    "load_engine": (chat.load_engine, lambda home: (home.project, chat.EngineChoice(model="danlu/tiny"))),
    "finish_upload": (uploads.finish_upload, lambda home: (home.uploaded(),)),
    "take_run": (taking.take_run, lambda home: (home.elsewhere(),)),
    "make_pairs_dataset": (votes.make_pairs_dataset, lambda home: (home.voted(), votes.NewPairs())),
}
NOTHING_TO_LOSE = {"collect_garbage", "check_storage"}
"""They are done again without harm; what they did is no one's request."""
SAME_WAY = {"fix_rows": "edit_rows"}


def test_every_operation_with_transactions_of_its_own_is_killed_below() -> None:
    own = {name for name, operation in load_all().items() if operation.own_transaction and operation.is_change}

    assert own == {*REPEATED, *NOTHING_TO_LOSE, *SAME_WAY}


@pytest.mark.parametrize("name", REPEATED)
def test_what_was_done_before_its_answer_was_lost_is_not_done_again(platform: Platform, name: str) -> None:
    home = Home(platform)
    operation, arguments = REPEATED[name]
    first, given = receipts.KeyReceipt("", "k", b"request", lambda result: {"answer": name}), arguments(home)
    before = audit.list_audit(platform, OWNER, action=name).items
    with pytest.raises(Killed):
        dying(operation).once(first, platform, OWNER, *given)
    first.leave()
    counted = _rows(platform)

    with pytest.raises(receipts.AlreadyDoneError) as again:
        operation.once(receipts.KeyReceipt("", "k", b"request", lambda result: {}), platform, OWNER, *given)
    assert (again.value.response, _rows(platform)) == ({"answer": name}, counted)
    assert len(audit.list_audit(platform, OWNER, action=name).items) == len(before) + 1


def test_a_repetition_that_is_refused_does_not_let_the_next_one_in(platform: Platform) -> None:
    """A client that asks three times while the first request still works must not have it done twice."""
    first, second, third = (receipts.KeyReceipt("", "k", b"request", lambda result: {}) for _ in range(3))
    with platform.database.writing() as connection:
        first.begin(connection)
    for again in (second, third):
        with pytest.raises(ConflictError), platform.database.writing() as connection:
            again.begin(connection)
        again.leave()
    first.leave()


ELSEWHERE: dict[str, Callable[[Platform, str, list[str]], object]] = {
    "submit_export": lambda platform, project, found: exports.submit_export(platform, OWNER, found[0], exports.NewExport(type="adapter")),
    "load_engine": lambda platform, project, found: chat.load_engine(platform, OWNER, project, chat.EngineChoice(model=found[0])),
    "register_model": lambda platform, project, found: models.register_model(platform, OWNER, found[0], models.NewModel(name="m")),
    "submit_merge": lambda platform, project, found: sweeps.submit_merge(platform, OWNER, project, sweeps.NewMerge(run_ids=found)),
    "continue_run": lambda platform, project, found: runs.continue_run(platform, OWNER, found[0], runs.NextRound(dataset="zhangjiajie")),
}


def test_the_files_of_another_home_are_not_taken_for_missing(tmp_path: Path, new_postgres_database: Callable[[], Database]) -> None:
    shared = new_postgres_database()
    here, there = (Platform(Settings(home=tmp_path / name), shared) for name in ("here", "there"))
    project = projects.create_project(here, OWNER, NewProject(name="p")).id
    found = [runs.submit_run(there, OWNER, project, runs.NewRun(recipe=RECIPE)).id for _ in range(2)]
    with here.database.writing() as connection:
        for run in found:
            RUNS.update(connection, run, state="succeeded", resolved=RUNS.get(connection, run).recipe)

    for name, try_it in ELSEWHERE.items():
        with pytest.raises(ConflictError, match="on another machine"):
            try_it(here, project, found)
            pytest.fail(name)
    assert exports.submit_export(there, OWNER, found[0], exports.NewExport(type="adapter")).state == "queued"


def _rows(platform: Platform) -> list[int]:
    with platform.database.reading() as connection:
        return [len(noun.all(connection)) for noun in (JOBS, RUNS, DATASET_VERSIONS, uploads.UPLOADS)]
