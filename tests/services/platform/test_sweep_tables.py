"""What a sweep shows while it is at work: planned members, live numbers, who was left and where, and curves."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from danlu.errors import NotFoundError, RecipeError
from danlu.files import write_json
from danlu.services.platform import projects, runs, sweeps
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.services.platform.runs import NewRun
from danlu.services.platform.sweeps import NewSweep, Rung, SweepPreview
from danlu.store.jobs import JOBS
from danlu.store.runs import Run

OWNER = Actor.local()
RECIPE: dict[str, Any] = {"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"}


@pytest.fixture
def project(platform: Platform) -> str:
    return projects.create_project(platform, OWNER, NewProject(name="p")).id


@pytest.fixture
def sweep(platform: Platform, project: str) -> Run:
    body = NewSweep(recipe=RECIPE, sweep={"set": {"method.rank": [2, 4, 8]}, "rungs": 1}, name="ranks")
    return sweeps.submit_sweep(platform, OWNER, project, body)


def at_work(platform: Platform, run: Run, state: str) -> Path:
    """Put the job into a state; return the sweep's folder."""
    with platform.database.writing() as connection:
        JOBS.update(connection, runs.list_run_jobs(platform, OWNER, run.id)[0].id, state=state)
    return platform.run_folder(run.id) / "sweep"


def row(name: str, rank: int, state: str, **values: Any) -> dict[str, Any]:
    nothing = {"validation_loss": None, "best_step": None, "steps": 0, "num_steps": 10, "note": "", "path": f"/secret/{name}"}
    return {"rank": 1, "name": name, "settings": {"method.rank": rank}, "state": state, **nothing, **values}


def measure(folder: Path, name: str, *lines: dict[str, Any], rest: bytes = b"") -> None:
    path = folder / "runs" / name / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines) + rest)


def test_a_sweep_that_has_not_begun_shows_what_it_will_try(platform: Platform, sweep: Run) -> None:
    table = sweeps.get_sweep(platform, OWNER, sweep.id)

    assert (table.state, table.best, table.num_members) == ("queued", None, 3)
    assert [(one.rank, one.name, one.settings, one.state) for one in table.members] == [
        (1, "001", {"method.rank": 2}, "waiting"),
        (2, "002", {"method.rank": 4}, "waiting"),
        (3, "003", {"method.rank": 8}, "waiting"),
    ]
    assert sweeps.get_sweep_curves(platform, OWNER, sweep.id) == []


def test_members_are_ranked_by_what_they_have_measured_since_the_table_was_written(platform: Platform, sweep: Run) -> None:
    folder = at_work(platform, sweep, "running")
    left = row("001", 2, "left", validation_loss=3.0, best_step=4, steps=5, note="rung 1")
    write_json(folder / "results.json", {"state": "running", "members": [left, row("002", 4, "training"), row("003", 8, "failed", note="diverged")]})
    measure(folder, "002", {"step": 1, "loss": 5.0, "num_steps": 12}, {"step": 6, "loss": 2.0, "num_steps": 12}, {"step": 6, "validation_loss": 2.5})

    table = sweeps.get_sweep(platform, OWNER, sweep.id)
    assert table.state == "running" and "path" not in str(table)
    assert [(one.rank, one.name, one.state, one.validation_loss, one.best_step, one.steps, one.num_steps, one.note) for one in table.members] == [
        (1, "002", "training", 2.5, 6, 6, 12, ""),
        (2, "001", "left", 3.0, 4, 5, 10, "rung 1"),
        (3, "003", "failed", None, None, 0, 10, "diverged"),
    ]

    measure(folder, "002", {"step": 8, "validation_loss": 3.5}, rest=b'{"step": 9, "loss')
    assert [one.name for one in sweeps.get_sweep(platform, OWNER, sweep.id).members] == ["001", "002", "003"]


@pytest.mark.parametrize(("job", "said", "state"), [("failed", "running", "failed"), ("paused", "paused", "paused"), ("succeeded", "finished", "finished")])
def test_a_sweep_that_does_not_run_is_what_its_job_is(platform: Platform, sweep: Run, job: str, said: str, state: str) -> None:
    folder = at_work(platform, sweep, job)
    write_json(folder / "results.json", {"state": said, "best": "001", "members": [row("001", 2, "trained")]})

    assert sweeps.get_sweep(platform, OWNER, sweep.id).state == state


