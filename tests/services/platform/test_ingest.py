"""What runs write comes into the database: each line once, whatever is killed when."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from danlu.files import write_json
from danlu.run_dir import RunDir
from danlu.services.platform.platform import Platform
from danlu.settings import Settings
from danlu.store import jobs, measurements, removals, workers
from danlu.store.engine import Database
from danlu.store.jobs import JOBS
from danlu.store.runs import EVALUATIONS, RUNS, Run, folders_of_project
from danlu.worker import ingest


class Writer:
    """A run at work: what its process would write."""

    def __init__(self, database: Database, project: str, home: Path) -> None:
        self.database, self.home = database, home
        self.platform = Platform(Settings(home=home), database)
        with database.writing() as connection:
            self.id = RUNS.insert(connection, project_id=project, name="r", state="queued", recipe={}, base_model="b").id
            jobs.submit(connection, project_id=project, kind="train", payload={"type": "train"}, run_id=self.id)
            job = jobs.claim(connection, worker_id="w", home=workers.home_id(database, home), total_slots=1)
        assert job is not None
        self.job = job
        self.run_dir = RunDir.create(home / "runs" / self.id)

    def write(self, name: str, *lines: Any, end: bytes = b"\n") -> None:
        with (self.run_dir.path / name).open("ab") as file:
            file.write(b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in lines) + end)

    def end(self, state: str = "succeeded") -> None:
        with self.database.writing() as connection:
            jobs.finish(connection, self.job.id, self.job.attempt, state)

    def run(self) -> Run:
        with self.database.reading() as connection:
            return RUNS.get(connection, self.id)

    def catch_up(self) -> None:
        ingest.catch_up(self.database, self.home)

    def steps(self, kind: str = "train") -> list[int]:
        with self.database.reading() as connection:
            return [point.step for point in measurements.points_after(connection, self.id, kind=kind, after=-1, limit=10**6)]

    def events(self) -> list[tuple[int, str]]:
        with self.database.reading() as connection:
            return [(event.number, event.kind) for event in measurements.events_after(connection, self.id, kind=None, after=-1, limit=10**6)]

    def read(self) -> measurements.Read:
        with self.database.reading() as connection:
            return measurements.read_of(connection, self.id)


@pytest.fixture
def writer(database: Database, project: str, tmp_path: Path) -> Iterator[Writer]:
    yield Writer(database, project, tmp_path / "home")


def step(number: int, **values: Any) -> dict[str, Any]:
    return {"step": number, "loss": 1.0 / (number + 1), **values}


def test_whole_lines_are_read_once_and_half_ones_when_they_are_whole(writer: Writer) -> None:
    writer.write("metrics.jsonl", step(1), step(2), b'{"step": 3, "lo', end=b"")
    writer.write("events.jsonl", {"kind": "stage", "message": "m"}, {"kind": "coach"})
    writer.catch_up()
    assert (writer.steps(), writer.events()) == ([1, 2], [(0, "stage"), (1, "coach")])

    writer.write("metrics.jsonl", b'ss": 0.5}', {"step": 3, "validation_loss": 0.4})
    writer.catch_up()
    writer.catch_up()
    assert (writer.steps(), writer.steps("validation")) == ([1, 2, 3], [3])
    assert (writer.run().summary or {})["validation_loss"] == 0.4 and (writer.run().summary or {})["step"] == 3


def test_garbage_is_counted_and_never_fatal(writer: Writer) -> None:
    writer.write("metrics.jsonl", b"\xff\x00 no json", [1, 2], {"loss": 1.0}, {"step": "x"}, {"step": -5}, {"step": 2**40}, b"9" * 5000, step(1))
    writer.write("events.jsonl", b"{", {"no": "kind"}, {"kind": "stage"})
    writer.catch_up()

    assert (writer.steps(), writer.events(), writer.read().num_bad_lines) == ([1], [(2, "stage")], 9)


@pytest.mark.parametrize("batch", [64, 1000])
def test_a_kill_between_reading_and_storing_loses_and_doubles_nothing(writer: Writer, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(ingest, "BATCH_BYTES", batch)
    writer.write("metrics.jsonl", *(step(number) for number in range(1, 60)))
    writer.write("events.jsonl", *({"kind": f"k{number}"} for number in range(40)))
    stored = measurements.store
    calls = 0

    class Killed(BaseException):
        pass

    def dying(*arguments: Any, **values: Any) -> None:
        nonlocal calls
        calls += 1
        if calls % 2:
            stored(*arguments, **values)
            raise Killed  # the transaction never ends

        stored(*arguments, **values)

    monkeypatch.setattr(measurements, "store", dying)
    for _ in range(200):
        try:
            ingest.read_run(writer.platform, writer.run())
            break
        except Killed:
            continue

    assert (writer.steps(), [number for number, _ in writer.events()]) == (list(range(1, 60)), list(range(40)))
    assert writer.read().num_events == 40 and calls > 2


def test_a_resumed_run_has_each_step_once_and_none_that_it_has_not_made_again(writer: Writer) -> None:
    writer.write("metrics.jsonl", *(step(number, attempt=1) for number in range(1, 9)))
    writer.catch_up()
    kept = writer.run_dir.metrics.read_bytes().splitlines(keepends=True)[:5]
    (writer.run_dir.path / "metrics.tmp").write_bytes(b"".join(kept))
    os.replace(writer.run_dir.path / "metrics.tmp", writer.run_dir.metrics)  # what a resumed loop does
    writer.catch_up()
    assert writer.steps() == [1, 2, 3, 4, 5]

    writer.write("metrics.jsonl", *(step(number, attempt=2) for number in range(6, 11)))
    writer.catch_up()
    with writer.database.reading() as connection:
        points = measurements.points_after(connection, writer.id, kind=None, after=-1, limit=100)
    assert [(point.step, point.values["attempt"]) for point in points] == [(n, 1 if n < 6 else 2) for n in range(1, 11)]


def test_a_run_that_is_over_is_read_to_its_end_and_then_left_alone(writer: Writer) -> None:
    writer.write("metrics.jsonl", step(1))
    writer.end()
    write_json(writer.run_dir.report_json, {"verdict": {"label": "improved", "metric": "m"}, "metrics": {"m": {"delta": -0.1}}})
    write_json(writer.run_dir.recipe, {"seed": 1})
    writer.catch_up()
    run = writer.run()
    assert (run.state, run.verdict, run.resolved, writer.steps()) == ("succeeded", "improved", {"seed": 1}, [1])
    with writer.database.reading() as connection:
        assert EVALUATIONS.all(connection, run_id=writer.id)[0].report["metrics"] == {"m": {"delta": -0.1}}
        assert measurements.unread_runs(connection) == []
    writer.catch_up()
    assert writer.run().version == run.version

    with writer.database.writing() as connection:  # it may go on: then it is read again
        JOBS.update(connection, writer.job.id, state="failed")
        jobs.resume(connection, writer.job.id)
    with writer.database.reading() as connection:
        assert [found.id for found in measurements.unread_runs(connection)] == [writer.id]


def test_an_export_is_kept_as_an_artifact_and_replaced_by_a_newer_one(writer: Writer) -> None:
    from danlu.store.runs import EXPORTS

    folder = writer.run_dir.exports / "adapter"
    (writer.run_dir.exports / ".merged.tmp").mkdir(parents=True)  # one that is still being written
    (writer.run_dir.exports / ".merged.tmp" / "verification.json").write_text("{}")
    for number, passed in enumerate((True, False)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights").write_bytes(bytes([number]) * 100)
        write_json(folder / "verification.json", {"passed": passed})
        os.utime(folder / "verification.json", (time.time() + 1000 * number, time.time() + 1000 * number))
        if not number:
            writer.end()
        else:  # an export of its own ends: the run's folder is looked at again
            with writer.database.writing() as connection:
                job = jobs.submit(connection, project_id=writer.run().project_id, kind="export", payload={}, run_id=writer.id)
                claimed = jobs.claim(connection, worker_id="w", home=workers.home_id(writer.database, writer.home), total_slots=1)
                assert claimed is not None and claimed.id == job.id
                jobs.finish(connection, job.id, claimed.attempt, "succeeded")
        writer.catch_up()
        with writer.database.reading() as connection:
            [export] = EXPORTS.all(connection, run_id=writer.id)
        assert (export.type, export.verification) == ("adapter", {"passed": passed}) and writer.platform.artifacts.exists(export.digest)


def test_a_thousand_points_take_no_time(writer: Writer) -> None:
    """The goal is 5000 points a second. Seconds of this process are counted, not those that it waits on a busy machine. The figure is printed."""
    count = 20_000
    lines = (
        step(n, learning_rate=1e-4, grad_norm=0.5, num_tokens=n * 512, tokens_per_second=9000.0, peak_memory_bytes=10**9, time=1e9) for n in range(1, count)
    )
    writer.write("metrics.jsonl", *lines)
    begun = time.process_time()
    while ingest._read_batch(writer.database, writer.run_dir):
        pass
    seconds = time.process_time() - begun

    print(f"{count / seconds:,.0f} points a second of the processor")
    assert writer.read().metrics_offset == writer.run_dir.metrics.stat().st_size and count / seconds > 1000


def test_folders_of_deleted_rows_go_and_nothing_outside_the_home_folder(writer: Writer, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with writer.database.writing() as connection:
        removals.add(connection, dict.fromkeys([f"runs/{writer.id}", "../outside", ".", "runs/gone"]))
    writer.catch_up()

    assert not writer.run_dir.path.exists() and outside.exists() and writer.home.exists()
    with writer.database.reading() as connection:
        assert removals.pending(connection) == []


def test_another_home_on_the_same_database_neither_closes_a_run_nor_forgets_its_folders(writer: Writer, tmp_path: Path) -> None:
    if writer.database.is_sqlite:
        pytest.skip("a SQLite database belongs to one home")
    other = tmp_path / "other"
    writer.write("metrics.jsonl", step(1), step(2))
    writer.end()
    ingest.catch_up(writer.database, other)
    assert (writer.steps(), writer.read().read_until) == ([], None)

    writer.catch_up()
    assert (writer.steps(), writer.read().read_until) == ([1, 2], writer.run().finished_at)

    with writer.database.writing() as connection:
        removals.add(connection, folders_of_project(connection, writer.run().project_id))
    ingest.catch_up(writer.database, other)
    assert writer.run_dir.path.exists()
    writer.catch_up()
    assert not writer.run_dir.path.exists()
    with writer.database.reading() as connection:
        assert removals.pending(connection) == []


@pytest.mark.parametrize("broken", ["metrics.jsonl", "report.json"])
def test_the_files_of_one_run_do_not_keep_the_others_from_being_read(writer: Writer, project: str, caplog: pytest.LogCaptureFixture, broken: str) -> None:
    with writer.database.writing() as connection:  # the newest: it is looked at first
        other = RUNS.insert(connection, project_id=project, name="o", state="running", recipe={}, base_model="b", started_at=4e9)
    path = writer.home / "runs" / other.id / broken
    if broken == "metrics.jsonl":
        path.mkdir(parents=True)
    else:
        write_json(path, {"verdict": "not as we write it"})
    end = time.monotonic() + 60
    with ingest.running(writer.database, writer.home):
        for number in (1, 2):  # the second time it has met the other run before
            writer.write("metrics.jsonl", step(number))
            while number not in writer.steps():
                assert time.monotonic() < end, "it was not read"
                time.sleep(0.05)

    [told] = [record.getMessage() for record in caplog.records if record.name == "danlu.worker.ingest"]
    assert other.id in told


def test_offsets_and_rows_are_one(writer: Writer) -> None:
    with writer.database.writing() as connection:
        read = replace(measurements.Read(writer.id), metrics_offset=10)
        measurements.store(connection, read, [measurements.Point(1, "train", {}), measurements.Point(1, "train", {"loss": 2.0})])
        measurements.store(connection, read, [measurements.Point(1, "train", {"loss": 3.0})], [measurements.RunEvent(0, "k", {})])

    assert (writer.steps(), writer.read(), writer.events()) == ([1], read, [(0, "k")])


def test_beside_a_worker_it_goes_by_itself(writer: Writer) -> None:
    with ingest.running(writer.database, writer.home):
        for number in range(1, 4):
            writer.write("metrics.jsonl", step(number))
            end = time.monotonic() + 60
            while number not in writer.steps():
                assert time.monotonic() < end, "it was not read"
                time.sleep(0.05)
