"""What experts do: order the queue by hand, try several settings, put runs side by side, run one again."""

import pytest
from studio_server import Served, Window

from danlu.files import write_json
from danlu.services.platform import jobs, runs, sweeps, views
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.runs import NewRun, Stop
from danlu.services.platform.views import Draft
from danlu.store.jobs import JOBS
from danlu.store.runs import RUNS

pytestmark = pytest.mark.slow
WAIT = 60_000
OWNER = Actor.local()
RECIPE = {"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"}


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
    stop = f"document.querySelector('li[data-job={three}] .danger')"
    page.evaluate(f"{stop}.isSame = true")
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
    assert page.evaluate(f"{stop}.isSame")  # whatever moves, a button stays the same one: pressed at that instant, it is pressed

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


def test_a_search_of_ranges_is_put_together_started_and_watched(window: Window, studio: Served, platform: Platform) -> None:
    page = window.go("/sweeps/new?dataset=danlu/zhangjiajie")
    page.click("text=Search ranges")
    page.wait_for_selector("text=12 members", timeout=WAIT)
    number = page.locator("input[aria-label='How many members']")
    number.fill("1")
    number.blur()
    page.wait_for_selector(".dl-btn.primary[aria-disabled=true]:has-text('Start the sweep')", timeout=WAIT)
    number.fill("5")
    number.blur()
    page.wait_for_selector("text=5 members", timeout=WAIT)
    page.check("[aria-label='Try Adapter size (rank)']")
    ranks = page.locator("input[aria-label^='Range of Adapter size']")
    ranks.fill("-8..8")
    ranks.blur()
    page.wait_for_selector(".dl-note.bad:has-text('method.rank')", timeout=WAIT)
    ranks.fill("2..8")
    ranks.blur()
    page.wait_for_selector(".dl-btn.primary:not([aria-disabled]):has-text('Start the sweep')", timeout=WAIT)
    page.click("main >> text=Start the sweep")
    page.wait_for_url("**/sweeps/run_*", timeout=WAIT)
    page.wait_for_selector("text=Optuna chooses the members", timeout=WAIT)
    run_id = page.url.rpartition("/")[2]
    (job,) = runs.list_run_jobs(platform, OWNER, run_id)
    assert job.payload["sweep"]["trials"] == 5 and job.payload["sweep"]["space"]["method.rank"] == "2..8"

    with platform.database.writing() as connection:
        JOBS.update(connection, job.id, state="running", attempt=1, started_at=1e9)
        RUNS.update(connection, run_id, state="running", started_at=1e9)
    member = {"rank": 1, "name": "001", "settings": {"optim.learning_rate": 0.00123, "method.rank": 7}, "validation_loss": 2.5, "best_step": 8}
    rows = [member | {"state": "trained", "steps": 8, "num_steps": 8, "note": "", "path": "/nowhere"}]
    write_json(platform.run_folder(run_id) / "sweep" / "results.json", {"state": "running", "members": rows})
    page.wait_for_selector("tbody tr:has-text('2.5'):has-text('7'):has-text('0.00123')", timeout=WAIT)
    page.click("text=Search again with changes")
    page.wait_for_selector("text=5 members", timeout=WAIT)
    assert page.locator("input[aria-label^='Range of Adapter size']").input_value() == "2..8" and window.said == []
    runs.stop_run(platform, OWNER, run_id, Stop(outcome="discard"))
    views.save_draft(platform, OWNER, "new_sweep", Draft())


