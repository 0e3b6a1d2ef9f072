"""Signing in and out. The one part of REST that sets cookies; what is done is in services.platform.sessions and .oidc.

A session's token travels in the cookie alone, one-time tokens in bodies: none stands in an address or a log.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import Field

from danlu.api.incoming import COOKIE, SECURE_COOKIE, Incoming
from danlu.api.routes import PROBLEM, StrictRoute
from danlu.api.security import GetActor, Security
from danlu.api.turns import Turns
from danlu.errors import DanluError
from danlu.recipe.base import StrictModel
from danlu.services.platform import oidc, passwords, sessions, users
from danlu.services.platform.access import Actor
from danlu.services.platform.sessions import SignedIn, Visitor
from danlu.services.platform.tokens import csrf_token

R = TypeVar("R")
STATE_COOKIE = "danlu-oidc"
Token = Annotated[str, Field(min_length=20, max_length=100)]
Word = Annotated[str, Field(max_length=passwords.MAX_LENGTH)]


class Credentials(StrictModel):
    """A name and its password."""

    name: str = Field(max_length=300)
    """What the user signs in with."""
    password: Word = Field(repr=False)
    """The user's password."""


class FirstAdmin(StrictModel):
    """The first administrator."""

    token: Token = Field(repr=False)
    """What the server printed when it started."""
    name: str = Field(max_length=300)
    """What the administrator signs in with."""
    password: Word = Field(repr=False)
    """At least 10 characters."""


class Acceptance(StrictModel):
    """An invitation and the account it makes."""

    token: Token = Field(repr=False)
    """The invitation."""
    name: str | None = Field(None, max_length=300)
    """What the user will sign in with; not needed to set a new password."""
    password: Word = Field(repr=False)
    """At least 10 characters."""


class ProviderSignIn(StrictModel):
    """A sign-in at the identity provider."""

    next: str = Field("/", max_length=500)
    """Page of the studio to go to afterwards."""
    invitation: Token | None = Field(None, repr=False)
    """An invitation, for who has no account yet."""


@dataclass(frozen=True)
class Elsewhere:
    """Where to go to sign in."""

    url: str


@dataclass(frozen=True)
class SessionState:
    """Who is signed in in this browser, and how one can sign in."""

    is_signed_in: bool
    user_id: str | None
    name: str
    is_admin: bool
    is_single_user: bool
    """Whether this machine's owner needs no account, since there is none."""
    needs_first_admin: bool
    """Whether there are no users: the token that the server printed makes the first one."""
    has_identity_provider: bool
    csrf_token: str | None
    """To be sent as `X-CSRF-Token` with everything that changes something."""


