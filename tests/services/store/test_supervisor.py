"""The supervisor and real job processes: they end, die, are paused and cancelled, and are found again after a restart."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from danlu.errors import DatabaseError, RunBusyError, StorageError
from danlu.executors.local import CHILD, LocalExecutor
from danlu.executors.processes import boot_id, start_time
from danlu.executors.slots import Slots
from danlu.files import read_json, write_json
from danlu.store import jobs, workers
from danlu.store.engine import Database
from danlu.worker.supervisor import Supervisor
from queue_home import CHAIN, COMMAND, Home


@pytest.fixture
def sqlite(tmp_path: Path, sqlite_template: Path) -> Iterator[Database]:
    (tmp_path / "home").mkdir()
    shutil.copyfile(sqlite_template, tmp_path / "home" / "danlu.sqlite")
    database = Database(f"sqlite:///{tmp_path / 'home' / 'danlu.sqlite'}")
    yield database
    database.close()


@pytest.fixture
def home(tmp_path: Path, sqlite: Database) -> Iterator[Home]:
    home = Home(tmp_path / "home", sqlite)
    yield home
    home.clean()


@pytest.fixture
def hasty(tmp_path: Path, sqlite: Database) -> Iterator[Home]:
    """A home whose supervisor waits a fiftieth of the time."""
    home = Home(tmp_path / "home", sqlite, haste=50)
    yield home
    home.clean()


def chain(num_steps: int = CHAIN) -> str:
    """What an undisturbed job ends with."""
    import hashlib

    found = "begin"
    for step in range(num_steps):
        found = hashlib.sha256(f"{found} {step}".encode()).hexdigest()
    return found


def test_a_job_is_carried_out_in_a_process_of_its_own_and_its_result_is_stored(home: Home, rows_file: Path) -> None:
    home.supervisor.executor = LocalExecutor(home.folder)  # the command of the product
    id = home.add({"type": "inspect", "path": str(rows_file)})

    job = home.finish(id)

    assert (job.state, job.attempt, job.error, job.home) == ("succeeded", 1, None, "local")
    assert job.result is not None and job.result["report"]["format"] == "alpaca"
    assert home.call(jobs.slots_of, id) == []
    assert "succeeded" in (home.attempt(id) / "log.txt").read_text()


def test_a_file_that_cannot_be_read_fails_with_what_to_do(home: Home, tmp_path: Path) -> None:
    job = home.finish(home.add({"type": "inspect", "path": str(tmp_path / "nothing.jsonl")}))

    assert job.state == "failed" and job.error is not None and job.error["code"].startswith("DL2") and job.error["fix"]


def test_a_job_goes_on_while_its_supervisor_is_gone_and_is_adopted_by_the_first_tick_of_the_next(home: Home) -> None:
    id = home.steps(is_held=True)
    pid, before = home.running_pid(id), home.job(id)

    home.restart()
    home.supervisor.tick()

    adopted = home.job(id)
    assert (adopted.worker_id, adopted.pid) == (home.supervisor.id, pid) and before.worker_id != adopted.worker_id
    home.let_go()
    job = home.finish(id)
    assert (job.state, job.attempt, job.result) == ("succeeded", 1, {"chain": chain()})


def test_a_process_whose_starter_died_before_it_wrote_its_name_is_not_started_again(home: Home) -> None:
    id = home.steps(is_held=True)
    job = home.call(jobs.claim, worker_id="gone", home="local", total_slots=1)
    attempt = home.supervisor.attempt_of(job)
    write_json(attempt.folder / "job.json", {"id": id, "attempt": 1, "payload": job.payload})
    write_json(attempt.folder.parent / "current.json", {"attempt": 1})
    home.restart()
    home.executors[0].start(attempt, {})  # and its starter is killed here
    assert home.supervisor.executor.poll(attempt).state in ("starting", "running")
    home.let_go()

    job = home.finish(id)

    assert (job.state, job.attempt) == ("succeeded", 1)


def test_a_supervisor_that_died_before_it_started_the_process_is_made_up_for_at_once(home: Home) -> None:
    id = home.steps(num_steps=1)
    home.call(jobs.claim, worker_id="gone", home="local", total_slots=1)  # and killed here

    home.supervisor.tick()

    assert home.job(id).attempt == 2 or home.job(id).state == "queued"
    job = home.finish(id)
    assert (job.state, job.attempt, job.attempts_without_progress) == ("succeeded", 2, 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_job_whose_process_is_ended_from_outside_goes_on_where_it_was(home: Home, number: signal.Signals) -> None:
    id = home.steps(is_held=True)
    pid = home.running_pid(id)
    home.tick_until(home.reached("chain", 5))
    os.kill(pid, number)
    home.let_go()

    job = home.finish(id)

    assert (job.state, job.attempt, job.attempts_without_progress, job.result) == ("succeeded", 2, 0, {"chain": chain()})
    steps = (home.folder / "chain.json.steps").read_text().split()
    assert CHAIN <= len(steps) <= CHAIN + 5  # what was done twice is less than one interval of saves


def test_a_stopped_process_that_has_nothing_to_save_begins_anew_and_uses_up_no_patience(home: Home) -> None:
    id = home.odd("sleep")
    for attempt in range(1, jobs.MAX_ATTEMPTS_WITHOUT_PROGRESS + 2):
        pid = home.running_pid(id, attempt)
        home.tick_until((home.attempt(id, attempt) / "asleep.json").exists)
        os.kill(pid, signal.SIGTERM)

    home.tick_until(lambda: home.job(id).attempt == attempt + 1)

    assert home.job(id).attempts_without_progress == 0


def test_a_job_that_always_dies_is_given_up_with_the_reason(hasty: Home) -> None:
    job = hasty.finish(hasty.odd("exit"))

    assert (job.state, job.attempt) == ("failed", jobs.MAX_ATTEMPTS_WITHOUT_PROGRESS)
    assert job.error is not None and (job.error["code"], job.error["why"]) == ("DL720", "it ended with code 3 and left no result")


def test_a_job_whose_disk_is_full_is_tried_again_and_then_says_so(hasty: Home) -> None:
    job = hasty.finish(hasty.odd("full disk"))

    assert (job.state, job.attempt) == ("failed", jobs.MAX_ATTEMPTS_WITHOUT_PROGRESS)
    assert job.error is not None and job.error["code"] == "DL700" and "space" in job.error["why"]


def test_a_log_that_cannot_be_written_ends_no_job(home: Home) -> None:
    job = home.finish(home.odd("full log"))

    assert (job.state, job.attempt) == ("succeeded", 1) and (home.attempt(job.id) / "log.txt").stat().st_size == 4096


def test_a_cancelled_job_that_heeds_nothing_is_gone_within_ten_seconds_with_all_it_started(tmp_path: Path, sqlite: Database) -> None:
    home = Home(tmp_path / "home", sqlite, haste=4)
    id = home.odd("deaf")
    pid = home.running_pid(id)
    home.tick_until((home.attempt(id) / "runaway.json").exists)
    runaway = read_json(home.attempt(id) / "runaway.json")
    home.call(jobs.cancel, id)

    home.tick_until(lambda: home.job(id).is_over, seconds=10)

    assert home.job(id).state == "cancelled"
    assert (start_time(pid), start_time(runaway)) == (None, None)


def test_a_cancelled_job_that_listens_saves_and_ends(home: Home) -> None:
    id = home.steps(num_steps=4000)
    home.running_pid(id)
    home.tick_until(home.reached("chain", 5))
    home.call(jobs.cancel, id)

    home.tick_until(lambda: home.job(id).is_over, seconds=10)

    assert home.job(id).state == "cancelled" and home.job(id).result is None
    assert (home.folder / "chain.json").exists()


def test_a_saver_makes_room_for_an_express_job_and_then_goes_on(home: Home) -> None:
    saver = home.steps("saver", num_steps=60, priority="saver", is_held=True)
    home.running_pid(saver)
    home.tick_until(home.reached("saver", 5))
    express = home.steps("express", num_steps=2, priority="express")

    assert home.finish(express).state == "succeeded" and not home.job(saver).is_over
    home.let_go("saver")
    job = home.finish(saver)

    assert (job.state, job.attempt, job.attempts_without_progress, job.result) == ("succeeded", 2, 0, {"chain": chain(60)})


def test_a_saver_that_cannot_go_on_is_left_alone(home: Home) -> None:
    saver = home.odd("sleep", priority="saver")
    home.running_pid(saver)
    home.steps(priority="express")
    for _ in range(3):
        home.supervisor.tick()

    assert home.job(saver).state == "running"


def test_a_user_pauses_a_job_and_lets_it_go_on(home: Home) -> None:
    id = home.steps(is_held=True)
    home.running_pid(id)
    home.tick_until(home.reached("chain", 5))
    home.call(jobs.pause, id)
    home.tick_until(lambda: home.job(id).state == "paused")
    for _ in range(3):
        home.supervisor.tick()
    assert home.job(id).state == "paused" and home.job(id).pid is None

    home.let_go()
    home.call(jobs.resume, id)

    assert home.finish(id).result == {"chain": chain()}


def test_two_jobs_run_at_a_time_on_two_slots_and_know_their_share(home: Home) -> None:
    home.restart(num_slots=2)
    a, b = home.steps("a", is_held=True), home.steps("b", is_held=True)
    home.tick_until(lambda: home.job(a).state == home.job(b).state == "running")

    assert sorted(home.call(jobs.slots_of, a) + home.call(jobs.slots_of, b)) == [0, 1]


def test_what_needs_no_slot_starts_beside_jobs_that_hold_every_gpu_and_may_use_them_all(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    home.restart(num_slots=2).slots = Slots(2, ("GPU-a", "GPU-b"))
    holders = [home.odd("sleep"), home.odd("sleep")]
    home.tick_until(lambda: all(home.job(id).pid for id in holders))

    chat = home.finish(home.odd("look", num_slots=0, priority="express"))

    assert chat.result is not None and "CUDA_VISIBLE_DEVICES" not in chat.result["environment"]
    assert [home.job(id).state for id in holders] == ["running", "running"]


def test_only_one_supervisor_works_on_a_home(home: Home, tmp_path: Path) -> None:
    other = Supervisor(home.database, home.folder, LocalExecutor(home.folder))
    elsewhere = Supervisor(home.database, tmp_path / "elsewhere", LocalExecutor(tmp_path / "elsewhere"))  # another home on the same SQLite file

    for second in (other, elsewhere):
        with home.supervisor.lock(), pytest.raises(RunBusyError, match="another worker"), second.lock():
            pass


def test_a_job_sees_no_secret_and_no_database_and_is_confined(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_DATABASE_URL", "postgresql://x:hunter2@h/d")
    monkeypatch.setenv("WANDB_API_KEY", "hunter2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    home.restart()

    job = home.finish(home.odd("look"))

    assert job.result is not None
    environment = job.result.pop("environment")
    assert "hunter2" not in str(environment) and environment["DANLU_HOME"] == str(home.folder) and environment["OMP_NUM_THREADS"]
    folder, path = job.result.pop("folder"), job.result.pop("path")
    assert folder == str(home.attempt(job.id)) and folder not in path and "" not in path
    assert 4096 <= job.result.pop("num_tasks") < 1_000_000
    assert job.result == {"umask": 0o077, "core": 0, "is_session_leader": True, "database_modules": []}


def test_a_job_in_the_folder_of_its_attempt_imports_nothing_from_there(home: Home, rows_file: Path) -> None:
    id = home.add({"type": "inspect", "path": str(rows_file)})
    home.supervisor.executor = LocalExecutor(home.folder)
    home.attempt(id).mkdir(parents=True)
    (home.attempt(id) / "orjson.py").write_text("raise SystemExit(9)")

    assert home.finish(id).state == "succeeded" and "-P" in CHILD


def test_a_fork_bomb_of_an_unprivileged_user_ends_at_its_limit() -> None:
    code = """
