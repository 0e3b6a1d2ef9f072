"""What experts do: order the queue by hand, try several settings, put runs side by side, run one again."""

from collections.abc import Iterator
from typing import Any

import pytest
from studio_server import Served, Window

from danlu.files import write_json
from danlu.services.platform import jobs, runs, sweeps, views
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.runs import NewRun, Stop
from danlu.services.platform.views import Draft
from danlu.settings import Settings
from danlu.store.jobs import JOBS
from danlu.store.runs import RUNS

pytestmark = pytest.mark.slow
WAIT = 60_000
OWNER = Actor.local()
RECIPE = {"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"}


@pytest.fixture
def window(browser: Any, studio: Served) -> Iterator[Window]:
    opened = Window(browser, studio)
    yield opened
    opened.context.close()


@pytest.fixture
def platform(studio: Served) -> Iterator[Platform]:
    opened = Platform.open(Settings(home=studio.home))
    yield opened
    opened.close()


def test_the_queue_is_ordered_by_hand_by_keyboard_and_by_class(window: Window, studio: Served, platform: Platform) -> None:
    made = [runs.submit_run(platform, OWNER, studio.project_id, NewRun(recipe=RECIPE, name=f"queue {n}")) for n in range(3)]
    one, two, three = (runs.list_run_jobs(platform, OWNER, run.id)[0].id for run in made)
    page = window.go("/queue")

    def order(*wanted: str) -> None:
        of_ours = f"[...document.querySelectorAll('li[data-job]')].map(e => e.dataset.job).filter(id => {list(wanted)}.includes(id)).join()"
        page.wait_for_function(f"{of_ours} === '{','.join(wanted)}'", timeout=WAIT)

    def drag(job: str, target: str, *, to_end: bool = False) -> None:
        height = page.locator(f"li[data-job={target}]").bounding_box()["height"]
        place = {"x": 6, "y": height - 4 if to_end else 4}
        page.drag_and_drop(f"li[data-job={job}]", f"li[data-job={target}]", source_position={"x": 6, "y": 6}, target_position=place)

    order(one, two, three)
    drag(three, one)
    order(three, one, two)
    drag(three, two, to_end=True)
    order(one, two, three)
    page.focus(f"li[data-job={three}] [aria-label=Earlier]")
    page.keyboard.press("Enter")
    order(one, three, two)
    page.wait_for_function(f"document.activeElement.dataset.move === 'up {three}'", timeout=WAIT)  # where it was: pressed again, it goes on
    page.keyboard.press("Enter")
    order(three, one, two)
    page.click(f"li[data-job={two}] .q-select")
    page.click(".q-menu >> text=Express")
    order(two, three, one)

    for job in (one, two, three):
        page.click(f"li[data-job={job}] >> text=Stop")
        page.click(".dl-dialog .dl-btn.danger")
        page.wait_for_selector(f"li[data-job={job}]", state="detached", timeout=WAIT)
    assert {jobs.get_job(platform, OWNER, job).state for job in (one, two, three)} == {"cancelled"} and window.said == []
    for run in made:
        runs.stop_run(platform, OWNER, run.id, Stop(outcome="discard"))


