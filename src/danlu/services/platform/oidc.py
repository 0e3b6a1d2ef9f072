"""Signing in at an identity provider (OpenID Connect): authorization code with PKCE, state and nonce.

The state is kept here as a one-time token and is bound to the browser by a cookie, so that nobody can be signed in as somebody else by a
link. Accounts are told by issuer and subject alone: an e-mail address that a provider tells opens nobody's account.
Reference: OpenID Connect Core 1.0 sections 3.1.2 and 3.1.3.7; RFC 7636; RFC 9700.
"""

from __future__ import annotations

import time
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from danlu.errors import ConflictError, OutboundError, ProviderError, SignInError
from danlu.services.platform import names, rates, sessions
from danlu.services.platform.outbound import Answer, fetch
from danlu.services.platform.platform import Platform
from danlu.services.platform.sessions import SignedIn, Visitor
from danlu.services.platform.tokens import hash_token, is_token, new_token
from danlu.settings import Network
from danlu.store import tokens
from danlu.store.engine import Connection
from danlu.store.users import USERS, User

STATE_SECONDS = 600
"""How long one may take to sign in at the provider."""
MAX_UNDER_WAY = 1000
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures that are taken: public-key ones, never `none`, and none that a public key could be used to forge."""
LEEWAY_SECONDS = 60
SCOPES = "openid profile email"


@dataclass(frozen=True)
class Begun:
    """A sign-in that is under way."""

    url: str
    """Where the browser goes."""
    browser_token: str = field(repr=False)
    """What its cookie keeps until it comes back."""


def begin(platform: Platform, redirect_url: str, page: str, *, invitation: str | None = None, address: str | None = None) -> Begun:
    """Prepare a sign-in at the provider.

    Raises:
        ProviderError: no provider is set up, or it does not answer as one does.
        TooManyRequestsError: too many were begun from this address.
    """
    from authlib.oauth2.rfc7636 import create_s256_code_challenge

    network = platform.settings.network
    rates.attempt(f"oidc {platform.home}", address, most=rates.OIDC_STARTS, seconds=300)
    found = _discover(network)
    state, nonce, verifier, browser_token, now = new_token(), new_token(), new_token(), new_token(), time.time()
    fields = {
        "nonce": nonce,
        "verifier": verifier,
        "browser_hash": hash_token(browser_token),
        "page": local_page(page),
        "invitation_hash": None if invitation is None else hash_token(invitation),
        "redirect_url": redirect_url,
    }
    with platform.database.writing() as connection:
        if tokens.count(connection, "oidc") >= MAX_UNDER_WAY:
            raise rates.too_many(STATE_SECONDS)
        tokens.add(connection, "oidc", token_hash=hash_token(state), fields=fields, now=now, expires_at=now + STATE_SECONDS)
    asked = {
        "response_type": "code",
        "client_id": network.oidc_client_id,
        "redirect_uri": redirect_url,
        "scope": SCOPES,
        "state": state,
        "nonce": nonce,
        "code_challenge": create_s256_code_challenge(verifier),
        "code_challenge_method": "S256",
    }
    endpoint = found["authorization_endpoint"]
    return Begun(f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}", browser_token)


def finish(platform: Platform, code: str, state: str, browser_token: str, redirect_url: str, visitor: Visitor) -> tuple[str, SignedIn]:
    """Return the page to go to and the session of who came back from the provider.

    Raises:
        SignInError: this browser has not begun it, it took too long, or there is no account and no invitation.
        ProviderError: what the provider says does not verify.
    """
    with platform.database.writing() as connection:
        begun = tokens.take(connection, "oidc", hash_token(state), time.time())
    if begun is None or not is_token(browser_token, begun.fields["browser_hash"]) or not code or redirect_url != begun.fields["redirect_url"]:
        raise SignInError("this sign-in cannot go on", why="another browser began it, it took too long, or it was refused", fix="begin again")
    network = platform.settings.network
    found = _discover(network)
    claims = _claims(network, found, _exchange(network, found, code, begun.fields["verifier"], redirect_url), begun.fields["nonce"])
    with platform.database.writing() as connection:
        user = _user_of(connection, claims, network, begun.fields["invitation_hash"])
        return begun.fields["page"], sessions.begin(connection, user, visitor)


def local_page(page: str) -> str:
    """Return the page when it is one of the studio's own, else the first page: a sign-in must not lead elsewhere."""
    is_plain = page.isprintable() and not any(character in page for character in "\\ \t\r\n")
    parts = urlsplit(page) if is_plain and page.startswith("/") and not page.startswith("//") else None
    return page if parts is not None and not parts.scheme and not parts.netloc else "/"


def _discover(network: Network) -> dict[str, Any]:
    if network.oidc_issuer is None or not network.oidc_client_id:
        raise ProviderError("no identity provider is set up", why="DANLU_OIDC_ISSUER or DANLU_OIDC_CLIENT_ID is not set", fix="sign in by name and password")
    found = _asked(network, f"{network.oidc_issuer}/.well-known/openid-configuration").json()
    wanted = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")
    if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in wanted):
        raise _does_not_fit("its configuration lacks one of " + ", ".join(wanted))
    if found["issuer"].rstrip("/") != network.oidc_issuer:
        raise _does_not_fit("it calls itself by another name than DANLU_OIDC_ISSUER")
    for name in wanted[1:]:
        if urlsplit(found[name]).scheme != "https" and not network.oidc_issuer.startswith("http://"):
            raise _does_not_fit(f"its {name} is not https")
    return found


