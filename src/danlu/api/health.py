"""Whether the server lives (/healthz), can take work (/readyz), and what it measures (/metrics)."""

from __future__ import annotations

import time

import orjson
from fastapi import APIRouter, Request, Response

from danlu.api.metrics import CONTENT_TYPE, Metrics
from danlu.api.routes import GetActor
from danlu.services.platform import access, system
from danlu.services.platform.platform import Platform
from danlu.services.platform.system import Readiness

KEPT_SECONDS = 1.0
"""Whoever asks more often than that gets the same answer."""


def router(get_actor: GetActor, metrics: Metrics) -> APIRouter:
    """Return the routes; /metrics takes an administrator (or an API key of one), the others anybody."""
    made = APIRouter(include_in_schema=False)
    kept: dict[str, tuple[float, Readiness]] = {}

    @made.get("/healthz")
    async def healthz() -> Response:
        return _json({"is_alive": True}, 200)

    @made.get("/readyz")
    def readyz(request: Request) -> Response:
        found = kept.get("readiness")
        if found is None or time.monotonic() - found[0] > KEPT_SECONDS:
            found = kept["readiness"] = (time.monotonic(), system.readiness(request.app.state.platform))
        return _json({"is_ready": found[1].is_ready, "checks": found[1].checks}, 200 if found[1].is_ready else 503)

    @made.get("/metrics")
    def prometheus(request: Request) -> Response:
        platform: Platform = request.app.state.platform
        with platform.database.reading() as connection:
            access.check(connection, get_actor(request), "operator", {})
        return Response(metrics.text(platform), headers={"Cache-Control": "no-store"}, media_type=CONTENT_TYPE)

    return made


def _json(value: object, status: int) -> Response:
    return Response(orjson.dumps(value), status, {"Cache-Control": "no-store"}, "application/json")
