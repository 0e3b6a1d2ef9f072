"""The queue: order, slots, attempts, dependencies, and that nothing is ever started twice."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from danlu.errors import ConflictError, DatabaseError
from danlu.store import jobs
from danlu.store import queue as whole_queue
from danlu.store.engine import Database
from danlu.store.jobs import JOBS, Job
from danlu.store.projects import PROJECTS


class Queue:
    """One worker's view: every call is its own transaction."""

    def __init__(self, database: Database, project: str, *, slots: int = 1) -> None:
        self.database, self.project, self.slots = database, project, slots

    def add(self, **values: Any) -> str:
        with self.database.writing() as connection:
            return jobs.submit(connection, project_id=self.project, kind="train", payload={}, **values).id

    def claim(self, **values: Any) -> Job | None:
        with self.database.writing() as connection:
            return jobs.claim(connection, worker_id="w", home="here", total_slots=self.slots, **values)

    def start(self) -> Job:
        job = self.claim()
        assert job is not None
        return job

    def call(self, function: Any, *arguments: Any, **values: Any) -> Any:
        with self.database.writing() as connection:
            return function(connection, *arguments, **values)

    def state(self, id: str) -> str:
        with self.database.reading() as connection:
            return JOBS.get(connection, id).state

    def order(self) -> list[str]:
        with self.database.reading() as connection:
            return [job.id for job in whole_queue.unfinished(connection)]


@pytest.fixture
def queue(database: Database, project: str) -> Queue:
    return Queue(database, project)


def test_classes_go_before_places_and_places_in_order(queue: Queue) -> None:
    saver, first, second, express = queue.add(priority="saver"), queue.add(), queue.add(), queue.add(priority="express")

    assert queue.order() == [express, first, second, saver]
    started = []
    for _ in range(4):
        job = queue.start()
        started.append(job.id)
        queue.call(jobs.finish, job.id, job.attempt, "succeeded")
    assert started == [express, first, second, saver] and queue.claim() is None


def test_a_job_can_be_moved_before_another_and_into_another_class(queue: Queue) -> None:
    a, b, c = queue.add(), queue.add(), queue.add()

    queue.call(whole_queue.move, c, before=b)
    assert queue.order() == [a, c, b]
    queue.call(whole_queue.move, b, before=a)
    assert queue.order() == [b, a, c]
    queue.call(whole_queue.move, b)
    assert queue.order() == [a, c, b]
    queue.call(whole_queue.move, b, priority="express")
    assert queue.order() == [b, a, c]


def test_slots_are_never_given_twice(database: Database, project: str) -> None:
    queue = Queue(database, project, slots=3)
    for _ in range(12):
        queue.add()
    started: list[Job] = []

    def take() -> None:
        while (job := queue.claim()) is not None:
            started.append(job)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({job.id for job in started}) == len(started) == 3
    assert sorted(queue.call(whole_queue.slots_of, started[n].id)[0] for n in range(3)) == [0, 1, 2]


def test_a_job_of_two_slots_is_not_overtaken_by_small_ones(database: Database, project: str) -> None:
    queue = Queue(database, project, slots=2)
    small, large, later = queue.add(), queue.add(num_slots=2), queue.add()
    running = queue.start()
    assert running.id == small and queue.claim() is None  # one slot is free, and kept for the large one

    queue.call(jobs.finish, small, running.attempt, "succeeded")
    large_job = queue.start()

    assert large_job.id == large and queue.claim() is None
    queue.call(jobs.finish, large, large_job.attempt, "succeeded")
    assert queue.start().id == later


def test_a_job_for_tonight_waits_and_holds_up_nobody(queue: Queue) -> None:
    tonight, now = queue.add(not_before=time.time() + 3600, priority="express"), queue.add()

    assert queue.start().id == now
    queue.call(jobs.finish, now, 1, "succeeded")
    assert queue.claim() is None
    later = queue.claim(now=time.time() + 3601)
    assert later is not None and later.id == tonight


def test_a_chain_starts_link_by_link_and_a_broken_one_is_cancelled_to_its_end(queue: Queue) -> None:
    train = queue.add()
    evaluate = queue.add(needs=[train])
    report = queue.add(needs=[evaluate])
    assert [queue.state(id) for id in (train, evaluate, report)] == ["queued", "waiting", "waiting"]

    job = queue.start()
    queue.call(jobs.finish, job.id, job.attempt, "succeeded")
    assert [queue.state(id) for id in (evaluate, report)] == ["queued", "waiting"]
    job = queue.start()
    queue.call(jobs.finish, job.id, job.attempt, "failed", error={"code": "DL500"})

    assert [queue.state(id) for id in (train, evaluate, report)] == ["succeeded", "failed", "cancelled"]
    queue.call(jobs.resume, evaluate)
    queue.call(jobs.resume, report)
    assert [queue.state(id) for id in (evaluate, report)] == ["queued", "waiting"]


