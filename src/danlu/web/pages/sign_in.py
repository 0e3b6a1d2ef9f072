"""Pages for who is not signed in, and the one for addresses that lead nowhere: plain HTML, since a websocket can set no cookie and lives no
longer than a session, and since whatever a stranger asks for must cost the server next to nothing.

They send nothing but what `/api/v1/session` takes (api/sign_in.py); a person who is signed in already is passed on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import HTTPException, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from nicegui import app as pages_app

from danlu.errors import DanluError, SignInError
from danlu.services.platform import sessions
from danlu.services.platform.oidc import local_page
from danlu.services.platform.views import View
from danlu.web.session import Session, aside
from danlu.web.template import MARK, STUDIO, asset

MAX_NEXT = 500
"""As long as REST takes it."""
_HTML = Environment(autoescape=True, undefined=StrictUndefined, loader=FileSystemLoader(Path(__file__).parents[1]), trim_blocks=True, lstrip_blocks=True)


@pages_app.get("/sign-in", include_in_schema=False)
async def sign_in(request: Request, error: str = "") -> Response:
    """Sign in by name and password or at the identity provider; where there is no user, make the first administrator."""
    s = _visit(request)
    if await aside(lambda: STUDIO.actor(request).is_signed_in):
        return RedirectResponse(_next(request), status_code=303)
    if not await aside(lambda: sessions.has_users(s.platform)):
        return _shown(s, "admin", path="/first-admin", fields=("token", "name"), is_new=True)
    failure = ""
    if error:
        failure = s.t("sign_in.provider_refused" if error == SignInError.code else "sign_in.provider_failed")
    return _shown(s, "sign-in", path="", fields=("name",), is_new=False, failure=failure)


@pages_app.get("/invitation", include_in_schema=False)
async def invitation(request: Request, reset: bool = False) -> Response:
    """Make an account with an invitation, or (`reset`) set a new password with one."""
    s = _visit(request)
    if reset:
        return _shown(s, "reset", path="/invitation", fields=("token",), is_new=True)
    return _shown(s, "invitation", path="/invitation", fields=("token", "name"), is_new=True)


@pages_app.get("/signed-in", include_in_schema=False)
async def signed_in(request: Request) -> Response:
    """Where a sign-in ends that another tab waits for."""
    return _shown(_visit(request), "done", path="", fields=(), is_new=False)


@pages_app.post("/studio-renew/{page_id}", include_in_schema=False)
async def renew(request: Request, page_id: str) -> Response:
    """Let a page whose session has ended go on with the one that its user has begun since."""
    try:
        return JSONResponse({"is_same": await aside(lambda: STUDIO.renew(page_id, request))})
    except DanluError as error:
        return JSONResponse(error.to_dict(), status_code=error.http_status)


async def missing(request: Request, error: Exception) -> Response:
    """Tell a person that there is no such page, and a program that there is no such file."""
    if "text/html" not in request.headers.get("accept", ""):
        return await http_exception_handler(request, error if isinstance(error, HTTPException) else HTTPException(404))
    return _shown(_visit(request), "missing", path="", fields=(), is_new=False, status=404)


def _visit(request: Request) -> Session:
    language = request.query_params.get("language")
    return Session(STUDIO.opened(), request, STUDIO.actor, View(language="zh" if language == "zh" else "en" if language == "en" else None))


def _next(request: Request) -> str:
    return local_page(request.query_params.get("next", "/")[:MAX_NEXT])


def _shown(s: Session, kind: str, *, path: str, fields: tuple[str, ...], is_new: bool, failure: str = "", status: int = 200) -> Response:
    name = kind.replace("-", "_")
    other = dict(s.request.query_params) | {"language": "en" if s.language == "zh" else "zh"}
    values: dict[str, Any] = {
        "kind": kind,
        "path": path,
        "fields": fields,
        "is_new": is_new,
        "failure": failure,
        "language": s.language,
        "title": s.t("sign_in.title" if kind == "sign-in" else f"sign_in.{name}_title"),
        "intro": "" if kind == "sign-in" else s.t(f"sign_in.{name}_{'intro' if fields else 'text'}"),
        "action": s.t("sign_in.sign_in" if kind == "sign-in" else "sign_in.make" if "name" in fields else "sign_in.reset_title"),
        "has_provider": kind in ("sign-in", "invitation") and s.platform.settings.network.oidc_issuer is not None,
        "next": _next(s.request),
        "other_language": f"?{urlencode(other)}",  # never with the path: one that begins with // would lead to another host
        "told": {
            "401": s.t("sign_in.bad_token" if is_new else "sign_in.bad_credentials"),
            "403": s.t("sign_in.bad_plain"),
            "409": s.t("sign_in.bad_account"),
            "422": s.t("sign_in.bad_token" if is_new else "sign_in.bad_credentials"),
            "429": s.t("sign_in.too_many"),
            "network": s.t("sign_in.bad_network"),
            "other": s.t("sign_in.bad_other", code="{code}"),
        },
        "t": s.t,
        "mark": Markup(MARK),
        "icon": asset("danlu.svg"),
        "css": asset("studio.css"),
        "js": asset("sign_in.js"),
    }
    return HTMLResponse(_HTML.get_template("sign_in.html.j2").render(values), status, headers={"Cache-Control": "no-store"})
