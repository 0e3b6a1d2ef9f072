"""The server: everything that answers a request, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, FastAPI, Request, Response

import danlu
from danlu.api import health, problems, routes, stream
from danlu.api.metrics import Metrics
from danlu.api.routes import GetActor
from danlu.api.traffic import Traffic
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform

PREFIX = "/api/v1"
NUM_THREADS = 12
"""Operations at a time; the database has a connection for each (store.engine.NUM_CONNECTIONS)."""


def create_app(platform: Platform, *, host: str = "127.0.0.1") -> FastAPI:
    """Return the application for an opened home; `host` is the address it will be bound to."""
    app = FastAPI(title="Danlu", version=danlu.__version__, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=_lifespan)
    app.state.platform, app.state.streams, app.state.metrics = platform, stream.Streams(), Metrics()
    get_actor: GetActor = _local
    app.include_router(_api(get_actor), prefix=PREFIX)
    app.include_router(health.router(get_actor, app.state.metrics))
    problems.install(app)
    app.add_middleware(Traffic, metrics=app.state.metrics)
    return app


def describe() -> dict[str, Any]:
    """Return the OpenAPI description: the same for every installation."""
    app = FastAPI(title="Danlu", version=danlu.__version__, description="Everything that can be done with Danlu, as HTTP.", separate_input_output_schemas=False)
    app.include_router(_api(_local), prefix=PREFIX)
    made = app.openapi()
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"], schemas["Mistake"] = problems.schema(), problems.mistake_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    made["components"]["schemas"] = dict(sorted(schemas.items()))
    made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "An API key: dl_..."}}
    made["security"] = [{"key": []}, {}]
    return made


def _api(get_actor: GetActor) -> APIRouter:
    made = APIRouter()
    made.include_router(routes.router(get_actor))
    made.include_router(stream.router(get_actor))
    kept: list[bytes] = []

    @made.get("/openapi.json", include_in_schema=False)
    def openapi() -> Response:
        if not kept:
            import orjson

            kept.append(orjson.dumps(describe()))
        return Response(kept[0], media_type="application/json")

    return made


def _local(request: Request) -> Actor:
    return Actor.local(request.client.host if request.client else None)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = NUM_THREADS
    yield
    await app.state.streams.stop()