def test_an_attempt_that_was_given_up_cannot_write_any_more(queue: Queue) -> None:
    id = queue.add()
    old = queue.start()
    queue.call(jobs.lost, id, old.attempt, reason="its process is gone")
    new = queue.start()
    assert new.attempt == old.attempt + 1

    for function in (lambda c: jobs.finish(c, id, old.attempt, "succeeded"), lambda c: jobs.beat(c, id, old.attempt, progress=9.0)):
        with pytest.raises(ConflictError, match="newer attempt"):
            queue.call(function)

    assert queue.state(id) == "running"
    assert queue.call(jobs.finish, id, new.attempt, "succeeded").state == "succeeded"


def test_only_attempts_without_progress_use_up_the_patience(queue: Queue) -> None:
    id = queue.add()
    for number in range(10):
        job = queue.start()
        queue.call(jobs.beat, id, job.attempt, progress=float(number + 1))
        queue.call(jobs.lost, id, job.attempt, reason="killed")
    assert queue.state(id) == "queued"

    for _ in range(jobs.MAX_ATTEMPTS_WITHOUT_PROGRESS):
        job = queue.start()
        ended = queue.call(jobs.lost, id, job.attempt, reason="killed by signal 9")

    assert ended.state == "failed" and ended.error["code"] == "DL720" and ended.error["why"] == "killed by signal 9"
    assert queue.claim() is None and queue.call(whole_queue.slots_of, id) == []


def test_what_was_cancelled_is_never_shown_as_finished(queue: Queue) -> None:
    id = queue.add()
    job = queue.start()
    assert queue.call(jobs.cancel, id).state == "cancelling"

    ended = queue.call(jobs.finish, id, job.attempt, "succeeded", result={"x": 1})

    assert (ended.state, ended.result) == ("cancelled", None)
    with pytest.raises(ConflictError, match="is over"):
        queue.call(jobs.cancel, id)


def test_a_cancelled_job_that_dies_is_cancelled_and_one_that_waits_at_once(queue: Queue) -> None:
    running, queued = queue.add(), queue.add()
    job = queue.start()
    queue.call(jobs.cancel, running)

    assert queue.call(jobs.lost, running, job.attempt, reason="killed").state == "cancelled"
    assert queue.call(jobs.cancel, queued).state == "cancelled"


def test_a_paused_job_goes_on_where_it_was(queue: Queue) -> None:
    id = queue.add()
    job = queue.start()
    assert queue.call(jobs.pause, id).state == "pausing"
    queue.call(jobs.beat, id, job.attempt, progress=5.0)
    assert queue.call(jobs.finish, id, job.attempt, "paused").state == "paused"
    assert queue.claim() is None

    assert queue.call(jobs.resume, id).state == "queued"
    again = queue.start()
    assert (again.attempt, again.progress, again.started_at) == (2, 5.0, job.started_at)


def test_savers_make_room_for_who_waits_above_them(database: Database, project: str) -> None:
    queue = Queue(database, project, slots=2)
    old, young = queue.add(priority="saver"), queue.add(priority="saver")
    queue.start()
    second = queue.start()

    def preempted() -> list[str]:
        with database.reading() as connection:
            return [job.id for job in whole_queue.to_preempt(connection, home="here", total_slots=2)]

    assert preempted() == []
    queue.add(priority="saver")
    assert preempted() == []
    queue.add()
    assert preempted() == [young] and young == second.id != old
    queue.call(jobs.pause, young)
    assert preempted() == []  # it is leaving: no second victim
    queue.add(priority="express", num_slots=2)
    assert preempted() == [old]


def test_a_job_that_needs_more_slots_than_there_are_blocks_nobody(queue: Queue) -> None:
    queue.add(num_slots=9, priority="express")
    small = queue.add()

    assert queue.start().id == small


