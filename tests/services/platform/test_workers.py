"""Workers as people see them."""

import time

import pytest

from danlu.errors import SignInError
from danlu.services.platform.access import NOBODY, Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.workers import WorkerState, list_workers
from danlu.store import workers


def test_a_worker_that_is_not_heard_any_more_is_shown_as_gone(platform: Platform) -> None:
    now = time.time()
    alive = workers.Worker("wrk_1", "here", "a", "/a", 1, 1, 2, now, now - 4, "the disk is full")
    gone = workers.Worker("wrk_2", "there", "b", "/b", 1, 1, 1, now, now - 60)
    with platform.database.writing() as connection:
        for worker in (alive, gone):
            workers.register(connection, worker)

    assert list_workers(platform, Actor.local()) == [
        WorkerState("a", "here", True, 2, now - 4, "the disk is full"),
        WorkerState("b", "there", False, 1, now - 60, None),
    ]
    with pytest.raises(SignInError):
        list_workers(platform, NOBODY)


def test_the_next_worker_of_a_home_takes_the_place_of_the_last(platform: Platform) -> None:
    with platform.database.writing() as connection:
        for name in ("wrk_1", "wrk_2"):
            workers.register(connection, workers.Worker(name, "here", "a", "/a", 1, 1, 1, 0.0, 0.0))

        assert [worker.id for worker in workers.all_workers(connection)] == ["wrk_2"]
        assert workers.beat(connection, "wrk_2", 1.0) and not workers.beat(connection, "wrk_1", 1.0)
