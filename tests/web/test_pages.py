"""Every page in a real browser: both languages, light and dark, desk and telephone; quiet, fitting, asking nothing of the network."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from axe import barriers
from studio_server import Served, Window, english_left

from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.views import ViewChange, change_view
from danlu.settings import Settings

PAGES: dict[str, Callable[[Served], str]] = {
    "home": lambda s: "/",
    "runs": lambda s: "/runs",
    "run": lambda s: f"/runs/{s.run_id}",
    "runs-compare": lambda s: f"/runs/compare?runs={s.run_id},{s.sweep_id}",
    "sweeps": lambda s: "/sweeps",
    "sweep": lambda s: f"/sweeps/{s.sweep_id}",
    "new-sweep": lambda s: "/sweeps/new?dataset=danlu/zhangjiajie",
    "proof": lambda s: f"/runs/{s.run_id}/proof",
    "datasets": lambda s: "/datasets",
    "dataset": lambda s: f"/datasets/{s.dataset_id}",
    "new-run": lambda s: "/new-run",
    "new-run-model": lambda s: "/new-run?dataset=danlu/zhangjiajie",
    "models": lambda s: "/models",
    "exports": lambda s: "/exports",
    "chat": lambda s: "/chat",
    "compare": lambda s: "/compare",
    "queue": lambda s: "/queue",
    "advisor": lambda s: "/advisor",
    "help": lambda s: "/help",
    "settings": lambda s: "/settings",
    "account": lambda s: "/settings/account",
    "people": lambda s: "/settings/people",
    "missing": lambda s: "/runs/run_none",
}
SCREENSHOTS = Path(os.environ.get("DANLU_SCREENSHOTS", Path(__file__).parents[2] / "build" / "screenshots"))
SCHEMES, WIDTHS = ("light", "dark"), (1280, 390)
TOKENS = {"light": "rgb(246, 247, 249)", "dark": "rgb(15, 20, 27)"}
TOO_WIDE = """[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
    && !e.closest('svg, .dl-scroll, canvas, .dl-skip, caption, thead')).map(e => e.outerHTML.slice(0, 120))"""
CLIPPED_ICONS = "[...document.querySelectorAll('.q-icon')].filter(e => e.offsetWidth && e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"


def check(page: Any, said: list[str], name: str, *, scheme: str, language: str) -> None:
    """What holds of every page."""
    assert said == [], name
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0, name
    assert page.evaluate(TOO_WIDE) == [], name
    assert page.evaluate(CLIPPED_ICONS) == [], name
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == TOKENS[scheme], name
    assert page.evaluate("document.documentElement.lang") == ("zh-CN" if language == "zh" else "en-US")
    assert language != "zh" or english_left(page) == [], name


def look(window: Window, name: str, path: str, *, language: str, schemes: Iterable[str] = SCHEMES, widths: Iterable[int] = WIDTHS) -> None:
    """Open a page once, look at it in each light and width, and keep what it looks like."""
    page = window.go(path)
    for width in widths:
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)
            page.wait_for_function("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
            page.screenshot(path=SCREENSHOTS / f"{name}-{language}-{scheme}-{width}.png", full_page=True)
            check(page, window.said, name, scheme=scheme, language=language)


@pytest.fixture(scope="module", autouse=True)
def no_tour(studio: Served) -> None:
    """The pages as they are after the first visit."""
    platform = Platform.open(Settings(home=studio.home))
    change_view(platform, Actor.local(), ViewChange(has_seen_tour=True))
    platform.close()


def test_the_main_pages_show_well(browser: Any, studio: Served) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    window = Window(browser, studio, language="zh")
    for name in ("home", "run", "dataset", "new-run-model", "proof"):
        look(window, name, PAGES[name](studio), language="zh", schemes=["light"], widths=[1280])
    window.context.close()


def test_a_printed_proof_shows_all_of_its_table(browser: Any, studio: Served) -> None:
    window = Window(browser, studio)
    page = window.go(PAGES["proof"](studio))
    page.set_viewport_size({"width": 688, "height": 900})  # a sheet of A4 without its margins
    page.emulate_media(media="print")
    right = "Math.max(...[...document.querySelectorAll('.dl-table td, .dl-table th')].map(e => e.getBoundingClientRect().right))"
    assert page.evaluate(right) <= page.evaluate("document.querySelector('.dl-page').getBoundingClientRect().right")
    assert not page.locator(".dl-nav").is_visible()
    window.context.close()


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_page_shows_well(browser: Any, studio: Served, language: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    window = Window(browser, studio, language=language)
    for name, path in PAGES.items():
        look(window, name, path(studio), language=language)
    window.context.close()


@pytest.mark.slow
def test_no_page_has_a_serious_barrier(browser: Any, studio: Served) -> None:
    found = {}
    window = Window(browser, studio)
    for name, path in PAGES.items():
        page = window.go(path(studio))
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.wait_for_function("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
            serious = barriers(page)
            if serious:
                found[name, scheme] = serious
    found |= _badges(window) | _tour(window)
    window.context.close()
    assert found == {}


def _badges(window: Window) -> dict[tuple[str, str], list[str]]:
    """The badges that say whether a model fits, each with its bubble open, in every colour they can have."""
    found = {}
    page = window.go("/models")
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        for tones in (("good", "warn"), ("bad", "")):
            page.eval_on_selector_all(
                ".dl-badge[data-tip]", "(badges, tones) => badges.forEach((one, i) => one.classList.value = `dl-badge ${tones[i]}`)", tones
            )
            page.eval_on_selector(".dl-badge[data-tip]", "badge => { badge.blur(); badge.focus(); }")
            assert page.get_attribute(".dl-badge[data-tip]", "aria-describedby") == page.get_attribute(".dl-tip", "id")
            if serious := barriers(page):
                found[f"badges {tones}", scheme] = serious
    return found


def _tour(window: Window) -> dict[tuple[str, str], list[str]]:
    """The tour, at each of its steps."""
    found = {}
    window.go("/help").click("main .dl-head button")
    page = window.page
    page.wait_for_selector(".dl-tour", timeout=60_000)
    for number in range(7):
        scheme = SCHEMES[number % 2]
        page.emulate_media(color_scheme=scheme)
        if number in (0, 1, 4, 6) and (serious := barriers(page)):  # at a button, in the navigation, at a card, at its end
            found[f"tour {number}", scheme] = serious
        page.keyboard.press("ArrowRight")
    page.wait_for_selector(".dl-tour", state="detached", timeout=60_000)
    return found