def at_once(*calls: Callable[[], object]) -> list[object]:
    """Call all of them in threads; return what they returned or raised."""
    found: list[object] = [None] * len(calls)

    def do(number: int) -> None:
        try:
            found[number] = calls[number]()
        except ConflictError as error:
            found[number] = error

    threads = [threading.Thread(target=do, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_a_cancel_and_an_end_at_the_same_time_agree(queue: Queue) -> None:
    for _ in range(10):
        id = queue.add()
        job = queue.start()

        cancelled, ended = at_once(lambda: queue.call(jobs.cancel, id), lambda: queue.call(jobs.finish, id, job.attempt, "succeeded"))  # noqa: B023

        if isinstance(cancelled, ConflictError):  # it came too late and was told so
            assert queue.state(id) == "succeeded"
        else:
            assert queue.state(id) == "cancelled" and isinstance(ended, Job) and ended.state == "cancelled"
        assert queue.call(whole_queue.slots_of, id) == []


def test_a_job_that_needs_two_starts_when_both_end_at_the_same_time(database: Database, project: str) -> None:
    queue = Queue(database, project, slots=2)
    for _ in range(10):
        first, second = queue.add(), queue.add()
        last = queue.add(needs=[first, second])
        started = [queue.start(), queue.start()]

        at_once(*(lambda job=job: queue.call(jobs.finish, job.id, job.attempt, "succeeded") for job in started))

        assert queue.state(last) == "queued"
        queue.call(jobs.cancel, last)


def test_jobs_get_places_of_their_own_when_many_are_submitted_at_the_same_time(queue: Queue) -> None:
    at_once(*([queue.add] * 8))

    with queue.database.reading() as connection:
        assert len({job.position for job in whole_queue.unfinished(connection)}) == 8


def test_a_job_stays_with_the_home_that_began_it(queue: Queue) -> None:
    id, elsewhere = queue.add(), queue.add(home="there")
    job = queue.start()
    queue.call(jobs.finish, id, job.attempt, "queued")

    def claim(home: str) -> Job | None:
        return queue.call(jobs.claim, worker_id="w", home=home, total_slots=1)

    there = claim("there")
    assert there is not None and there.id == elsewhere and claim("there") is None
    again = queue.start()
    assert (again.id, again.home, again.attempt) == (id, "here", 2)
    with queue.database.reading() as connection:
        assert [[job.id for job in whole_queue.held(connection, home)] for home in ("here", "there")] == [[id], [elsewhere]]


def test_savers_of_another_home_are_not_sent_away(queue: Queue) -> None:
    queue.add(priority="saver")
    queue.call(jobs.claim, worker_id="w", home="there", total_slots=1)
    queue.add(priority="express")

    with queue.database.reading() as connection:
        assert whole_queue.to_preempt(connection, home="here", total_slots=1) == []


def test_a_job_that_rests_is_passed_over_and_so_is_one_that_cannot_pause(queue: Queue) -> None:
    saver = queue.add(priority="saver")
    queue.start()
    express = queue.add(priority="express")

    def preempted(**values: Any) -> list[str]:
        with queue.database.reading() as connection:
            return [job.id for job in whole_queue.to_preempt(connection, home="here", total_slots=1, **values)]

    assert preempted() == [saver]
    assert preempted(resting=[express]) == [] == preempted(may_pause=lambda job: False)


def test_a_job_is_moved_between_the_same_two_for_ever(queue: Queue) -> None:
    ids = [queue.add() for _ in range(3)]
    for _ in range(70):  # a float between two others is halved about 50 times
        ids = [ids[1], ids[0], ids[2]]
        queue.call(whole_queue.move, ids[0], before=ids[1])
        assert queue.order() == ids
    for _ in range(70):
        ids = [ids[0], ids[2], ids[1]]
        queue.call(whole_queue.move, ids[1], before=ids[2])
        assert queue.order() == ids


def test_attempts_that_were_told_to_stop_use_up_no_patience(queue: Queue) -> None:
    id = queue.add()
    for _ in range(jobs.MAX_ATTEMPTS_WITHOUT_PROGRESS + 1):
        job = queue.start()
        queue.call(jobs.pause, id, requeue=True)
        assert queue.call(jobs.lost, id, job.attempt, reason="killed").state == "queued"
    job = queue.start()
    queue.call(jobs.pause, id)
    assert queue.call(jobs.lost, id, job.attempt, reason="killed").state == "paused"


def test_a_full_database_refuses_and_loses_nothing(tmp_path: Path, sqlite_template: Path) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "danlu.sqlite")
    database = Database(f"sqlite:///{tmp_path / 'danlu.sqlite'}")
    with database.writing() as connection:
        project = PROJECTS.insert(connection, name="p", description="", created_by=None, is_archived=False).id
    queue = Queue(database, project)
    kept = queue.add()
    with database.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    event.listen(database.engine, "checkout", lambda connection, *rest: connection.execute(f"PRAGMA max_page_count={pages}"))

    with pytest.raises(DatabaseError, match="full") as caught:
        for _ in range(1000):
            queue.add(created_by=None, run_id=None, needs=[kept])

    assert "make room" in caught.value.fix and queue.state(kept) == "queued"
    database.close()


def test_what_is_submitted_through_a_home_stays_with_it(queue: Queue) -> None:
    queue.database.use_for("there")
    queue.add()

    assert queue.claim() is None
    there = queue.call(jobs.claim, worker_id="w", home="there", total_slots=1)
    assert there.home == "there"
