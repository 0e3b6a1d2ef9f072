"""The Python API: the same calls, results and errors on a home folder and on a server."""

from typing import Any

import pytest

from danlu import Recipe, Studio
from danlu.errors import ConflictError, DanluError, JobError, NotFoundError, RecipeError
from danlu.services.platform.jobs import Move
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import ProjectChange
from danlu.store import jobs, workers
from danlu.store.engine import Connection
from danlu.store.rows import Page
from danlu.store.runs import Run

RECIPE = {"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"}


def claim(connection: Connection, platform: Platform) -> jobs.Job:
    """Take the next job, as the home's worker does."""
    found = jobs.claim(connection, worker_id="w", home=workers.home_id(platform.database, platform.home), total_slots=1)
    assert found is not None
    return found


def finish(platform: Platform, state: str, error: DanluError | None = None) -> None:
    """Let the next job, and with it its run, be over, as a worker does."""
    with platform.database.writing() as connection:
        job = claim(connection, platform)
        jobs.finish(connection, job.id, job.attempt, state, error=error.to_dict() if error else None)


def test_a_project_is_made_read_changed_and_deleted(studio: Studio) -> None:
    made = studio.projects.create("support", "answers of the help desk")
    changed = studio.projects.change(made.id, ProjectChange(is_archived=True))

    assert (made.name, made.description, made.is_archived) == ("support", "answers of the help desk", False)
    assert changed.is_archived and changed.version == made.version + 1
    assert studio.projects.get(made.id) == changed
    assert studio.projects.list() == Page([changed], None)
    assert studio.projects.delete(made.id) is None  # type: ignore[func-returns-value]
    assert studio.projects.list() == Page([], None)


def test_pages_are_joined(studio: Studio) -> None:
    names = [studio.projects.create(f"p{number}").name for number in range(3)]

    first = studio.projects.list(limit=2)

    assert [project.name for project in first.items] == names[:0:-1] and first.next == first.items[-1].id
    assert [project.name for project in studio.projects.all()] == names[::-1]


def test_an_error_is_the_same_here_and_there(studio: Studio) -> None:
    with pytest.raises(NotFoundError) as caught:
        studio.projects.get("prj_" + "0" * 26)

    assert isinstance(caught.value, LookupError)
    assert caught.value.to_dict() == {
        "code": "DL710",
        "what": "there is no such project",
        "why": "the id is mistyped, it was deleted, or you are no member of its project",
        "fix": "list the projects and take an id from there",
    }


@pytest.mark.parametrize("recipe", [RECIPE, Recipe(base_model="danlu/tiny", dataset="danlu/zhangjiajie")], ids=["mapping", "recipe"])
def test_a_submitted_recipe_is_a_run_in_the_only_project(studio: Studio, recipe: Recipe) -> None:
    run = studio.runs.submit(recipe, name="first", priority="saver")

    [project] = studio.projects.all()
    [job] = run.jobs()
    assert project.name == "default" and isinstance(run.record, Run)
    assert (run.record.project_id, run.record.name, run.state) == (project.id, "first", "queued")
    assert (job.run_id, job.priority, job.state) == (run.id, "saver", "queued")
    assert studio.runs.get(run.id).record == run.record == studio.runs.list().items[0]
    assert studio.runs.submit(recipe).record.project_id == project.id


def test_every_mistake_of_a_recipe_is_told_and_nothing_is_queued(studio: Studio) -> None:
    project = studio.projects.create("p")

    with pytest.raises(RecipeError, match=r"2 mistakes[\s\S]*method: [\s\S]*optim.lr: "):
        studio.runs.submit({**RECIPE, "optim": {"lr": 1}, "method": "lorra"})

    assert studio.runs.list(project.id).items == []


def test_a_project_is_meant_by_name_id_or_default_and_never_guessed(studio: Studio) -> None:
    first, second = studio.projects.create("first"), studio.projects.create("second")

    assert [studio.project_id(name) for name in ("first", second.id)] == [first.id, second.id]
    with pytest.raises(ConflictError, match="2 projects could be meant: first .*, second"):
        studio.project_id()
    with pytest.raises(NotFoundError, match="no project 'third'"):
        studio.project_id("third")
    studio.default_project = "second"
    assert studio.runs.submit(RECIPE).record.project_id == second.id


def test_jobs_are_reordered_held_and_cancelled(studio: Studio) -> None:
    runs = [studio.runs.submit(RECIPE) for _ in range(3)]
    first, second, third = (run.jobs()[0].id for run in runs)

    studio.jobs.move(third, Move(before=first))
    studio.jobs.pause(second)
    assert runs[0].cancel().jobs()[0].state == "cancelled"
    assert [(job.id, job.state) for job in studio.jobs.queue()] == [(third, "queued"), (second, "paused")]
    assert studio.jobs.resume(second).state == "queued"


def test_a_log_is_followed_to_its_end_and_over_to_the_next_attempt(studio: Studio, platform: Platform, log_of: Any) -> None:
    [job] = studio.runs.submit(RECIPE).jobs()
    with platform.database.writing() as connection:
        claimed = claim(connection, platform)
    log_of(job.id, 1, "loading\n丹炉\n")
    assert claimed.id == job.id and "".join(studio.jobs.log(job.id)) == "loading\n丹炉\n"

    pieces = []
    for piece in studio.jobs.log(job.id, follow=True):
        pieces.append(piece)
        if "丹炉" in piece:
            log_of(job.id, 1, "second line\n")
        elif "second" in piece:
            with platform.database.writing() as connection:
                jobs.lost(connection, job.id, 1, reason="killed")
                claim(connection, platform)
            log_of(job.id, 2, "again\n")
        else:
            with platform.database.writing() as connection:
                jobs.finish(connection, job.id, 2, "succeeded")

    assert "".join(pieces) == "loading\n丹炉\nsecond line\nagain\n"


def test_waiting_ends_with_the_run(studio: Studio, platform: Platform) -> None:
    run = studio.runs.submit(RECIPE)
    with pytest.raises(JobError, match="is queued after 0.01 seconds"):
        run.wait(timeout_seconds=0.01, poll_seconds=0.01)
    finish(platform, "succeeded")

    assert run.wait().state == "succeeded"


def test_waiting_for_a_failed_run_raises_what_ended_it(studio: Studio, platform: Platform) -> None:
    run = studio.runs.submit(RECIPE)
    finish(platform, "failed", error := RecipeError("too long", why="a", fix="b"))

    with pytest.raises(RecipeError) as caught:
        run.wait()

    assert caught.value.to_dict() == error.to_dict()


def test_waiting_for_a_cancelled_run_says_so(studio: Studio, platform: Platform) -> None:
    run = studio.runs.submit(RECIPE)
    finish(platform, "cancelled")

    with pytest.raises(JobError, match="is cancelled"):
        run.wait()


def test_a_method_shows_its_parameters_and_its_help(studio: Studio) -> None:
    import inspect

    assert list(inspect.signature(studio.projects.list).parameters) == ["limit", "after"]
    assert "newest first" in (studio.projects.list.__doc__ or "")
