"""Every page in a real browser: both languages, light and dark, desk and telephone; quiet, fitting, asking nothing of the network."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Served

PAGES: dict[str, Callable[[Served], str]] = {
    "home": lambda s: "/",
    "runs": lambda s: "/runs",
    "run": lambda s: f"/runs/{s.run_id}",
    "proof": lambda s: f"/runs/{s.run_id}/proof",
    "datasets": lambda s: "/datasets",
    "dataset": lambda s: f"/datasets/{s.dataset_id}",
    "new-run": lambda s: "/new-run",
    "new-run-model": lambda s: "/new-run?dataset=danlu/zhangjiajie",
    "queue": lambda s: "/queue",
    "advisor": lambda s: "/advisor",
    "help": lambda s: "/help",
    "settings": lambda s: "/settings",
    "missing": lambda s: "/runs/run_none",
}
SCREENSHOTS = Path(os.environ.get("DANLU_SCREENSHOTS", Path(__file__).parents[2] / "build" / "screenshots"))
TOKENS = {"light": "rgb(246, 247, 249)", "dark": "rgb(15, 20, 27)"}
TOO_WIDE = """[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
    && !e.closest('svg, .dl-scroll, canvas, .dl-skip, caption, thead')).map(e => e.outerHTML.slice(0, 120))"""
CLIPPED_ICONS = "[...document.querySelectorAll('.q-icon')].filter(e => e.offsetWidth && e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"
TEXT = """(() => {
    const copy = document.querySelector('.dl-shell').cloneNode(true);
    document.body.append(copy);
    copy.querySelectorAll('.q-icon, pre, code, .dl-mono, .dl-log, .dl-case, .dl-scroll, .dl-pairs.left, .dl-seg, [lang=en], canvas, h1, h3.dl-text, .dl-navfoot').forEach(e => e.remove());
    const text = copy.innerText;
    copy.remove();
    return text;
})()"""
PROPER = re.compile(
    "alpaca|bleu|chatml|chrf|cpu|danlu|doors|excel|gb|gpu|hub|html|json|jsonl|kb|lora|local|mb|parquet|png|postgresql|qwen|rouge|run|sqlite|tiny|travel|guide|zhangjiajie|"
    "answers|about|queued|small|product|csv|yaml|name|home|tmp|pytest|root|of|studio|current"
)
"""Names, units and what the user wrote."""


def open_page(browser: Any, url: str, *, width: int = 1280, scheme: str = "light", language: str = "en") -> tuple[Any, list[str]]:
    """A page with everything that it complains of or asks of elsewhere."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, locale="zh-CN" if language == "zh" else "en-US")
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: None if re.match(r"(http|ws)://127\.0\.0\.1:|data:|blob:", request.url) else said.append(request.url))
    page.goto(url)
    page.wait_for_selector("main .dl-page > *", timeout=30_000)
    page.wait_for_function("window.socket?.connected ?? true", timeout=30_000)
    page.wait_for_load_state("networkidle")
    return page, said


def check(page: Any, said: list[str], name: str, *, scheme: str, language: str) -> None:
    """What holds of every page."""
    assert said == [], name
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0, name
    assert page.evaluate(TOO_WIDE) == [], name
    assert page.evaluate(CLIPPED_ICONS) == [], name
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == TOKENS[scheme], name
    assert page.evaluate("document.documentElement.lang") == ("zh-CN" if language == "zh" else "en-US")
    if language == "zh":
        words = [word.lower() for word in re.findall(r"[A-Za-z]{3,}", re.sub(r"[\w.-]*\d[\w.-]*|\w+(?:[./_]\w+)+", " ", page.evaluate(TEXT)))]
        assert name == "missing" or sorted({word for word in words if not PROPER.fullmatch(word)}) == [], name


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_shows_well(browser: Any, studio: Served, language: str, scheme: str, width: int) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for name, path in PAGES.items():
        page, said = open_page(browser, studio.url + path(studio), width=width, scheme=scheme, language=language)
        page.screenshot(path=SCREENSHOTS / f"{name}-{language}-{scheme}-{width}.png", full_page=True)
        check(page, said, name, scheme=scheme, language=language)
        page.context.close()


@pytest.mark.slow
def test_no_page_has_a_serious_barrier(browser: Any, studio: Served, repository: Path) -> None:
    axe = Path(os.environ.get("DANLU_AXE", repository / "node_modules" / "axe-core" / "axe.min.js"))
    if not axe.is_file():
        pytest.skip(f"axe-core is not installed ({axe}; npm install --no-save axe-core)")
    found = {}
    for scheme in ("light", "dark"):
        for name, path in PAGES.items():
            page, _ = open_page(browser, studio.url + path(studio), scheme=scheme)
            page.evaluate(axe.read_text("utf-8"))
            result = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
            serious = [f"{one['id']}: {one['nodes'][0]['html'][:160]}" for one in result["violations"] if one["impact"] in ("serious", "critical")]
            if serious:
                found[name, scheme] = serious
            page.context.close()
    assert found == {}
