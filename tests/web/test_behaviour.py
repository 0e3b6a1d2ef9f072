"""What a page is trusted with: it comes back as it was, it moves by itself, and it says kindly what cannot be."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from studio_server import Served, Window, serve

from danlu.services.platform import datasets, jobs, rows, runs, views, votes
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.runs import NewRun
from danlu.services.platform.views import Draft
from danlu.store import measurements
from danlu.store.jobs import JOBS
from danlu.store.measurements import Point, read_of
from danlu.store.runs import RUNS

WAIT = 60_000
OWNER = Actor.local()


@pytest.fixture
def no_choice(studio: Served) -> Iterator[None]:
    """The owner of the machine has chosen nothing, before and after: the other tests follow the browser."""
    chosen = studio.home / "studio" / "owner.json"
    chosen.unlink(missing_ok=True)
    yield
    chosen.unlink(missing_ok=True)


@pytest.mark.slow
def test_language_and_theme_are_remembered_for_every_browser(browser: Any, studio: Served, window: Window, no_choice: None) -> None:
    page = window.go("/settings")
    page.click(".dl-navfoot >> text=\u4e2d\u6587")
    page.wait_for_selector("h1:has-text('\u8bbe\u7f6e')", timeout=WAIT)
    page.click(".dl-navfoot >> text=\u6df1\u8272")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'", timeout=WAIT)

    other = Window(browser, studio, scheme="light", language="en")
    assert other.go("/help").inner_text("h1") == "\u5e2e\u52a9"
    assert other.page.evaluate("document.documentElement.dataset.theme") == "dark"
    other.page.click(".dl-navfoot >> text=English")
    other.page.wait_for_selector("h1:has-text('Help')", timeout=WAIT)
    other.page.click(".dl-navfoot >> text=Auto")
    other.page.wait_for_function("document.documentElement.dataset.theme === 'auto'", timeout=WAIT)
    other.context.close()


@pytest.mark.slow
def test_a_half_filled_form_survives_a_restart_of_the_server(browser: Any, window: Window, studio: Served) -> None:
    talking = Window(browser, studio)
    talking.go("/chat").fill(".dl-composer textarea >> nth=0", "half a question")
    talking.page.evaluate("window.isOld = true")
    page = window.go("/new-run?dataset=danlu/support-en")
    page.click("text=To think step by step")
    page.wait_for_selector(".dl-option[aria-pressed=true]:has-text('step by step')", timeout=WAIT)
    page.goto("about:blank")  # else it loads itself again once the server is back, which may come between
    port = int(studio.url.rpartition(":")[2])

    studio.process.send_signal(signal.SIGKILL)
    studio.process.wait(timeout=60)
    talking.page.wait_for_selector("#popup[aria-hidden=false]:has-text('The server cannot be reached')", timeout=WAIT)
    studio.process, _ = serve(studio.home, port)

    page = window.go("/new-run")
    assert page.inner_text(".dl-steps li[aria-current=step]").endswith("Model and goal")
    assert "step by step" in page.inner_text(".dl-option[aria-pressed=true] >> nth=1")
    talking.page.wait_for_function("!window.isOld && document.querySelector('.dl-composer textarea')?.value === 'half a question'", timeout=WAIT)
    talking.context.close()


@pytest.mark.slow
def test_a_run_moves_in_every_tab_without_a_reload(browser: Any, studio: Served, window: Window, platform: Platform) -> None:
    run = next(run for run in _runs(platform, studio.project_id) if run.state == "queued")
    tabs = [window, Window(browser, studio, language="zh")]
    for tab in tabs:
        tab.go(f"/runs/{run.id}")

    with platform.database.writing() as connection:
        job = JOBS.all(connection, run_id=run.id)[0]
        JOBS.update(connection, job.id, state="running", attempt=1, started_at=1e9)
        RUNS.update(connection, run.id, state="running", started_at=1e9)
        points = [Point(step, "train", {"loss": 4.25 - step, "num_steps": 3}) for step in (1, 2)] + [Point(2, "validation", {"validation_loss": 3.125})]
        measurements.store(connection, read_of(connection, run.id), points)
    for tab, told in zip(tabs, ("Step 2 of 3", "\u7b2c 2 \u6b65\uff0c\u5171 3 \u6b65"), strict=True):
        tab.page.wait_for_selector(f"text={told}", timeout=WAIT)
        assert "2.25" in tab.page.inner_text("main") and "3.125" in tab.page.inner_text("main")
    window.page.wait_for_selector(".dl-chart:not(.small) canvas", timeout=WAIT)
    assert not window.page.locator(".dl-chart.small canvas").count(), "nobody has unfolded these"
    window.page.click("text=More curves")
    window.page.wait_for_function("[...document.querySelectorAll('.dl-chart.small')].every(e => e.querySelector('canvas'))", timeout=WAIT)
    with platform.database.writing() as connection:  # what was foretold before the start comes after it
        RUNS.update(connection, run.id, summary={"forecast": {"training_seconds": 7800.0}})
    for tab, told in zip(tabs, ("2 h 10 min", "2 \u5c0f\u65f6 10 \u5206"), strict=True):
        tab.page.wait_for_selector(f"main td:has-text('{told}')", timeout=WAIT)
        assert tab.said == []
    with platform.database.writing() as connection:
        RUNS.update(connection, run.id, state="queued", started_at=None, summary=None)
        JOBS.update(connection, job.id, state="queued", attempt=0, started_at=None)
    tabs[1].context.close()


@pytest.mark.slow
def test_a_dropped_file_becomes_a_dataset_and_a_document_is_shown_the_right_door(window: Window, studio: Served, platform: Platform, tmp_path: Path) -> None:
    page = window.go("/datasets")
    (tmp_path / "manual.pdf").write_bytes(b"%PDF-1.7")
    page.set_input_files("input[type=file]", tmp_path / "manual.pdf")
    page.wait_for_selector("text=manual.pdf is a document, not training data.", timeout=WAIT)

    rows = [{"instruction": f"<img src=x onerror=alert(1)> {n}", "output": "\U0001f600" * 1000} for n in range(5000)]
    (tmp_path / "big.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")  # more than one piece
    page.set_input_files("input[type=file]", tmp_path / "big.jsonl")
    page.wait_for_url("**/datasets/dts_*", timeout=WAIT)
    page.wait_for_selector("text=Rows 1 to 20 of 5,000", timeout=WAIT)

    made = next(one for one in datasets.list_datasets(platform, OWNER, studio.project_id).items if one.name == "big")
    version = datasets.list_dataset_versions(platform, OWNER, made.id).items[0]
    assert version.size_bytes == (tmp_path / "big.jsonl").stat().st_size > 4 * 1024 * 1024


@pytest.mark.slow
def test_columns_with_names_of_their_own_are_told_in_the_head_of_the_preview(window: Window, studio: Served, platform: Platform, tmp_path: Path) -> None:
    page = window.go("/datasets")
    (tmp_path / "product.csv").write_text("\n".join(["id,asked,answer_text", *(f"{n},Where is it? {n},Here: {n}" for n in range(30))]), "utf-8")
    page.set_input_files("input[type=file]", tmp_path / "product.csv")
    page.wait_for_url("**/datasets/dts_*", timeout=WAIT)
    page.click("text=What the columns are")
    page.wait_for_selector("text=Say which column is the question", timeout=WAIT)

    page.click("label:has([aria-label='What asked is'])")
    page.click(".q-menu >> text=Question")
    page.wait_for_selector("text=These columns can be trained on.", timeout=WAIT)
    page.wait_for_selector(".q-menu", state="detached", timeout=WAIT)
    page.click("label:has([aria-label='What id is'])")
    page.click(".q-menu >> text=Leave out")
    page.wait_for_selector("label:has([aria-label='What id is']):has-text('Leave out')", timeout=WAIT)
    page.click("main >> text=Save as a new version")
    page.wait_for_url("**/datasets/*?version=2", timeout=WAIT)

    made = next(one for one in datasets.list_datasets(platform, OWNER, studio.project_id).items if one.name == "product")
    version = datasets.list_dataset_versions(platform, OWNER, made.id).items[0]
    assert rows.preview_rows(platform, OWNER, version.id, limit=1).items[0].row == {"prompt": "Where is it? 0", "completion": "Here: 0"}


@pytest.mark.slow
def test_a_row_is_shown_as_the_model_reads_it(window: Window, studio: Served, platform: Platform) -> None:
    page = window.go(f"/datasets/{studio.dataset_id}")
    page.click("[aria-label='Row 1']")
    page.click("text=As the model reads it")
    page.wait_for_selector(".dl-drawer .q-spinner", timeout=WAIT)
    with platform.database.writing() as connection:
        job = next(job for job in JOBS.all(connection, kind="show_example"))
        blocks = [{"tokens": ["<b>", "Who", "\n", "I"], "loss_mask": [False, False, False, True], "num_tokens": 9}]
        JOBS.update(connection, job.id, state="succeeded", finished_at=1e9, result={"number": 1, "blocks": blocks})

    page.wait_for_selector("text=9 tokens; the 1 marked ones are learnt.", timeout=WAIT)
    assert page.locator("mark.dl-token").all_inner_texts() == ["I"]
    assert page.locator("span.dl-token").first.inner_text() == "<b>"


@pytest.mark.slow
def test_an_earlier_message_is_changed_and_what_followed_it_is_left_out(window: Window, studio: Served, platform: Platform) -> None:
    name = f"chat-{studio.project_id}"
    panes = [{"model": "danlu/tiny", "answers": ["one", "two"]}]
    views.save_draft(platform, OWNER, name, Draft(values={"questions": ["first?", "second?"], "panes": panes}))
    page = window.go(f"/chat?project={studio.project_id}")
    page.click(".dl-turn.user:has-text('first?') >> text=Edit")
    page.fill("[aria-label=Edit] >> nth=0", "changed?")
    page.click(".dl-turn.user >> text=Send")

    page.wait_for_selector(".dl-turn.user:has-text('changed?')", timeout=WAIT)
    assert page.locator(".dl-turn.user").count() == 1 and "second?" not in page.inner_text(".dl-talk")
    page.click("text=Stop")
    for job in [job for job in jobs.list_queue(platform, OWNER) if job.kind == "chat"]:
        jobs.cancel_job(platform, OWNER, job.id)


@pytest.mark.slow
def test_votes_are_cast_blind_once_counted_and_made_a_dataset_of_once(browser: Any, window: Window, studio: Served, platform: Platform) -> None:
    panes = [{"model": model, "answers": [text]} for model, text in ((studio.run_id, "by cable car"), ("danlu/tiny", "no idea"))]
    values = {"questions": ["How do I get there?"], "panes": panes, "is_blind": True}
    views.save_draft(platform, OWNER, f"compare2-{studio.project_id}", Draft(values=values))
    page = window.go(f"/compare?project={studio.project_id}")
    assert "Doors" not in page.inner_text(".dl-panes") and page.locator("text=Rate this answer").count() == 0

    page.click("text=A is better")
    page.wait_for_selector("main td:has-text('Doors')", timeout=WAIT)
    page.wait_for_selector(".dl-panes >> text=Rate this answer >> nth=1", timeout=WAIT)
    page.click("[aria-label='4 of 5'] >> nth=1")
    page.wait_for_selector("[aria-label='4 of 5'][aria-pressed=true]", timeout=WAIT)
    window.reload()
    page.wait_for_selector("[aria-label='4 of 5'][aria-pressed=true]", timeout=WAIT)
    assert page.locator("text=A is better").count() == 0
    page.click("text=Make a dataset of them")
    page.wait_for_url("**/datasets/dts_*?version=1", timeout=WAIT)
    assert page.inner_text("h1") == "votes"
    chinese = Window(browser, studio, language="zh")  # made again, in whatever language: said calmly, and led to what is there
    again = chinese.go(f"/compare?project={studio.project_id}")
    again.click("text=\u505a\u6210\u6570\u636e\u96c6")
    again.wait_for_selector("text=votes@1 \u5df2\u5305\u542b\u5168\u90e8\u6837\u4f8b\u5bf9", timeout=WAIT)
    assert again.locator(".dl-toast").count() == 0
    again.click("text=\u6253\u5f00\u6570\u636e\u96c6")
    again.wait_for_url("**/datasets/dts_*?version=1", timeout=WAIT)
    chinese.context.close()

    (vote,) = votes.list_votes(platform, OWNER, studio.project_id).items
    assert (vote.winner, vote.is_blind, vote.answers[0]["model"]) == (0, True, studio.run_id)
    (rating,) = votes.list_ratings(platform, OWNER, studio.project_id).items
    assert (rating.model, rating.score) == ("danlu/tiny", 4)
    assert window.said == []


@pytest.mark.slow
def test_of_a_run_that_failed_before_its_first_step_nothing_good_is_said_and_it_can_be_discarded(window: Window, studio: Served, platform: Platform) -> None:
    recipe = {"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"}
    run = runs.submit_run(platform, OWNER, studio.project_id, NewRun(recipe=recipe, name="broken"))
    page = window.go(f"/runs/{run.id}")
    page.wait_for_selector("text=Speaks up once there are 20 steps", timeout=WAIT)
    page.click("main >> text=Stop")
    page.wait_for_selector(".dl-dialog", timeout=WAIT)
    assert page.locator(".dl-dialog .dl-btn").all_inner_texts() == ["Keep going", "Stop and keep", "Discard"]  # three outcomes, each once
    page.click(".dl-dialog >> text=Keep going")
    with platform.database.writing() as connection:
        error = {"code": "DL500", "what": "memory ran out", "why": "it did", "fix": "less"}
        for job in JOBS.all(connection, run_id=run.id):
            JOBS.update(connection, job.id, state="failed", error=error, finished_at=1e9)
        RUNS.update(connection, run.id, state="failed", error=error, finished_at=1e9)

    page.wait_for_selector("text=No step was measured", timeout=WAIT)
    page.wait_for_selector("text=ended before it had looked at its data", timeout=WAIT)
    assert "look as they should" not in page.inner_text("main") and "This run wrote none" in page.inner_text("main")
    page.click("main .dl-btn.danger:has-text('Discard')")
    page.click(".dl-dialog .dl-btn.danger")
    page.wait_for_url("**/runs", timeout=WAIT)
    assert run.id not in {one.id for one in _runs(platform, studio.project_id)} and window.said == []


@pytest.mark.slow
def test_the_server_stays_small_and_never_loads_torch(studio: Served) -> None:
    mapped = Path(f"/proc/{studio.process.pid}/maps").read_text()
    resident = int(Path(f"/proc/{studio.process.pid}/statm").read_text().split()[1]) * 4096

    assert "libtorch" not in mapped
    assert resident < 400e6


@pytest.mark.slow
def test_a_server_that_stops_does_not_wait_for_a_model_that_is_being_loaded(window: Window, studio: Served, platform: Platform) -> None:
    page = window.go(f"/chat?project={studio.project_id}&model=danlu/tiny")
    page.fill(".dl-composer textarea >> nth=0", "hello")
    page.click("text=Send")
    page.wait_for_selector("text=The model is being loaded", timeout=WAIT)

    studio.process.send_signal(signal.SIGTERM)
    assert studio.process.wait(timeout=60) is not None
    for job in [job for job in jobs.list_queue(platform, OWNER) if job.kind == "chat"]:
        jobs.cancel_job(platform, OWNER, job.id)
    studio.process, _ = serve(studio.home, int(studio.url.rpartition(":")[2]))


def _runs(platform: Platform, project_id: str) -> list[Any]:
    return list(runs.list_runs(platform, OWNER, project_id).items)
