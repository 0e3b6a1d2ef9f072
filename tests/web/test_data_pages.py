"""The data pages where something goes wrong: a cut upload, a doctor that failed, somebody else at work, a dataset that is gone; and which rows a run uses."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from studio_server import Served, Window

from danlu.services.platform import datasets, rows, uploads, views
from danlu.services.platform.access import Actor
from danlu.services.platform.datasets import NewDataset
from danlu.services.platform.platform import Platform
from danlu.services.platform.rows import RowEdits
from danlu.services.platform.views import Draft
from danlu.store.jobs import JOBS

WAIT = 60_000
OWNER = Actor.local()
pytestmark = pytest.mark.slow


def test_a_cut_upload_goes_on_where_it_stopped_and_never_with_another_file(window: Window, studio: Served, platform: Platform, tmp_path: Path) -> None:
    page, file = window.go("/datasets"), tmp_path / "cut.jsonl"
    file.write_text("\n".join(json.dumps({"instruction": f"Where is {n}?", "output": "x" * 2000}) for n in range(6000)), "utf-8")  # three pieces
    first, line = file.read_bytes(), {"cuts": 2, "is_dead": True}
    asked: list[str] = []

    def pass_on(route: Any) -> None:  # no request goes on before it was noted
        asked.append(f"{route.request.method} {route.request.url.partition('?')[2]}")
        if asked[-1] == "PUT offset=4194304" and line["cuts"]:
            line["cuts"] -= 1
            route.abort()
        elif asked[-1] == "PUT offset=8388608" and line["is_dead"]:
            route.abort()
        else:
            route.continue_()

    page.route("**/studio-upload/**", pass_on)
    page.set_input_files("input[type=file]", file)
    page.wait_for_selector("text=The connection is away; it goes on by itself.", timeout=WAIT)
    end = time.monotonic() + WAIT / 1000
    while _open(platform, studio)[0].received_bytes < 8388608:
        assert time.monotonic() < end, "the second piece did not arrive"
        page.wait_for_timeout(50)  # which lets the requests through, too
    page.goto("about:blank")  # before the line is there again: the page would go on by itself
    line["is_dead"] = False

    page = window.go("/datasets")
    told = page.wait_for_selector("text=has arrived", timeout=WAIT).inner_text()
    assert told.startswith("cut.jsonl: 6"), told
    file.write_bytes(b"[" + first[1:])  # as long, and another one
    page.set_input_files("input[type=file]", file)
    page.wait_for_url("**/datasets/dts_*", timeout=WAIT)
    made = next(one for one in datasets.list_datasets(platform, OWNER, studio.project_id).items if one.name == "cut")
    version = datasets.list_dataset_versions(platform, OWNER, made.id).items[0]
    assert b"".join(platform.artifacts.read(version.digest)) == file.read_bytes()

    file.write_bytes(first)
    asked.clear()
    page = window.go("/datasets")
    page.set_input_files("input[type=file]", file)
    page.wait_for_url(lambda url: "/datasets/dts_" in url and made.id not in url, timeout=WAIT)
    newest = datasets.list_dataset_versions(platform, OWNER, page.url.rpartition("/")[2]).items[0]
    assert {one for one in asked if one.startswith("PUT")} == {"PUT offset=8388608"}, asked
    assert b"".join(platform.artifacts.read(newest.digest)) == first and _open(platform, studio) == []


def _open(platform: Platform, studio: Served) -> list[Any]:
    return [one for one in uploads.list_uploads(platform, OWNER, studio.project_id).items if one.state == "open"]


def test_a_failed_look_is_told_and_repeated_and_others_at_work_are_told(window: Window, studio: Served, platform: Platform) -> None:
    made = datasets.create_dataset(platform, OWNER, studio.project_id, NewDataset(example="danlu/support-en", name="shared <b>data</b>"))
    version = datasets.list_dataset_versions(platform, OWNER, made.id).items[0]
    page = window.go("/datasets")
    page.click("text=shared <b>data</b>")  # its page waits, as the doctor does
    page.wait_for_selector("text=Waits in the queue.", timeout=WAIT)
    with platform.database.writing() as connection:
        job = next(job for job in JOBS.all(connection, kind="inspect") if job.payload["dataset_version_id"] == version.id)
        error = {"code": "DL130", "what": "the file <i>broke</i>", "why": "a test", "fix": "repair it"}
        JOBS.update(connection, job.id, state="failed", error=error, finished_at=1e9)
    page.wait_for_selector("text=the file <i>broke</i>", timeout=WAIT)
    page.click(".dl-btn:has-text('Look again')")
    page.wait_for_selector("text=Waits in the queue.", timeout=WAIT)

    page.click("[aria-label='Row 2']")
    field = page.locator(".dl-drawer textarea")
    field.fill('{"instruction": "mine", "output": "kept"}')
    rows.edit_rows(platform, OWNER, version.id, RowEdits(delete=[5]))
    page.wait_for_selector("text=Version 2 was made meanwhile.", timeout=WAIT, state="attached")
    page.click("text=Save as a new version")
    page.wait_for_selector("text=Somebody else was quicker", timeout=WAIT)
    page.click("text=Add my change to version 2")
    page.wait_for_url("**/datasets/*?version=3", timeout=WAIT)
    page.wait_for_function("window.socket?.connected")
    newest = datasets.list_dataset_versions(platform, OWNER, made.id).items[0]
    shown = rows.preview_rows(platform, OWNER, newest.id, limit=1, offset=1)
    assert shown.items[0].row == {"instruction": "mine", "output": "kept"} and shown.total == 227

    page.fill("[aria-label='Go to row']", "200")
    page.press("[aria-label='Go to row']", "Enter")
    page.wait_for_selector(".dl-marked >> text=200", timeout=WAIT)
    datasets.delete_dataset(platform, OWNER, made.id)
    page.wait_for_selector("text=This dataset is gone", timeout=WAIT)
    with platform.database.writing() as connection:
        for job in JOBS.all(connection, kind="inspect", state="queued"):
            JOBS.update(connection, job.id, state="cancelled", finished_at=1e9)


def test_which_rows_a_run_uses_is_chosen_and_the_preview_follows(window: Window, studio: Served, platform: Platform) -> None:
    page = window.go("/new-run?dataset=danlu/product-json")
    page.click("text=Continue")
    page.wait_for_selector("text=/Train on \\d+, watch 18, prove with 18./", timeout=WAIT)
    page.wait_for_selector("text=18 rows for the proof are few", timeout=WAIT)
    page.fill("[aria-label='For the proof']", "30")
    page.press("[aria-label='For the proof']", "Tab")
    page.wait_for_selector("text=/Train on \\d+, watch 18, prove with 53./", timeout=WAIT)

    page.click("label:has([aria-label='Data to mix in'])")
    page.click(".q-menu >> text=Customer support")
    page.wait_for_selector("[aria-label='Share of danlu/support-en']", timeout=WAIT)
    page.wait_for_selector("text=/Mixed in from elsewhere: \\d+./", timeout=WAIT)
    page.click("text=Go on from an earlier run")
    page.click("label:has([aria-label='Earlier run'])")
    page.click(".q-menu >> text=Doors <i>1</i>")
    page.wait_for_selector("text=Start from its weights", timeout=WAIT)
    page.wait_for_selector(".dl-badge.good:has-text('Ready')", timeout=WAIT)

    page = window.go("/new-run")
    assert page.input_value("[aria-label='For the proof']") == "30", "kept as a draft"
    page.click("text=Back to recommended")
    page.wait_for_selector("text=/prove with 18./", timeout=WAIT)
    page = window.go("/new-run?base=local/small")
    page.wait_for_selector(".dl-option[aria-pressed=true]:has-text('local/small') .dl-badge", timeout=WAIT)
    views.save_draft(platform, OWNER, "new_run", Draft())