def test_a_recipe_with_a_mistake_cannot_be_started_and_says_why(window: Window, studio: Served, platform: Platform) -> None:
    views.save_draft(platform, OWNER, "new_run", Draft(values=RECIPE | {"step": "review"}))
    num_runs = len(runs.list_runs(platform, OWNER, studio.project_id).items)
    page = window.go("/new-run")
    start = page.locator("button.dl-btn.primary:has-text('Start the run')")
    rank = page.locator("input[aria-label='method.rank']")
    rank.wait_for(timeout=WAIT)
    rank.fill("-1")
    rank.blur()
    page.wait_for_selector("text=The recipe has mistakes", timeout=WAIT)
    assert start.get_attribute("aria-disabled") == "true"
    why = page.inner_text(f"#{start.get_attribute('aria-describedby')}")
    assert "Put the mistakes right first" in why
    start.focus()  # whoever cannot see that it is grey reaches it, and hears why
    page.keyboard.press("Enter")
    page.wait_for_selector(f".dl-toast:has-text('{why}')", timeout=WAIT)
    assert len(runs.list_runs(platform, OWNER, studio.project_id).items) == num_runs

    rank.fill("3")
    rank.blur()
    page.wait_for_timeout(30)
    rank.fill("5")  # while the answer for 3 is awaited
    rank.blur()
    page.wait_for_selector("button.dl-btn.primary:not([aria-disabled]):has-text('Start the run')", timeout=WAIT)
    page.wait_for_selector("text=What will happen", timeout=WAIT)
    page.click("text=Advanced")
    page.click("summary:has-text('Recipe as YAML')")
    text = page.locator("textarea[aria-label='Recipe as YAML']")
    assert "rank: 5" in text.input_value()
    text.fill(text.input_value().replace("rank: 5", "rank: many"))
    text.blur()
    page.wait_for_selector("text=The recipe has mistakes", timeout=WAIT)
    assert start.get_attribute("aria-disabled") == "true"  # else what the form said before would be started
    text.fill(text.input_value().replace("rank: many", "rank: 5").replace("danlu/zhangjiajie", "danlu/support-en"))
    text.blur()
    page.wait_for_selector("button.dl-btn.primary:not([aria-disabled]):has-text('Start the run')", timeout=WAIT)
    page.click("main >> text=Simple")
    page.wait_for_selector("input[aria-label='method.rank']", timeout=WAIT)
    draft = views.get_draft(platform, OWNER, "new_run").values
    assert (draft["dataset"], draft["changes"]["method.rank"]) == ("danlu/support-en", 5) and window.said == []
    views.save_draft(platform, OWNER, "new_run", Draft())


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

    begun = RECIPE | {"name": "begun", "changes": {"method.rank": 3}}
    views.save_draft(platform, OWNER, "new_run", Draft(values=begun))
    page.click("a:has-text('rank five')")
    page.click("text=Run again with changes")
    page.click("text=Keep what I began", timeout=WAIT)
    page.wait_for_selector("text=What should it learn from?", timeout=WAIT)
    kept = views.get_draft(platform, OWNER, "new_run").values
    assert page.url.endswith("/new-run") and {name: kept[name] for name in begun} == begun
    page = window.go(f"/new-run?from={other.id}")
    page.wait_for_selector("text=You have already begun something here", timeout=WAIT)
    assert views.get_draft(platform, OWNER, "new_run").values == kept  # nothing is replaced before it was asked
    page.click("text=Replace it with the copy")
    rank = page.locator("input[aria-label='method.rank']")
    rank.wait_for(timeout=WAIT)
    assert (rank.input_value(), page.locator("input[aria-label='optim.learning_rate']").input_value()) == ("5", "0.0075")
    assert page.url.endswith("/new-run")  # a draft of its own from now on, which a reload shows
    assert views.get_draft(platform, OWNER, "new_run").values["changes"]["method.rank"] == 5
    page = window.go(f"/runs/compare?runs={other.id},run_none")
    assert page.locator("[role=alert]").count() == 1
    views.save_draft(platform, OWNER, "new_run", Draft())

    views.save_draft(platform, OWNER, "new_sweep", Draft(values=RECIPE | {"name": "begun"}))
    page = window.go(f"/sweeps/new?from={other.id}")
    page.wait_for_selector("text=You have already begun something here", timeout=WAIT)
    assert views.get_draft(platform, OWNER, "new_sweep").values["name"] == "begun"
    page.click("text=Replace it with the copy")
    page.wait_for_selector("main >> text=Start the sweep", timeout=WAIT)
    assert page.url.endswith("/sweeps/new") and views.get_draft(platform, OWNER, "new_sweep").values["name"] == ""
    views.save_draft(platform, OWNER, "new_sweep", Draft())


def test_a_run_that_succeeded_has_its_buttons_on_one_line_and_can_be_deleted(window: Window, studio: Served, platform: Platform) -> None:
    other = runs.submit_run(platform, OWNER, studio.project_id, NewRun(recipe=RECIPE, name="not wanted"))
    with platform.database.writing() as connection:
        (job,) = JOBS.all(connection, run_id=other.id)
        JOBS.update(connection, job.id, state="succeeded", finished_at=1e9)
        RUNS.update(connection, other.id, state="succeeded", finished_at=1e9)
    page = window.go(f"/runs/{other.id}")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.wait_for_selector("main .dl-btn:has-text('Delete run')", timeout=WAIT)
    assert len(set(page.locator("main .dl-head .dl-btn").evaluate_all("found => found.map(e => Math.round(e.getBoundingClientRect().top))"))) == 1
    page.click("main .dl-btn:has-text('Delete run')")
    assert "exports (0)" in page.inner_text(".dl-dialog")
    page.click(".dl-dialog .dl-btn.danger")
    page.wait_for_url("**/runs", timeout=WAIT)
    assert other.id not in {run.id for run in runs.list_runs(platform, OWNER, studio.project_id).items} and window.said == []