def test_a_sweep_is_put_together_started_watched_and_told_of_when_it_fails(window: Window, studio: Served, platform: Platform) -> None:
    page = window.go("/sweeps/new?dataset=danlu/zhangjiajie")
    page.wait_for_selector("text=3 members", timeout=WAIT)
    page.check("[aria-label='Try Seed']")
    page.wait_for_selector("text=9 members", timeout=WAIT)
    rates = page.locator("input[aria-label^='Values of Learning rate']")
    rates.fill("1e-3, nonsense")
    rates.blur()
    page.wait_for_selector(".dl-note.bad:has-text('optim.learning_rate')", timeout=WAIT)
    rates.fill("1e-3, 1e-2")
    rates.blur()
    page.wait_for_selector("text=6 members", timeout=WAIT)
    window.reload()
    page.wait_for_selector("text=6 members", timeout=WAIT)  # what was entered is kept
    page.click("main >> text=Start the sweep")
    page.wait_for_url("**/sweeps/run_*", timeout=WAIT)
    window.ready()
    run_id = page.url.rpartition("/")[2]
    page.wait_for_selector("tbody tr >> nth=5", timeout=WAIT)

    with platform.database.writing() as connection:
        job = JOBS.all(connection, run_id=run_id)[0]
        JOBS.update(connection, job.id, state="running", attempt=1, started_at=1e9)
        RUNS.update(connection, run_id, state="running", started_at=1e9)
    rows = [
        {"rank": 1, "name": "002", "settings": {"optim.learning_rate": 0.01, "seed": 0}, "validation_loss": 2.125, "best_step": 8, "state": "training"},
        {"rank": 2, "name": "001", "settings": {"optim.learning_rate": 0.001, "seed": 0}, "validation_loss": 3.5, "best_step": 5, "state": "left"},
    ]
    whole = [{"steps": 8, "num_steps": 20, "note": "", "path": "/nowhere"} | row for row in rows]
    write_json(platform.run_folder(run_id) / "sweep" / "results.json", {"state": "running", "members": whole})
    page.wait_for_selector("tbody tr:has-text('2.125'):has-text('Training')", timeout=WAIT)
    assert "Stopped at step 8" in page.inner_text("tbody tr >> nth=1")
    with platform.database.writing() as connection:
        error = {"what": "memory ran out", "why": "it did", "fix": "try a smaller rank"}
        JOBS.update(connection, job.id, state="failed", error=error, finished_at=1e9 + 9)
        RUNS.update(connection, run_id, state="failed", error=error, finished_at=1e9 + 9)
    for _ in range(2):  # by itself, and after a reload
        page.wait_for_selector("text=memory ran out", timeout=WAIT)
        page.wait_for_selector("tbody tr:has-text('Unfinished')", timeout=WAIT)
        page.wait_for_selector("main >> text=Resume", timeout=WAIT)
        window.reload()
    assert sweeps.get_sweep(platform, OWNER, run_id).num_members == 6
    assert window.said == []
    runs.stop_run(platform, OWNER, run_id, Stop(outcome="discard"))


def test_runs_are_put_side_by_side_and_one_is_run_again_as_it_was(window: Window, studio: Served, platform: Platform) -> None:
    recipe = RECIPE | {"method": {"type": "lora", "rank": 5}, "optim": {"learning_rate": 0.0075}}
    other = runs.submit_run(platform, OWNER, studio.project_id, NewRun(recipe=recipe, name="rank five"))
    page = window.go("/runs")
    assert page.locator("main .dl-btn[aria-disabled=true]:has-text('Compare (0)')").count() == 1
    page.check("[aria-label='Compare: rank five']")
    page.check("[aria-label='Compare: Doors <i>1</i>']")
    page.click("a:has-text('Compare (2)')")
    page.wait_for_url("**/runs/compare?runs=*", timeout=WAIT)
    page.wait_for_selector("tr:has-text('method.rank')", timeout=WAIT)
    page.wait_for_function("[...document.querySelectorAll('.dl-chart')].filter(e => e.querySelector('canvas')).length >= 2", timeout=WAIT)
    assert page.locator("tr:has-text('method.rank') td").all_inner_texts()[:2] == ["method.rank", "5"]
    assert "Same in all" in page.inner_text("main")

    page.click("a:has-text('rank five')")
    page.click("text=Run again with changes")
    rank = page.locator("input[aria-label='method.rank']")
    rank.wait_for(timeout=WAIT)
    assert (rank.input_value(), page.locator("input[aria-label='optim.learning_rate']").input_value()) == ("5", "0.0075")
    assert page.url.endswith("/new-run")  # a draft of its own from now on, which a reload shows
    assert views.get_draft(platform, OWNER, "new_run").values["changes"]["method.rank"] == 5
    page = window.go(f"/runs/compare?runs={other.id},run_none")
    assert page.locator("[role=alert]").count() == 1
    runs.stop_run(platform, OWNER, other.id, Stop(outcome="discard"))
    views.save_draft(platform, OWNER, "new_run", Draft())
