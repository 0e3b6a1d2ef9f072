"""A studio as a process of its own, and a browser window on it."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from danlu.data.split import WORDS
from danlu.web.schema_fields import recipe_schema
from held_port import held_port

SERVER = """
import sys
import uvicorn
import danlu.web
from danlu.api.app import create_app
from danlu.api.security import actor_now
from danlu.services.platform.platform import Platform

platform = Platform.open()
app = create_app(platform)
danlu.web.mount(app, platform, actor_now)
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""


START_SECONDS = 120
"""How long a server may take; an idle machine needs three."""
PATIENCE = 60_000
"""Milliseconds that a page may take for whatever is asked of it; an idle machine needs hardly any."""
TEXT = """(() => {
    const copy = document.querySelector('.dl-shell').cloneNode(true);
    document.body.append(copy);
    const written = '[translate=no], .q-icon, pre, code, .dl-mono, .dl-log, .dl-case, .dl-scroll, .dl-pairs.left, .dl-seg, [lang=en], canvas,'
        + 'h1, h3.dl-text, .dl-navfoot';
    copy.querySelectorAll(written).forEach(e => e.remove());
    copy.querySelectorAll('details').forEach(e => { e.open = true; });
    const text = copy.innerText;
    copy.remove();
    const tips = [...document.querySelectorAll('main [data-tip]')].map(e => e.dataset.tip);
    return [text, ...tips, ...[...document.querySelectorAll('.dl-toast, .dl-tour')].map(e => e.innerText)].join('\\n');
})()"""
"""What a page says, bubbles and folded parts included, without what the user and the models wrote."""
PROPER = re.compile(
    "ada|alpaca|answers|about|api|big|bleu|chatml|chrf|chrome|cpu|csv|current|cut|danlu|doors|dpo|excel|gb|gpu|guide|home|html|hub|instruct|json|jsonl|kb|local|lstm|mb|models|name|of|otters|parquet|peft|png|"
    "postgresql|product|pytest|python|queued|qwen|response|root|rouge|run|small|sqlite|sqrt|studio|tiny|tmp|travel|true|false|votes|worker|yaml|zhangjiajie|zoe"
)
"""Names, units and what the user wrote."""


@cache
def names_of_settings() -> set[str]:
    """What settings are called, and what can be chosen for them or written in data: the same in every language."""
    names: set[str] = set()

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            names.update(node.get("properties", {}), map(str, node.get("enum", [])), [str(node.get("const", ""))])
        for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
            collect(inner)

    collect(recipe_schema())
    names.update(WORDS)
    return {word for name in names for word in re.findall(r"[a-z]{3,}", name.lower())}


def english_left(page: Any) -> list[str]:
    """Words of a Chinese page that are neither Chinese nor names, settings, paths or numbers with units."""
    found = re.sub(r"[\w.-]*\d[\w.-]*|\w+(?:[./_-]\w+)+|\{.*?\}", " ", page.evaluate(TEXT))
    return sorted({word for word in map(str.lower, re.findall(r"[A-Za-z]{3,}", found)) if not PROPER.fullmatch(word)} - names_of_settings())


@dataclass
class Served:
    """A running studio."""

    url: str
    home: Path
    process: "subprocess.Popen[bytes]"
    project_id: str
    run_id: str
    dataset_id: str
    sweep_id: str = ""


def serve(home: Path, port: int = 0, *, has_worker: bool = False, **settings: str) -> "tuple[subprocess.Popen[bytes], str]":
    """Start the server as a process of its own, on request with its worker; return it with its address once it answers."""
    environment = os.environ | {"DANLU_HOME": str(home), "DANLU_LOG_LEVEL": "warning"} | settings
    environment.pop("NICEGUI_SCREEN_TEST_PORT", None)
    command = ["-m", "danlu", "studio", "--no-open", "--port"] if has_worker else ["-c", SERVER]
    with held_port(port) as port:
        process = subprocess.Popen([sys.executable, *command, str(port)], env=environment)
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{url}/healthz", timeout=10).close()
                return process, url
            except OSError:
                assert process.poll() is None, "the server ended"
                time.sleep(0.1)
    process.kill()
    process.wait()
    raise AssertionError(f"the server did not come up within {START_SECONDS} seconds")


class Window:
    """One browser window that goes from page to page, with everything a page complains of or asks of elsewhere."""

    def __init__(self, browser: Any, studio: Served, *, width: int = 1280, scheme: str = "light", language: str = "en") -> None:
        self.studio = studio
        locale = "zh-CN" if language == "zh" else "en-US"
        # Without motion: what fades is neither there nor gone, and its colours are nobody's.
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, locale=locale, reduced_motion="reduce")
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: None if re.match(r"(http|ws)://127\.0\.0\.1:|data:|blob:", request.url) else self.said.append(request.url))

    def go(self, path: str) -> Any:
        """Open a page and wait until it stands and hears the server."""
        self.said.clear()
        self.page.goto(self.studio.url + path)
        return self.ready()

    def reload(self) -> Any:
        """Open the page anew, and wait until it stands and hears the server."""
        self.page.reload()
        return self.ready()

    def ready(self) -> Any:
        """Wait until the page stands and hears the server: one that is left before complains, and forgets what was entered."""
        self.page.wait_for_selector("main .dl-page > *")
        self.page.wait_for_function("window.socket?.connected && document.fonts.status === 'loaded'")
        self.page.wait_for_function("!document.querySelector('main .q-spinner')")
        self.page.wait_for_function("[...document.querySelectorAll('.dl-chart')].every(e => e.firstChild || !e.checkVisibility())")
        return self.page
