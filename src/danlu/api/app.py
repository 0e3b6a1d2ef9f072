"""The server: everything that answers a request, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from fastapi import APIRouter, FastAPI, HTTPException, Response
from starlette.routing import Match, Route

import danlu
from danlu.api import chat, health, problems, routes, security, sign_in, stream, uploads
from danlu.api.metrics import Metrics
from danlu.api.routes import GetActor
from danlu.api.traffic import Traffic
from danlu.api.turns import NUM_THREADS, Turns
from danlu.services.platform.platform import Platform

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

PREFIX = "/api/v1"


def create_app(platform: Platform, *, host: str = "127.0.0.1") -> FastAPI:
    """Return the application for an opened home; `host` is the address it will be bound to."""
    app = FastAPI(title="Danlu", version=danlu.__version__, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=_lifespan)
    app.state.platform, app.state.streams, app.state.metrics, app.state.turns = platform, stream.Streams(), Metrics(), Turns()
    get_actor = security.install(app, platform, host=host)
    app.include_router(_api(get_actor), prefix=PREFIX)
    app.include_router(health.router(get_actor, app.state.metrics))
    app.router.routes.append(Route("/api/{rest:path}", _NothingHere(), include_in_schema=False))
    problems.install(app)
    app.add_middleware(Traffic, metrics=app.state.metrics)
    return app


def describe() -> dict[str, Any]:
    """Return the OpenAPI description: the same for every installation."""
    app = FastAPI(title="Danlu", version=danlu.__version__, description="Everything that can be done with Danlu, as HTTP.", separate_input_output_schemas=False)
    app.include_router(_api(security.actor_of_request, is_described=True), prefix=PREFIX)
    made = app.openapi()
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"], schemas["Mistake"] = problems.schema(), problems.mistake_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    made["components"]["schemas"] = dict(sorted(schemas.items()))
    made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "An API key: dl_..."}}
    made["security"] = [{"key": []}, {}]
    return made


def _api(get_actor: GetActor, *, is_described: bool = False) -> APIRouter:
    made = APIRouter()
    made.include_router(routes.router(get_actor, is_described=is_described))
    made.include_router(stream.router(get_actor))
    made.include_router(chat.router(get_actor))
    made.include_router(uploads.router(get_actor))
    made.include_router(sign_in.router(get_actor))
    kept: list[bytes] = []

    @made.get("/openapi.json", include_in_schema=False)
    def openapi() -> Response:
        if not kept:
            import orjson

            kept.append(orjson.dumps(describe()))
        return Response(kept[0], media_type="application/json")

    return made


class _NothingHere:
    """What answers for addresses below /api that no operation has: whatever else is mounted must not take them for pages."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse: the address is not known, or it is done by other methods."""
        for route in scope["app"].router.routes:
            match, child_scope = route.matches(scope)
            if match is Match.PARTIAL:
                scope.update(child_scope)
                await route.handle(scope, receive, send)
                return
        raise HTTPException(404)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = NUM_THREADS
    yield
    await app.state.streams.stop()
