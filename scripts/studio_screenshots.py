"""Make the pictures of the studio in the README: `python scripts/studio_screenshots.py`, a few minutes on two cores.

A studio on an empty home is used as a new user uses it, once in English and once in Chinese: load the example, train on it, continue, start the run,
read the proof. Nothing in the pictures is made up. Needs what screenshots.py needs: playwright, pillow and a Chromium.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from screenshots import save

SIZE = {"width": 1280, "height": 800}
WAIT = 900_000
"""Milliseconds that a run may take."""
WORDS = {
    "en": {
        "example": "Load the example",
        "skip": "Skip the tour",
        "train": "Train on it",
        "continue": "Continue",
        "start": "Start the run",
        "proof": "See the proof",
    },
    "zh": {"example": "载入示例", "skip": "跳过引导", "train": "用它训练", "continue": "继续", "start": "开始训练", "proof": "查看证明"},
}


@contextmanager
def studio(home: Path) -> Iterator[str]:
    """The address of a studio on an empty home, with its worker."""
    command = [sys.executable, "-m", "danlu", "studio", "--no-open", "--port", "0"]
    environment = os.environ | {"DANLU_HOME": str(home), "DANLU_LANG": "en", "DANLU_LOG_LEVEL": "WARNING"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield re.findall(r"http://[\d.:]+", process.stdout.readline())[0]
    finally:
        process.terminate()
        process.wait(30)


def shoot(page: Any, name: str, language: str) -> None:
    """Take the picture of what the window shows, once it has settled."""
    page.wait_for_function("!document.querySelector('main .q-spinner') && document.fonts.status === 'loaded'", timeout=WAIT)
    page.wait_for_timeout(1500)
    save(page.screenshot(), f"studio-{name}-{language}.png")


def journey(browser: Any, url: str, language: str) -> None:
    """From an empty home to a proof, as a new user goes."""
    words = WORDS[language]
    page = browser.new_context(viewport=SIZE, color_scheme="light", locale="zh-CN" if language == "zh" else "en-US").new_page()
    page.goto(url)
    page.click(f"text={words['skip']}", timeout=WAIT)
    page.click(f"text={words['example']}", timeout=WAIT)
    page.wait_for_url("**/datasets/*", timeout=WAIT)
    page.click(f"main >> text={words['train']}", timeout=WAIT)
    page.wait_for_url("**/new-run**", timeout=WAIT)
    page.click(f"button:has-text('{words['continue']}')", timeout=WAIT)
    page.wait_for_selector(f"button:has-text('{words['start']}')", timeout=WAIT)
    page.wait_for_selector(".dl-reason", timeout=WAIT)
    shoot(page, "new-run", language)
    page.click(f"button:not([aria-disabled]):has-text('{words['start']}')", timeout=WAIT)
    page.wait_for_url("**/runs/run_*", timeout=WAIT)
    page.wait_for_selector(f"main >> text={words['proof']}", timeout=WAIT)
    shoot(page, "run", language)
    page.click(f"main >> text={words['proof']}", timeout=WAIT)
    page.wait_for_url("**/proof", timeout=WAIT)
    page.wait_for_selector(".dl-verdict", timeout=WAIT)
    shoot(page, "proof", language)
    page.context.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="browser to use")
    parser.add_argument("--language", choices=list(WORDS), nargs="*", default=list(WORDS), help="languages to take them in")
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    for language in arguments.language:
        with tempfile.TemporaryDirectory() as folder, studio(Path(folder) / "home") as url, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox", "--disable-gpu"])
            journey(browser, url, language)
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