def _exchange(network: Network, found: dict[str, Any], code: str, verifier: str, redirect_url: str) -> dict[str, Any]:
    """Turn the code into tokens, from this server to the provider's."""
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_url, "code_verifier": verifier}
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    if not network.oidc_client_secret:
        form["client_id"] = network.oidc_client_id
    elif "client_secret_basic" in found.get("token_endpoint_auth_methods_supported", ["client_secret_basic"]):
        pair = f"{quote(network.oidc_client_id, safe='')}:{quote(network.oidc_client_secret, safe='')}"
        headers["authorization"] = "Basic " + b64encode(pair.encode()).decode()
    else:
        form |= {"client_id": network.oidc_client_id, "client_secret": network.oidc_client_secret}
    answer = _asked(network, found["token_endpoint"], method="POST", headers=headers, content=urlencode(form).encode())
    said = answer.json()
    if answer.status != 200 or not isinstance(said, dict) or not isinstance(said.get("id_token"), str):
        raise _does_not_fit(f"it gave no ID token (status {answer.status})")
    return said


def _claims(network: Network, found: dict[str, Any], said: dict[str, Any], nonce: str) -> dict[str, Any]:
    """Return what the ID token says, once its signature, issuer, audience, times and nonce are right."""
    from authlib.oidc.core import CodeIDToken
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet

    try:
        keys = KeySet.import_key_set(_asked(network, found["jwks_uri"]).json())
        token = jwt.decode(said["id_token"], keys, algorithms=ALGORITHMS)
        options: Any = {
            "iss": {"essential": True, "value": found["issuer"]},
            "aud": {"essential": True, "value": network.oidc_client_id},
            "sub": {"essential": True},
        }
        params = {"nonce": nonce, "client_id": network.oidc_client_id, "access_token": said.get("access_token")}
        claims = CodeIDToken(token.claims, token.header, options, params)
        claims.validate(leeway=LEEWAY_SECONDS)
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise _does_not_fit(f"its ID token does not verify ({type(error).__name__})") from error
    if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
        raise _does_not_fit("it does not say who signed in")
    return dict(claims)


def _user_of(connection: Connection, claims: dict[str, Any], network: Network, invitation_hash: str | None) -> User:
    subject = f"{network.oidc_issuer}|{claims['sub']}"
    user = USERS.find(connection, oidc_subject=subject)
    if user is None:
        invitation = None if invitation_hash is None else tokens.take(connection, "invitation", invitation_hash, time.time())
        if (invitation is None and not network.oidc_admits_everyone) or (invitation is not None and invitation.fields.get("user_id")):
            raise _no_account()
        fields = {} if invitation is None else invitation.fields
        email = claims.get("email") if claims.get("email_verified") is True else None
        fields = {**fields, "email": fields.get("email") or (email if isinstance(email, str) else None)}
        user = sessions.admit(connection, fields, name=_free_name(connection, claims), oidc_subject=subject)
    if not user.is_active:
        raise _no_account()
    return user


def _free_name(connection: Connection, claims: dict[str, Any]) -> str:
    """A name from what the provider says; with a number when it, or one that looks like it, is taken."""
    said = (claims.get("preferred_username"), claims.get("name"), str(claims.get("email", "")).partition("@")[0], "user")
    base = next(tidy for tidy in map(_tidy, said) if tidy)
    for number in range(1, 1000):
        name = base if number == 1 else f"{base}-{number}"
        if USERS.find(connection, name_key=names.key_of(name)) is None:
            return name
    raise ConflictError(f"no name like {base!r} is free", why="very many users have it", fix="ask for an invitation")


def _tidy(said: object) -> str | None:
    try:
        return names.tidy(said[: names.MAX_NAME - 4]) if isinstance(said, str) else None
    except ValueError:
        return None


def _asked(network: Network, url: str, *, method: str = "GET", headers: dict[str, str] | None = None, content: bytes | None = None) -> Answer:
    """Ask the provider, whose own host may be an internal one: the administrator has named it."""
    issuer = urlsplit(network.oidc_issuer or "")
    own = f"{issuer.hostname}:{issuer.port or (443 if issuer.scheme == 'https' else 80)}"
    try:
        return fetch(url, method=method, headers=headers, content=content, allow=(*network.allow_hosts, own))
    except OutboundError as error:
        raise ProviderError("the identity provider cannot be asked", why=f"{error.what}: {error.why}", fix=error.fix) from error


def _does_not_fit(why: str) -> ProviderError:
    return ProviderError("the identity provider did not answer as it should", why=why, fix="check DANLU_OIDC_ISSUER and how this studio is registered there")


def _no_account() -> SignInError:
    return SignInError("there is no account for you", why="you were not invited, or were locked out", fix="ask an administrator for an invitation")
