"""The queue: order, slots, attempts, dependencies, and that nothing is ever started twice."""

import threading
import time
from typing import Any

import pytest

from danlu.errors import ConflictError
from danlu.store import jobs
from danlu.store.engine import Database
from danlu.store.jobs import JOBS, Job


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
            return [job.id for job in jobs.queue(connection)]


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

    queue.call(jobs.move, c, before=b)
    assert queue.order() == [a, c, b]
    queue.call(jobs.move, b, before=a)
    assert queue.order() == [b, a, c]
    queue.call(jobs.move, b)
    assert queue.order() == [a, c, b]
    queue.call(jobs.move, b, priority="express")
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
    assert sorted(queue.call(jobs.slots_of, started[n].id)[0] for n in range(3)) == [0, 1, 2]


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
    assert queue.claim() is None and queue.call(jobs.slots_of, id) == []


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
            return [job.id for job in jobs.to_preempt(connection, home="here", total_slots=2)]

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
