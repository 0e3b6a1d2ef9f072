"""Putting the pages on the application."""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path

from fastapi import FastAPI
from nicegui import app as pages_app
from nicegui import core, ui
from starlette.routing import Match, Mount
from starlette.types import Scope

from danlu.services.platform.platform import Platform
from danlu.web import run_feed, template
from danlu.web.components import answering
from danlu.web.packed import Packed
from danlu.web.session import GetActor

PAGES = (
    "account", "advisor", "chat", "compare_runs", "dataset", "datasets", "exports", "help", "home", "models", "new_run", "new_sweep", "people",
    "project", "proof", "queue", "run", "settings", "sign_in", "sweeps",
)  # fmt: skip
"""In this order: of two addresses that fit the first one is taken, `/runs/compare` before `/runs/{run_id}`."""
RECONNECT_SECONDS = 60.0
"""A page that was away for less goes on where it was; after that it is loaded again, and looks the same."""
STATIC = Path(__file__).parent / "static"


def mount(app: FastAPI, platform: Platform, get_actor: GetActor) -> None:
    """See `danlu.web.mount`."""
    logging.getLogger("nicegui").setLevel(logging.ERROR)  # it warns of pages that are not there with the whole address, query included
    pages_app.on_page_exception(template.broken)
    # Only websockets: a connection of requests would go on after its session has ended, which the guard sees on websockets.
    pages_app.config.socket_io_js_transports = ["websocket"]
    core.sio.eio.transports = ["websocket"]
    pages_app.config.quasar_config["loadingBar"]["skipHijack"] = True  # a bar without a name for who cannot see it, at every request
    template.STUDIO.serve(platform, get_actor)
    for name in PAGES:
        import_module(f"danlu.web.pages.{name}")
    import_module("danlu.web.transfers")
    pages_app.add_exception_handler(404, import_module("danlu.web.pages.sign_in").missing)
    pages_app.add_static_files("/studio-files", STATIC, max_cache_age=31_536_000)
    pages_app.on_shutdown(run_feed.stop)
    pages_app.on_shutdown(answering.stop_all)
    ui.run_with(
        app,
        title="Danlu",
        favicon=STATIC / "danlu.svg",
        tailwind=False,
        reconnect_timeout=RECONNECT_SECONDS,
        binding_refresh_interval=None,
        show_welcome_message=False,
        gzip_middleware_factory=Packed,
    )
    app.router.routes[-1] = _Pages("/", app=pages_app)


class _Pages(Mount):
    """Every address that no other route has, except those below /api: there, what does not exist is a problem and not a page."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See Starlette."""
        return (Match.NONE, {}) if scope["path"].startswith("/api/") else super().matches(scope)
