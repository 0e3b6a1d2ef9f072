"""What a page says when things are not as they should be, in Chinese; and the tour of the first visit."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from studio_server import Served, Window, english_left

from danlu.errors import OutOfMemoryError
from danlu.services.platform import projects, runs, views
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.services.platform.runs import NewRun
from danlu.services.platform.views import Draft, ViewChange
from danlu.store.jobs import JOBS
from danlu.store.runs import RUNS

pytestmark = pytest.mark.slow
WAIT = 60_000
TALL = 400
"""What is higher leaves no room beside it on a telephone."""
OWNER = Actor.local()
FAILURE = OutOfMemoryError(
    "an example of 4096 tokens does not fit in memory by itself", why="no memory left", fix="set data.max_seq_len below 4096, or use a smaller base model"
)


@pytest.fixture
def screenshots(repository: Path) -> Path:
    folder = Path(os.environ.get("DANLU_SCREENSHOTS", repository / "build" / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def bare(platform: Platform) -> Iterator[tuple[str, str]]:
    """(project, run): a project with nothing in it but a run that failed."""
    project_id = projects.create_project(platform, OWNER, NewProject(name="\u7a7a")).id
    run = runs.submit_run(platform, OWNER, project_id, NewRun(recipe={"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"}, name="\u5931\u8d25"))
    with platform.database.writing() as connection:
        job = JOBS.all(connection, run_id=run.id)[0]
        JOBS.update(connection, job.id, state="failed", attempt=1, started_at=1e9, finished_at=1e9 + 60, error=FAILURE.to_dict())
        RUNS.update(connection, run.id, state="failed", started_at=1e9, finished_at=1e9 + 60, error=FAILURE.to_dict())
    yield project_id, run.id
    projects.delete_project(platform, OWNER, project_id)


@pytest.fixture
def advanced(platform: Platform) -> Iterator[None]:
    """The expert's form, begun with values that cannot be."""
    changes = {"optim.learning_rate": 5.0, "optim.scheduler": "sinus", "method.type": "freeze"}
    views.change_view(platform, OWNER, ViewChange(is_advanced=True))
    views.save_draft(platform, OWNER, "new_run", Draft(values={"step": "review", "dataset": "danlu/zhangjiajie", "changes": changes}))
    yield
    views.change_view(platform, OWNER, ViewChange(is_advanced=False))
    views.save_draft(platform, OWNER, "new_run", Draft())


def test_errors_empty_pages_and_mistakes_are_told_in_chinese(browser: Any, studio: Served, bare: tuple[str, str], advanced: None, screenshots: Path) -> None:
    project_id, run_id = bare
    window = Window(browser, studio, language="zh")
    page = window.go(f"/runs/{run_id}")
    assert "一条 4096 词元的样例就超出了内存" in page.inner_text("[role=alert]")
    page.click("[role=alert] summary:has-text('原文')")
    assert FAILURE.what in page.inner_text("[role=alert]")
    page.screenshot(path=screenshots / "failed-run-zh.png")

    said = {}
    for path in ("", "/proof"):
        window.go(f"/runs/{run_id}{path}")
        said[path] = english_left(page)
    for path in ("/runs/run_none", *(f"{name}?project={project_id}" for name in ("/", "/datasets", "/runs", "/models", "/exports", "/chat", "/compare"))):
        window.go(path)
        said[path] = english_left(page)
        if path.startswith("/models"):
            assert "常规 LoRA 训练需要" in str(page.get_attribute("li:has-text('danlu/tiny') .dl-badge[data-tip]", "data-tip"))
            assert page.locator("li:has-text('local/small') a[href$='base=local/small']").inner_text() == "训练"
    window.go(f"/new-run?project={studio.project_id}")
    page.wait_for_selector(".dl-note.bad:has-text('学习率 5.0 会立即发散')", timeout=WAIT)
    page.wait_for_selector(".dl-field:has-text('scheduler') .dl-bad:has-text('应为')", state="attached", timeout=WAIT)
    said["/new-run"] = [word for word in english_left(page) if word != "sinus"]  # what was entered
    page.screenshot(path=screenshots / "mistakes-zh.png", full_page=True)
    window.context.close()

    assert {path: words for path, words in said.items() if words} == {}


def test_the_tour_points_at_what_is_there_and_is_shown_once(browser: Any, studio: Served, platform: Platform, screenshots: Path) -> None:
    views.change_view(platform, OWNER, ViewChange(has_seen_tour=False))
    for language, width, scheme in (("en", 1280, "light"), ("zh", 390, "dark")):
        window = Window(browser, studio, language=language, width=width, scheme=scheme)
        page = window.go("/")
        page.wait_for_selector(".dl-tour", timeout=WAIT)
        titles = []
        for number in range(7):
            titles.append(page.inner_text(".dl-tour h2"))
            page.wait_for_function("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
            ring, panel = (page.locator(name).bounding_box() for name in (".dl-tour-ring", ".dl-tour"))
            assert ring is not None and panel["x"] >= 0 and panel["x"] + panel["width"] <= width
            is_apart = ring["y"] + ring["height"] <= panel["y"] or panel["y"] + panel["height"] <= ring["y"] or ring["x"] + ring["width"] <= panel["x"]
            assert is_apart or ring["height"] > TALL, number
            assert language == "en" or english_left(page) == []
            page.screenshot(path=screenshots / f"tour-{number + 1}-{language}-{width}.png")
            if number < 6:
                page.keyboard.press("ArrowRight")
        assert len(set(titles)) == 7
        page.keyboard.press("ArrowLeft")
        assert page.inner_text(".dl-tour h2") == titles[5]
        page.keyboard.press("Escape")
        page.wait_for_selector(".dl-tour", state="detached", timeout=WAIT)
        _until_seen(page, platform)
        assert window.go("/").locator("#tour-over").count() == 0

        window.go("/help")
        page.click("main .dl-head button")
        page.wait_for_selector(".dl-tour", timeout=WAIT)
        assert window.said == []
        window.context.close()
    views.change_view(platform, OWNER, ViewChange(has_seen_tour=True))


def _until_seen(page: Any, platform: Platform) -> None:
    """The server hears of it by the page's connection."""
    for _ in range(WAIT // 50):
        if views.get_view(platform, OWNER).has_seen_tour:
            return
        page.wait_for_timeout(50)
    raise AssertionError("the end of the tour was not remembered")
