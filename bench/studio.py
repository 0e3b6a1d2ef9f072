"""How fast the studio's pages are, and what many viewers of one run cost: `python -m bench.studio`, about two minutes on an idle machine.

Starts the real server on a home in build/bench/studio, opens pages in a real browser (cold, then from page to page), and then lets many
viewers listen to one run that learns two steps a second. `--write docs/studio.md` puts the table there. Needs playwright and a Chromium.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import httpx
from websockets.asyncio.client import connect

from bench.serving import Server, percentile, serving
from danlu.services.platform import datasets, projects, runs
from danlu.services.platform.access import Actor
from danlu.services.platform.datasets import NewDataset
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.services.platform.runs import NewRun
from danlu.settings import Settings
from danlu.store import measurements
from danlu.store.jobs import JOBS
from danlu.store.measurements import Point
from danlu.store.runs import RUNS

HOME = Path("build/bench/studio").absolute()
BEGIN, END = "<!-- bench.studio -->", "<!-- /bench.studio -->"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OWNER = Actor.local()
NUM_POINTS, NUM_STEPS = 1_000, 100_000
TICK_SECONDS = 0.5
WAIT = 120_000
NAVIGATED = ("/datasets", "/runs", "/runs/{run}", "/models", "/chat", "/compare", "/queue", "/settings", "/help", "/")
Row = tuple[str, str, str]
"""(what, measured, goal)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visits", type=int, default=5, help="how often each page is opened (default 5)")
    parser.add_argument("--viewers", type=int, default=50, help="who looks at the run at the same time (default 50)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long they look (default 30)")
    parser.add_argument("--write", type=Path, help="put the table into this page, e.g. docs/studio.md")
    arguments = parser.parse_args()
    load, run_id = os.getloadavg()[0], fill()
    with serving(HOME, "--no-worker") as server:
        rows = pages(server, run_id, arguments.visits)
    with serving(HOME, "--no-worker") as server:
        rows += asyncio.run(viewers(server, run_id, arguments.viewers, arguments.seconds))
    lines = table(rows, load)
    print("\n".join(lines))
    if arguments.write:
        text = arguments.write.read_text("utf-8")
        before, _, rest = text.partition(BEGIN)
        arguments.write.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.partition(END)[2]}", "utf-8")


def fill() -> str:
    """Make the home anew, with a project, a dataset and a run that is under way; return the run's id."""
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    platform = Platform.open(Settings(home=HOME))
    project = projects.create_project(platform, OWNER, NewProject(name="Bench"))
    datasets.create_dataset(platform, OWNER, project.id, NewDataset(example="danlu/zhangjiajie"))
    run = runs.submit_run(platform, OWNER, project.id, NewRun(recipe={"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"}))
    with platform.database.writing() as connection:
        for job in JOBS.all(connection, run_id=run.id):
            JOBS.update(connection, job.id, state="running", attempt=1, started_at=time.time())
        RUNS.update(connection, run.id, state="running", started_at=time.time())
    learn(platform, run.id, range(1, NUM_POINTS + 1))
    platform.close()
    return run.id


def learn(platform: Platform, run_id: str, steps: range) -> None:
    """Store what training tells of its steps."""
    told = {"learning_rate": 1e-4, "grad_norm": 0.7, "tokens_per_second": 5000.0, "peak_memory_bytes": 5e8, "num_steps": NUM_STEPS}
    points = [Point(step, "train", {"loss": 3 / step**0.2, "num_tokens": step * 512, **told}) for step in steps]
    with platform.database.writing() as connection:
        measurements.store(connection, measurements.read_of(connection, run_id), points)


