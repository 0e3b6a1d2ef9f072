"""Make the pictures of the README and the tutorial from a finished run: `python scripts/screenshots.py RUN_DIR`.

The terminal pictures hold what the command line prints for that run (its stored events, then `danlu report`); the report pictures are
report.html in a browser, light and dark, on a desk and on a telephone. Only the home folder's path is shortened to ~/.danlu.
Needs playwright, pillow and a Chromium, which are in no lock file: `pip install playwright pillow`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

from danlu.files import read_jsonl
from danlu.run_dir import RunDir

OUT = Path(__file__).parent.parent / "docs/assets"
COLUMNS = 104
COLOURS = 256
MAX_BYTES = 300_000
LANGUAGES = ("en", "zh")
PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; background: #10151d; }}
pre {{ display: inline-block; margin: 0; padding: 20px 24px; color: #dfe5ee; font: 14px/1.45 "Noto Sans Mono CJK SC", monospace; white-space: pre; }}
</style><pre>{content}</pre>"""


def terminal_text(run: RunDir, language: str) -> str:
    """What the run printed, with colours, as ANSI text."""
    os.environ["DANLU_LANG"] = language
    from danlu.cli.live import event_line

    lines = [f"$ danlu run {run.read_record()['written']['dataset']}"]
    events = list(read_jsonl(run.events))
    reported = next((i for i, event in enumerate(events) if event.get("stage") == "report"), len(events))
    lines += [event_line(event["kind"], event) for event in events[: reported + 1]]  # what came later (exports) has its own commands
    return "\n".join(lines) + "\n" + printed(["report", str(run.path)], language).replace(str(run.path.parent.parent), "~/.danlu")


def printed(arguments: list[str], language: str) -> str:
    """What a `danlu` command prints on a colour terminal."""
    environment = os.environ | {"DANLU_LANG": language, "FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": str(COLUMNS)}
    return subprocess.run([sys.executable, "-m", "danlu", *arguments], env=environment, capture_output=True, text=True, check=True).stdout


def ansi_to_page(text: str) -> str:
    """An HTML page that looks like a terminal."""
    from rich.console import Console
    from rich.terminal_theme import TerminalTheme
    from rich.text import Text

    ansi = [(40, 46, 56), (255, 138, 128), (76, 195, 138), (240, 182, 77), (139, 166, 255), (183, 148, 255), (110, 200, 220), (223, 229, 238)]
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True, color_system="truecolor")  # noqa: SIM115
    console.print(Text.from_ansi(text.strip("\n")), soft_wrap=True)
    theme = TerminalTheme((16, 21, 29), (223, 229, 238), ansi, ansi)
    return PAGE.format(content=console.export_html(theme=theme, inline_styles=True, code_format="{code}"))


def save(png: bytes, name: str) -> None:
    """Write a picture with few colours, which these have, also those of small parts, and refuse one that is too large for a repository."""
    from PIL import Image

    path = OUT / name
    picture = Image.open(BytesIO(png)).convert("RGB")
    counted = sorted(picture.getcolors(picture.width * picture.height) or [], reverse=True)[:COLOURS]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in counted for part in colour])  # as they are: the ground stays apart from the cards, small badges keep their colour
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(OUT.parents[1])}: {size / 1000:.0f} kB")
    if size > MAX_BYTES:
        raise ValueError(f"{path} has {size:,} bytes; at most {MAX_BYTES:,} are wanted")


def shoot_terminal(browser: Any, text: str, name: str) -> None:
    page = browser.new_page(viewport={"width": 1000, "height": 800}, device_scale_factor=1.5)
    page.set_content(ansi_to_page(text))
    save(page.locator("pre").screenshot(), name)
    page.close()


def shoot_report(browser: Any, run: RunDir, language: str, scheme: str, width: int, height: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=1 if width > 500 else 1.5)
    page.goto(f"file://{run.report_html}?lang={language}")
    save(page.screenshot(), f"report-{language}-{scheme}-{width}.png")
    page.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run_dir", type=Path, help="folder of a finished run")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="browser to use")
    arguments = parser.parse_args()
    run = RunDir(arguments.run_dir.resolve())
    from playwright.sync_api import sync_playwright

    OUT.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox", "--disable-gpu"])
        for language in LANGUAGES:
            shoot_terminal(browser, terminal_text(run, language), f"terminal-{language}.png")
            for scheme in ("light", "dark"):
                shoot_report(browser, run, language, scheme, 1280, 1180)
            shoot_report(browser, run, language, "light", 390, 1100)
        shown = "$ danlu data show danlu/zhangjiajie --rows 2\n" + printed(["data", "show", "danlu/zhangjiajie", "--rows", "2"], "en")
        shoot_terminal(browser, shown, "data-show.png")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