import os, resource
from danlu.worker import child
child.MAX_NEW_TASKS = 20
if os.geteuid() == 0:  # the limit is not for root
    os.setgid(54321)
    os.setuid(54321)
child._confine()
pids = []
try:
    while len(pids) < 500:
        pid = os.fork()
        if not pid:
            os.read(0, 1)
            os._exit(0)
        pids.append(pid)
except BlockingIOError:
    pass
for pid in pids:
    os.kill(pid, 9)
print(len(pids))
"""
    reader, writer = os.pipe()
    done = subprocess.run([sys.executable, "-c", code], stdin=reader, capture_output=True, text=True, timeout=60)
    os.close(reader)
    os.close(writer)

    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) <= 20


def test_what_json_or_postgresql_cannot_hold_does_not_keep_a_job_from_ending(tmp_path: Path, database: Database) -> None:
    home = Home(tmp_path / "h", database)

    nul, no_json = home.finish(home.odd("nul")), home.finish(home.odd("no json"))

    assert nul.state == "succeeded" and nul.result is not None and nul.result["text"] in ("a\0b \\u0000", "ab \\u0000")
    assert no_json.state == "failed" and no_json.error is not None and no_json.error["code"] == "DL900"


def test_a_damaged_result_is_as_good_as_none(hasty: Home) -> None:
    id = hasty.steps(is_held=True)
    pid = hasty.running_pid(id)
    (hasty.attempt(id) / "result.json").write_text('{"state": "succ')
    os.kill(pid, signal.SIGKILL)
    hasty.let_go()

    assert (hasty.finish(id).state, hasty.job(id).attempt) == ("succeeded", 2)


def test_after_a_restart_of_the_machine_nothing_is_held_against_the_job(home: Home) -> None:
    id = home.steps(num_steps=1)
    home.call(jobs.claim, worker_id="gone", home="local", total_slots=1)
    pid = {"pid": os.getpid(), "started": start_time(os.getpid())}  # alive, and the same by chance
    write_json(home.attempt(id) / "pid.json", pid | {"boot": "another"})

    job = home.finish(id)

    assert (job.state, job.attempt, job.attempts_without_progress) == ("succeeded", 2, 0)


def test_a_process_with_the_number_of_an_old_one_is_neither_adopted_nor_killed(hasty: Home) -> None:
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    id = hasty.steps(num_steps=1)
    hasty.call(jobs.claim, worker_id="gone", home="local", total_slots=1)
    write_json(hasty.attempt(id) / "pid.json", {"pid": other.pid, "started": 1, "boot": boot_id()})

    job = hasty.finish(id)

    assert (job.state, job.attempt) == ("succeeded", 2) and other.poll() is None
    other.kill()
    other.wait()


def test_files_of_an_attempt_that_a_restored_database_has_forgotten_are_not_taken_for_its_own(home: Home) -> None:
    id = home.steps(num_steps=1)
    write_json(home.attempt(id) / "result.json", {"state": "succeeded", "result": {"chain": "old"}, "error": None})
    write_json(home.attempt(id) / "pid.json", {"pid": 1, "started": 1, "boot": boot_id()})

    assert home.finish(id).result == {"chain": chain(1)}


def test_a_second_process_of_a_job_does_nothing(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "job" / "attempt-2"
    payload = {"type": "test_steps", "path": str(tmp_path / "x.json"), "num_steps": 1}
    write_json(folder / "job.json", {"id": "job_1", "attempt": 2, "payload": payload})
    write_json(folder.parent / "current.json", {"attempt": 2})
    with (folder.parent / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert subprocess.run([*COMMAND, str(folder)], capture_output=True).returncode == 75
    write_json(folder.parent / "current.json", {"attempt": 3})
    assert subprocess.run([*COMMAND, str(folder)], capture_output=True).returncode == 75

    assert not (tmp_path / "x.json").exists() and not (folder / "result.json").exists()


def test_while_the_home_cannot_be_written_jobs_wait_and_the_worker_says_why(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    id = home.steps(num_steps=1)
    (home.folder / "jobs").write_text("in the way")
    turns = iter(range(4))
    home.supervisor.run(lambda: next(turns, None) is None)

    said = [record for record in caplog.records if record.name == "danlu.worker.supervisor"]
    assert home.supervisor.alarm is not None and len(said) == 1
    assert (home.job(id).state, home.job(id).attempt) == ("queued", 0)
    home.supervisor._last_beat = float("-inf")
    with pytest.raises(StorageError):
        home.supervisor.tick()
    assert home.call(workers.all_workers)[0].alarm == home.supervisor.alarm

    (home.folder / "jobs").unlink()
    assert home.finish(id).attempt == 1 and home.supervisor.alarm is None


def test_jobs_end_while_the_database_is_away_and_are_settled_when_it_is_back(home: Home, tmp_path: Path) -> None:
    id = home.steps()
    home.running_pid(id)
    home.database.close()
    for path in home.folder.glob("danlu.sqlite*"):
        path.rename(tmp_path / path.name)
    (home.folder / "danlu.sqlite").mkdir()  # nothing that can be opened
    with pytest.raises(DatabaseError):
        home.supervisor.tick()
    end = time.monotonic() + 60
    while not (home.attempt(id) / "result.json").exists() and time.monotonic() < end:
        time.sleep(0.05)

    home.database.close()
    (home.folder / "danlu.sqlite").rmdir()
    for path in tmp_path.glob("danlu.sqlite*"):
        path.rename(home.folder / path.name)

    job = home.finish(id)
    assert (job.state, job.attempt, job.result) == ("succeeded", 1, {"chain": chain()})


def test_a_restart_of_postgresql_disturbs_no_job(tmp_path: Path, new_postgres_database: Callable[[], Database], restart_postgres: Callable[[], None]) -> None:
    database = new_postgres_database()
    home = Home(tmp_path / "h", database)
    id = home.steps()
    home.running_pid(id)
    turns = iter(range(3))

    restart_postgres()
    home.supervisor.run(lambda: next(turns, None) is None)  # at most an alarm

    job = home.finish(id)
    assert (job.state, job.attempt, job.result) == ("succeeded", 1, {"chain": chain()})


def test_homes_that_share_a_database_leave_each_other_s_jobs_alone(tmp_path: Path, new_postgres_database: Callable[[], Database]) -> None:
    database = new_postgres_database()
    here, there = Home(tmp_path / "here", database, haste=50), Home(tmp_path / "there", database)
    assert here.supervisor.home_id != there.supervisor.home_id == there.restart().home_id
    id = here.steps(is_held=True)
    pid = here.running_pid(id)
    bound = here.steps("bound", num_steps=1, home=there.supervisor.home_id)

    for _ in range(3):
        there.supervisor.tick()

    assert (here.job(id).pid, here.job(id).worker_id) == (pid, here.supervisor.id)
    assert there.job(bound).home == there.supervisor.home_id and there.job(bound).attempt == 1  # it did not wait for the slot here
    os.kill(pid, signal.SIGKILL)
    while start_time(pid) is not None:
        time.sleep(0.01)
    for _ in range(3):
        there.supervisor.tick()
    assert (here.job(id).state, here.job(id).attempt) == ("running", 1)  # only its own supervisor may say that it is gone
    here.let_go()
    assert here.finish(id).result == {"chain": chain()} and there.finish(bound).state == "succeeded"


def test_a_tick_does_not_read_through_the_jobs_that_are_over(home: Home) -> None:
    statements: list[tuple[str, Any]] = []
    home.steps(priority="saver", num_steps=500)
    home.tick_until(lambda: home.job(home.ids[0]).pid is not None)
    home.steps()

    event.listen(home.database.engine, "before_cursor_execute", lambda c, cursor, statement, values, *rest: statements.append((statement, values)))
    home.supervisor._last_beat = float("-inf")
    home.supervisor.tick()
    seen = list(statements)

    with home.database.reading() as connection:
        plans = [
            line[3]
            for statement, values in seen
            if statement.lstrip().upper().startswith(("SELECT", "UPDATE"))
            for line in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        ]
    assert len(plans) > 5 and [plan for plan in plans if plan.startswith("SCAN jobs")] == []


def test_a_jump_of_the_clock_ends_and_starts_nothing(home: Home) -> None:
    id = home.steps()
    home.running_pid(id)
    home.supervisor.clock = lambda: time.time() + 365 * 86400
    home.supervisor.tick()
    home.supervisor.clock = lambda: time.time() - 365 * 86400

    job = home.finish(id)

    assert (job.state, job.attempt, job.result) == ("succeeded", 1, {"chain": chain()})


def test_a_database_put_back_from_a_backup_gets_its_worker_again(home: Home) -> None:
    home.supervisor.tick()
    with home.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM workers")

    home.supervisor._last_beat = float("-inf")
    home.supervisor.tick()

    assert [worker.id for worker in home.call(workers.all_workers)] == [home.supervisor.id]


def test_a_process_of_another_version_is_understood_by_what_all_versions_write(home: Home) -> None:
    id = home.steps()
    home.call(jobs.claim, worker_id="gone", home="local", total_slots=1)
    write_json(home.attempt(id) / "pid.json", {"pid": 1, "started": 1})
    write_json(home.attempt(id) / "result.json", {"state": "succeeded", "result": {"chain": "of another version"}, "more": 1})

    home.supervisor.tick()

    assert (home.job(id).state, home.job(id).attempt, home.job(id).result) == ("succeeded", 1, {"chain": "of another version"})
