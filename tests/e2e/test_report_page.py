"""report.html in a real browser: both languages, light and dark, desk and telephone; it asks for nothing and fits its window."""

import json
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from danlu.run_dir import RunDir
from danlu.services.reports import build_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PROPER = re.compile(
    "adapter|alpha|assistant|base|bca|bleu|byte|chatml|chrf|cpu|danlu|exp|false|float|gb|human|json|kb|linux|lora|mb|nats|none|null|peft|"
    "platform|python|qwen|rouge|sacrebleu|sft|token|tokenizer|torch|transformers|true|utc|utf"
)
"""Names and units that stay as they are in Chinese."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if find_spec("playwright") is None:
        pytest.skip("playwright is not installed (pip install playwright)")
    if path is None:
        pytest.skip(f"no browser found ({', '.join(BROWSERS)})")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_file(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a real run, with samples whose texts are as awkward as they come."""
    folder = shutil.copytree(finished_run, tmp_path_factory.mktemp("page") / "doors")
    item = {"prompt": "门是什么颜色？" * 30, "reference": "x" * 400, "text": "<b>红</b>\n" + "very " * 90, "is_cut": True}
    with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
        for step in (0, 4, 8):
            file.write(json.dumps({"kind": "sample", "step": step, "items": [item], "seconds": 0.1}) + "\n")
    run_dir = RunDir(folder)
    report = build_report(run_dir)
    assert {diagnosis["name"] for diagnosis in report["coach"]} == {"data_too_small", "validation_too_small"} and report["samples"]
    return run_dir.report_html


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_shows_well(browser: Any, page_file: Path, language: str, scheme: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{page_file.as_uri()}?lang={language}")
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")

    assert said == []
    assert [url.split("?")[0] for url in asked] == [page_file.as_uri()]
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    wide = page.evaluate(
        """[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('svg'))
            .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert overflow <= 0 and wide == []
    shown = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", shown)[:3])) > 380) is (scheme == "light")
    visible = page.inner_text("main")
    assert ("学习过程中的试答" in visible, "What it wrote while it learned" in visible) == ((True, False) if language == "zh" else (False, True))
    page.close()


@pytest.mark.slow
def test_nothing_but_names_is_english_in_the_chinese_page(browser: Any, page_file: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{page_file.as_uri()}?lang=zh")
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    # What the user or a package wrote is left out: examples, recipe, environment, the run's own line, codes and the language buttons.
    text = page.evaluate(
        """() => {
            const copy = document.querySelector('main').cloneNode(true);
            document.body.append(copy);
            copy.querySelectorAll('.data, .gist, pre, code, h1, header .small, .languages, table.samples, .level1, .level1 + td').forEach(e => e.remove());
            return copy.innerText;
        }"""
    )
    page.close()
    words = [word.lower() for word in re.findall(r"[A-Za-z]{3,}", re.sub(r"[\w.-]*\d[\w.-]*|\w+(?:\.\w+)+", " ", text))]
    assert sorted({word for word in words if not PROPER.fullmatch(word)}) == []