def test_curves_of_members_are_told_by_name(platform: Platform, sweep: Run) -> None:
    folder = at_work(platform, sweep, "running")
    for name in ("001", "002"):
        measure(folder, name, {"step": 1, "loss": 5.0}, {"step": 2, "loss": 4.0}, {"step": 2, "validation_loss": 4.5})

    found = sweeps.get_sweep_curves(platform, OWNER, sweep.id, names="002,../001,none")

    assert [one.name for one in found] == ["002"]
    assert [(curve.name, curve.steps, curve.values) for curve in found[0].curves] == [("loss", [1, 2], [5.0, 4.0]), ("validation_loss", [2], [4.5])]
    assert [one.name for one in sweeps.get_sweep_curves(platform, OWNER, sweep.id)] == ["001", "002"]


def test_sweeps_are_listed_without_other_runs(platform: Platform, project: str, sweep: Run) -> None:
    runs.submit_run(platform, OWNER, project, NewRun(recipe=RECIPE))
    second = sweeps.submit_sweep(platform, OWNER, project, NewSweep(recipe=RECIPE, sweep={"set": {"seed": [0, 1]}}))

    page = sweeps.list_sweeps(platform, OWNER, project, limit=1)
    assert [(one.run.id, one.num_members) for one in page.items] == [(second.id, 2)]
    rest = sweeps.list_sweeps(platform, OWNER, project, after=page.next)
    assert [(one.run.name, one.num_members, one.sweep["set"]) for one in rest.items] == [("ranks", 3, {"method.rank": [2, 4, 8]})]
    with pytest.raises(NotFoundError, match="no sweep"):
        sweeps.get_sweep_curves(platform, OWNER, runs.list_runs(platform, OWNER, project).items[1].id)


def test_a_preview_tells_members_comparisons_and_steps(platform: Platform, project: str) -> None:
    recipe = RECIPE | {"training": {"validate_every_steps": 10}, "optim": {"learning_rate": 1e-3}}
    chosen = {"set": {"method.rank": [2, 4], "seed": [0, 1]}, "rungs": 2}

    found = sweeps.preview_sweep(platform, OWNER, project, SweepPreview(recipe=recipe, sweep=chosen, num_steps=100))

    assert (found.is_ready, found.mistakes, found.num_members, found.members[1]) == (True, [], 4, {"method.rank": 2, "seed": 1})
    assert found.rungs == [Rung(30, 2), Rung(50, 1)] and found.num_steps == 4 * 30 + 2 * 20 + 50
    assert found.suggestions["optim.learning_rate"] == [0.0003, 0.001, 0.003]
    searched = sweeps.preview_sweep(platform, OWNER, project, SweepPreview(recipe=recipe, sweep={"trials": 5, "space": found.ranges}, num_steps=100))
    assert (searched.num_members, searched.members, searched.num_steps) == (5, [], 500)
    assert found.ranges["optim.learning_rate"] == "0.0001..0.01:log"
    unknown = sweeps.preview_sweep(platform, OWNER, project, SweepPreview(recipe=RECIPE, sweep=chosen))
    assert (unknown.rungs, unknown.num_steps) == ([], None)


@pytest.mark.parametrize(
    ("recipe", "chosen", "told"),
    [
        ({}, {"set": {"method.rank": [4, -1]}}, "method.rank"),
        ({}, {"set": {"dataset": ["danlu/zhangjiajie", "danlu/support-en"]}}, "dataset cannot be swept"),
        ({}, {"set": {"data": [{"mix": {"/etc/passwd": 0.1}}]}}, "data cannot be swept"),
        ({}, {"trials": 2, "space": {"evaluation.suites": "a|b"}}, "evaluation.suites cannot be swept"),
        ({}, {"trials": 2, "space": {"method.rank": "-4..8"}}, "method.rank"),
        ({}, {"trials": 2, "space": {"method.rank": "8..4"}}, "is no range"),
        ({}, {"trials": 300, "space": {"method.rank": "4..8"}}, "300 members"),
        ({}, {"set": {"seed": [1, 1]}}, "names a value twice"),
        ({}, {"set": {"seed": list(range(300))}}, "300 members"),
        ({"data": {"split": {"validation": 0}}}, {"set": {"seed": [0, 1]}}, "data.split.validation"),
    ],
)
def test_a_preview_tells_what_is_wrong(platform: Platform, project: str, recipe: dict[str, Any], chosen: dict[str, Any], told: str) -> None:
    found = sweeps.preview_sweep(platform, OWNER, project, SweepPreview(recipe=RECIPE | recipe, sweep=chosen))

    assert not found.is_ready and len(found.mistakes) == 1 and told in found.mistakes[0]
    with pytest.raises(RecipeError):
        sweeps.preview_sweep(platform, OWNER, project, SweepPreview(recipe=RECIPE | {"seed": "x"}, sweep=chosen))