def router(get_actor: GetActor) -> APIRouter:
    """Return the routes; they belong under /api/v1."""
    made = APIRouter(prefix="/session", tags=["session"], route_class=StrictRoute, responses=PROBLEM)

    @made.get("", operation_id="get_session")
    def get_session(request: Request, actor: Annotated[Actor, Depends(get_actor)]) -> SessionState:
        """Return who is signed in, and the token that protects the session."""
        incoming, security = _incoming(request), _security(request)
        token = incoming.session_token if actor.session_id is not None else None
        return SessionState(
            is_signed_in=actor.is_signed_in,
            user_id=actor.user_id,
            name=actor.name,
            is_admin=actor.is_operator,
            is_single_user=actor.is_signed_in and actor.user_id is None,
            needs_first_admin=not security.has_users(),
            has_identity_provider=security.network.oidc_issuer is not None,
            csrf_token=None if token is None else csrf_token(token),
        )

    @made.post("", operation_id="sign_in")
    async def sign_in(request: Request, response: Response, body: Credentials) -> SessionState:
        """Sign in by name and password."""
        _security(request).check_may_sign_in(_incoming(request))
        made = await _aside(request, partial(sessions.sign_in, _security(request).platform, body.name, body.password, _visitor(request)))
        return _begun(request, response, made)

    @made.delete("", operation_id="sign_out", status_code=204)
    def sign_out(request: Request, response: Response) -> None:
        """End the session."""
        incoming = _incoming(request)
        if incoming.session_token is not None:
            sessions.sign_out(_security(request).platform, incoming.session_token, _visitor(request))
        _set_cookie(response, incoming, "", max_age=0)

    @made.post("/first-admin", operation_id="create_first_admin", status_code=201)
    async def create_first_admin(request: Request, response: Response, body: FirstAdmin) -> SessionState:
        """Make the first administrator with the token that the server printed, and sign in."""
        _security(request).check_may_sign_in(_incoming(request))
        platform, visitor = _security(request).platform, _visitor(request)
        made = await _aside(request, partial(sessions.create_first_admin, platform, body.token, body.name, body.password, visitor))
        return _begun(request, response, made)

    @made.post("/invitation", operation_id="accept_invitation", status_code=201)
    async def accept_invitation(request: Request, response: Response, body: Acceptance) -> SessionState:
        """Make an account with an invitation, or set a new password with one, and sign in."""
        _security(request).check_may_sign_in(_incoming(request))
        platform, visitor = _security(request).platform, _visitor(request)
        made = await _aside(request, partial(sessions.accept_invitation, platform, body.token, body.name, body.password, visitor))
        return _begun(request, response, made)

    @made.post("/oidc", operation_id="begin_provider_sign_in")
    async def begin_provider_sign_in(request: Request, response: Response, body: ProviderSignIn) -> Elsewhere:
        """Return where to sign in at the identity provider; it sends the browser back here."""
        incoming, security = _incoming(request), _security(request)
        security.check_may_sign_in(incoming)
        begin = partial(oidc.begin, security.platform, _callback(request), body.next, invitation=body.invitation, address=incoming.client)
        begun = await _aside(request, begin)
        _set_cookie(response, incoming, begun.browser_token, name=STATE_COOKIE, max_age=oidc.STATE_SECONDS)
        return Elsewhere(begun.url)

    @made.get("/oidc/callback", operation_id="finish_provider_sign_in", status_code=303, response_class=RedirectResponse)
    async def finish_provider_sign_in(request: Request, code: str = "", state: str = "", error: str = "") -> RedirectResponse:
        """Come back from the identity provider."""
        incoming, security = _incoming(request), _security(request)
        browser_token = request.cookies.get(_named(STATE_COOKIE, incoming), "")
        try:
            finish = partial(oidc.finish, security.platform, code[:4000], state[:200], browser_token[:200], _callback(request), _visitor(request))
            page, signed_in = await _aside(request, finish)
        except DanluError as failure:
            # A person looks at this answer: a page that tells the code is of more use than JSON.
            response = RedirectResponse(f"/sign-in?error={failure.code}", status_code=303)
        else:
            response = RedirectResponse(page, status_code=303)
            _set_cookie(response, incoming, signed_in.token, max_age=sessions.ABSOLUTE_SECONDS)
        _set_cookie(response, incoming, "", name=STATE_COOKIE, max_age=0)
        return response

    return made


async def _aside(request: Request, work: Callable[[], R]) -> R:
    """Do what waits for a hashing or for the identity provider where it keeps no other request waiting."""
    turns: Turns = request.app.state.turns
    return await turns.answer(request, work)


def _begun(request: Request, response: Response, signed_in: SignedIn) -> SessionState:
    _set_cookie(response, _incoming(request), signed_in.token, max_age=sessions.ABSOLUTE_SECONDS)
    user: users.UserView = signed_in.user
    return SessionState(
        is_signed_in=True,
        user_id=user.id,
        name=user.name,
        is_admin=user.is_admin,
        is_single_user=False,
        needs_first_admin=False,
        has_identity_provider=_security(request).network.oidc_issuer is not None,
        csrf_token=csrf_token(signed_in.token),
    )


def _set_cookie(response: Response, incoming: Incoming, value: str, *, max_age: int, name: str = COOKIE) -> None:
    response.set_cookie(_named(name, incoming), value, max_age=max_age, path="/", secure=incoming.is_secure, httponly=True, samesite="lax")


def _named(name: str, incoming: Incoming) -> str:
    return (SECURE_COOKIE.removesuffix(COOKIE) if incoming.is_secure else "") + name


def _incoming(request: Request) -> Incoming:
    incoming: Incoming = request.scope["danlu.incoming"]
    return incoming


def _security(request: Request) -> Security:
    security: Security = request.scope["danlu.security"]
    return security


def _visitor(request: Request) -> Visitor:
    incoming = _incoming(request)
    return Visitor(address=incoming.client, agent=incoming.headers.get("user-agent", "")[:200], previous_token=incoming.session_token)


def _callback(request: Request) -> str:
    base = _security(request).network.public_url or _incoming(request).origin
    return f"{base}/api/v1/session/oidc/callback"
