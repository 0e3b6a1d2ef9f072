"""A beginner's way from a file to an exported specialist, with real training, pressing what is on the pages and nothing else."""

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from studio_server import Served, Window, serve

from danlu.bundled import dataset_path
from danlu.services.platform import jobs, projects, runs, views
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.views import Draft
from danlu.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WAIT = 240_000
MOST_CLICKS = 12
FEW = {"optim.num_epochs": "auto", "optim.max_steps": 12, "optim.global_batch_size": 4, "evaluation.max_generations": 4, "evaluation.max_new_tokens": 16}
"""Settings of a form that was begun before: enough for a run that takes seconds, too little to learn anything."""
OWNER = Actor.local()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Served]:
    """A studio with its worker, as `danlu studio` starts it, on an empty home."""
    home = tmp_path / "home"
    process, url = serve(home, has_worker=True)
    served = Served(url, home, process, "", "", "")
    yield served
    with _platform(served) as platform:  # models in memory outlive the server
        for job in jobs.list_queue(platform, OWNER):
            jobs.cancel_job(platform, OWNER, job.id)
        end = time.monotonic() + 60
        while jobs.list_queue(platform, OWNER) and time.monotonic() < end:
            time.sleep(0.1)
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(timeout=60)


@pytest.fixture
def messy_file(tmp_path: Path) -> Path:
    """The example with what real files have: rows twice, rows without an answer."""
    rows = dataset_path("danlu/zhangjiajie").read_text("utf-8").splitlines()[:120]
    path = tmp_path / "guide.jsonl"
    path.write_text("\n".join([*rows, *rows[:5], *(json.dumps(json.loads(row) | {"output": ""}) for row in rows[:3])]), "utf-8")
    return path


class Beginner:
    """Presses buttons and links, and counts."""

    def __init__(self, window: Window) -> None:
        self.window, self.page, self.num_clicks = window, window.page, 0

    def press(self, text: str, *, exact: bool = True) -> None:
        """Press the button or link of the page, or of the navigation, that says this."""
        self.num_clicks += 1
        found = self.page.locator("main, .dl-nav").locator(".dl-btn, a", has_text=re.compile(f"{re.escape(text)}$" if exact else re.escape(text)))
        found.first.click(timeout=WAIT)

    def sees(self, text: str) -> None:
        """Wait until the page says this."""
        self.page.locator("main", has_text=text).first.wait_for(timeout=WAIT)


def test_from_a_file_to_an_exported_specialist_in_twelve_clicks(browser: Any, fresh: Served, messy_file: Path) -> None:
    window = Window(browser, fresh)
    me = Beginner(window)
    window.go("/")

    me.press("Load the example")
    me.sees("Nothing was found. Every row can be used.")
    me.press("Datasets")
    me.page.set_input_files("input[type=file]", messy_file)
    me.sees("Put right with one click")
    me.press("Put right with one click")
    me.page.wait_for_url("**/datasets/*?version=2", timeout=WAIT)
    me.sees("Nothing was found. Every row can be used.")
    with _platform(fresh) as platform:
        views.save_draft(platform, OWNER, "new_run", Draft(values={"dataset": "guide", "changes": FEW}))

    me.press("Train on it")
    me.press("Continue")
    me.sees("Ready")
    me.press("Start the run")
    me.page.wait_for_url("**/runs/run_*", timeout=WAIT)
    _goes_on_whatever_happens_to_pages_and_server(browser, window, fresh)

    me.press("See the proof")
    me.page.wait_for_selector(".dl-verdict", timeout=WAIT)
    me.press("Talk to both")
    me.page.locator(".dl-composer textarea").first.fill("When does the cable car open?", timeout=WAIT)
    me.press("Send")
    told = "[...document.querySelectorAll('.dl-turn:not(.user)')].filter(turn => turn.innerText.includes('tokens, ')).length === 2"
    me.page.wait_for_function(told, timeout=WAIT)
    me.press("Exports")
    me.press("Export")
    me.page.locator("main .dl-badge.good").wait_for(timeout=WAIT)
    assert window.said == [] and me.num_clicks <= MOST_CLICKS
    name = me.page.locator("main a[href^='/studio-export/']", has_text="safetensors").first.get_attribute("href")
    assert window.context.request.get(fresh.url + str(name)).body()[8:9] == b"{"
    window.context.close()


def _goes_on_whatever_happens_to_pages_and_server(browser: Any, window: Window, fresh: Served) -> None:
    """Reload in mid-run, a second tab, a server that is killed: the run comes to its end, and both pages show it."""
    page, path = window.page, window.page.url.removeprefix(fresh.url)
    page.wait_for_selector("text=/Step \\d+ of 12/", timeout=WAIT)
    page.reload()
    page.wait_for_selector("text=/Step \\d+ of 12/", timeout=WAIT)
    second = Window(browser, fresh, language="zh")
    second.go(path)
    fresh.process.kill()
    fresh.process.wait(timeout=60)
    fresh.process, _ = serve(fresh.home, int(fresh.url.rpartition(":")[2]), has_worker=True)
    for one in (page, second.page):
        one.wait_for_selector(f".dl-btn.primary[href='{path}/proof']", timeout=WAIT)
    second.context.close()
    window.said.clear()  # browsers complain of a server that is gone
    with _platform(fresh) as platform:
        project = projects.list_projects(platform, OWNER).items[0]
        (run,) = runs.list_runs(platform, OWNER, project.id).items
        assert (run.state, run.resolved["optim"]["max_steps"] if run.resolved else None) == ("succeeded", 12)


class _platform:
    """The home of a studio, opened beside it."""

    def __init__(self, studio: Served) -> None:
        self.home = studio.home

    def __enter__(self) -> Platform:
        self.opened = Platform.open(Settings(home=self.home))
        return self.opened

    def __exit__(self, *_: object) -> None:
        self.opened.close()