@contextmanager
def browser() -> Iterator[Any]:
    """A real one."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise SystemExit(f"no browser found ({', '.join(BROWSERS)})")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


def visit(page: Any, address: str) -> float:
    """Seconds until a page is drawn and hears the server."""
    began = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_selector("main .dl-page > *", timeout=WAIT)
    page.wait_for_function("window.socket?.connected && document.fonts.status === 'loaded'", polling=10, timeout=WAIT)
    return time.perf_counter() - began


def pages(server: Server, run_id: str, visits: int) -> list[Row]:
    """Open pages with an empty cache, then go from page to page."""
    url = f"http://{server.host}:{server.port}"
    with browser() as opened:
        cold = [_cold(opened, url, "/") for _ in range(visits + 1)]
        run = [_cold(opened, url, f"/runs/{run_id}") for _ in range(visits)]
        page = opened.new_context().new_page()
        visit(page, url)
        moved: dict[str, list[float]] = {path: [] for path in NAVIGATED}
        for number in range(visits + 1):
            for path in NAVIGATED:
                seconds = visit(page, url + path.format(run=run_id))
                if number:  # the first round fills the cache
                    moved[path].append(seconds)
        curves = [_curve(page, f"{url}/runs/{run_id}") for _ in range(visits)]
    middles = {path: median(seconds) for path, seconds in moved.items()}
    slowest = max(middles, key=lambda path: middles[path])
    return [
        ("first page of a server that has just started, empty cache", f"{cold[0][0] * 1e3:.0f} ms", "< 1,500 ms"),
        ("first page, empty cache (median)", f"{median(seconds for seconds, _ in cold[1:]) * 1e3:.0f} ms", "< 1,500 ms"),
        ("transferred for it", f"{cold[-1][1] / 1e3:,.0f} kB", "< 1,000 kB"),
        ("page of a run with 1,000 points, empty cache (median)", f"{median(seconds for seconds, _ in run) * 1e3:.0f} ms", "< 1,500 ms"),
        ("transferred for it", f"{run[-1][1] / 1e3:,.0f} kB", "< 1,000 kB"),
        (f"from page to page (median of {len(NAVIGATED)} pages)", f"{median(middles.values()) * 1e3:.0f} ms", "< 400 ms"),
        (f"the slowest of them (`{slowest}`)", f"{middles[slowest] * 1e3:.0f} ms", "< 400 ms"),
        ("page of a run until its curve is drawn (median)", f"{median(curves) * 1e3:.0f} ms", ""),
    ]


def _curve(page: Any, address: str) -> float:
    """Seconds until the curve of a run is drawn, too."""
    began = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_selector(".dl-chart canvas", timeout=WAIT)
    return time.perf_counter() - began


def _cold(opened: Any, url: str, path: str) -> tuple[float, int]:
    """Seconds and bytes of a visit with an empty cache."""
    context = opened.new_context()
    page = context.new_page()
    sizes: list[float] = []
    network = context.new_cdp_session(page)
    network.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    network.send("Network.enable")
    seconds = visit(page, url + path)
    page.wait_for_load_state("networkidle")
    context.close()
    return seconds, int(sum(sizes))


async def viewers(server: Server, run_id: str, count: int, seconds: float) -> list[Row]:
    """Let many look at a run that goes on, and see how late they hear of its steps."""
    platform = Platform.open(Settings(home=HOME))
    written: dict[int, float] = {}
    late: list[float] = []
    ready = asyncio.Semaphore(0)
    looking = [asyncio.create_task(_look(server, run_id, number, written, late, ready)) for number in range(count)]
    await _all_ready(looking, ready)
    await asyncio.sleep(2)
    late.clear()
    began, used = time.perf_counter(), server.cpu_seconds
    step = NUM_POINTS
    while time.perf_counter() - began < seconds:
        step += 1
        written[step] = time.perf_counter()
        await asyncio.to_thread(learn, platform, run_id, range(step, step + 1))
        await asyncio.sleep(max(0.0, began + (step - NUM_POINTS) * TICK_SECONDS - time.perf_counter()))
    await asyncio.sleep(2)
    busy = (server.cpu_seconds - used) / (time.perf_counter() - began)
    heard, memory = len(late) / max(1, count * len(written)), server.rss_bytes
    for task in looking:
        task.cancel()
    await asyncio.gather(*looking, return_exceptions=True)
    platform.close()
    return [
        (f"{count} viewers of one run: a step is on every page after (95 %)", f"{percentile(late, 0.95) * 1e3:.0f} ms", "< 1,000 ms"),
        ("the same, median", f"{median(late) * 1e3:.0f} ms", ""),
        ("steps that arrived", f"{heard:.1%}", "100 %"),
        ("the server's processor time then", f"{busy:.0%} of a core", "< 60 %"),
        ("its memory then", f"{memory / 1e6:.0f} MB", "< 400 MB"),
    ]


async def _all_ready(looking: list[asyncio.Task[None]], ready: asyncio.Semaphore) -> None:
    """Wait until everybody hears the server; what stops one of them stops the bench."""

    async def count() -> None:
        for _ in looking:
            await ready.acquire()

    counting = asyncio.create_task(count())
    done, _ = await asyncio.wait([counting, *looking], timeout=300, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    if counting not in done:
        raise SystemExit("the viewers could not connect within five minutes")


async def _look(server: Server, run_id: str, number: int, written: dict[int, float], late: list[float], ready: asyncio.Semaphore) -> None:
    """One viewer: loads the page of the run and listens as a browser does, without drawing it."""
    url = f"http://{server.host}:{server.port}"
    await asyncio.sleep(number * 0.05)
    async with httpx.AsyncClient(timeout=60) as client:
        page = (await client.get(f"{url}/runs/{run_id}")).text
    name = re.search(r"""client_id['"]:\s*['"]([\w-]+)""", page)
    assert name is not None, "the page does not say what it is called"
    asked = f"client_id={name[1]}&next_message_id=0&implicit_handshake=true&document_id={uuid4()}&tab_id={uuid4()}&EIO=4&transport=websocket"
    heard = 0
    async with connect(f"{url.replace('http', 'ws')}/_nicegui_ws/socket.io/?{asked}", additional_headers={"Origin": url}, max_size=None) as socket:
        async for message in socket:
            now, text = time.perf_counter(), str(message)
            if text.startswith("0"):
                await socket.send("40")
            elif text == "2":
                await socket.send("3")
            elif text.startswith("40"):
                ready.release()
            elif text.startswith("44"):
                raise SystemExit(f"the server refused a viewer: {text}")
            elif '"append' in text.replace("\\", "") and "[[[" in text:
                for step in map(int, re.findall(r"\[(\d+),", text)):
                    if step > heard and step in written:
                        heard = step
                        late.append(now - written[step])


def table(rows: list[Row], load: float) -> list[str]:
    """The page's part."""
    lines = [
        f"Measured on {datetime.date.today()} with `python -m bench.studio`: two processor threads shared by server, browser and viewers, SQLite, loopback.",
        f"Programs that wanted a processor before it began: {load:.1f} on average (0 on an idle machine).",
        "",
        "| | measured | goal |",
        "|---|--:|--:|",
    ]
    return lines + [f"| {what} | {measured} | {goal} |" for what, measured, goal in rows]


if __name__ == "__main__":
    main()
