"""Signing in at an identity provider, with a small real one on this machine."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from doors import World, application, browser
from joserfc import jwt

from danlu.services.platform import invitations, users
from danlu.services.platform.access import Actor
from danlu.services.platform.invitations import NewInvitation
from danlu.services.platform.oidc import local_page
from danlu.services.platform.users import UserChange
from identity_provider import CLIENT, SECRET, Provider


def forged(algorithm: str, claims: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """A token as no library makes it."""
    encode = lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=")  # noqa: E731
    text = encode(json.dumps({"alg": algorithm, "kid": "1"}).encode()) + b"." + encode(json.dumps(claims).encode())
    return (text + b"." + encode(sign(text))).decode()


@pytest.fixture(scope="module")
def a_provider() -> Iterator[Provider]:
    """One server for this file: making its keys takes a while."""
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture
def provider(a_provider: Provider) -> Provider:
    """The server, honest again."""
    a_provider.claims = {"sub": "42", "preferred_username": "zoe", "email": "zoe@example.org", "email_verified": True}
    a_provider.change, a_provider.signing, a_provider.discovery, a_provider.codes = {}, None, {}, {}
    return a_provider


def studio(world: World, provider: Provider, **network: Any) -> Any:
    """A browser before a studio that knows the provider."""
    settings = {"oidc_issuer": provider.url, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET, "oidc_admits_everyone": True} | network
    page = browser(application(world.platform, **settings))
    page.follow_redirects = False
    return page


CALLBACK = "/api/v1/session/oidc/callback"
COMING_BACK = {"Origin": "", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def come_back(page: Any, query: str) -> Any:
    """A navigation from the provider's site has no Origin."""
    headers = {name: value for name, value in COMING_BACK.items() if value}
    page.headers.pop("Origin", None)
    return page.get(f"{CALLBACK}?{query}", headers=headers)


def begin(page: Any, **body: Any) -> str:
    """Ask where to sign in."""
    answer = page.post("/api/v1/session/oidc", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["url"])


def who(page: Any) -> str:
    """Name of who is signed in."""
    return str(page.get("/api/v1/session").json()["name"])


def test_somebody_signs_in_at_the_provider_and_is_the_same_user_the_next_time(world: World, provider: Provider) -> None:
    ids = []
    for _ in range(2):
        page = studio(world, provider)
        back = come_back(page, provider.visit(begin(page, next="/runs?state=running")))
        assert (back.status_code, back.headers["location"]) == (303, "/runs?state=running")
        session = page.get("/api/v1/session").json()
        ids.append(session["user_id"])
        assert (session["name"], session["is_admin"]) == ("zoe", False)

    assert ids[0] == ids[1]


LIES: dict[str, dict[str, Any]] = {
    "another issuer": {"change": {"iss": "https://evil.test"}},
    "another audience": {"change": {"aud": "another-client"}},
    "several audiences without saying for whom": {"change": {"aud": [CLIENT, "x"], "azp": "x"}},
    "expired": {"change": {"exp": 1}},
    "another nonce": {"change": {"nonce": "x"}},
    "no subject": {"change": {"sub": ""}},
    "a subject that is no text": {"change": {"sub": {"a": 1}}},
    "discovery of somebody else": {"discovery": {"issuer": "https://evil.test"}},
    "keys inside of the network": {"discovery": {"jwks_uri": "http://169.254.169.254/keys"}},
    "keys on this machine": {"discovery": {"jwks_uri": "http://127.0.0.1:1/keys"}},
    "keys in a file": {"discovery": {"jwks_uri": "file:/etc/passwd"}},
}


@pytest.mark.parametrize("lie", LIES)
def test_what_the_provider_says_has_to_verify(world: World, provider: Provider, lie: str) -> None:
    page = studio(world, provider)
    query = provider.visit(begin(page))
    for name, value in LIES[lie].items():
        setattr(provider, name, value)

    back = come_back(page, query)

    assert (back.headers["location"], who(page)) == ("/sign-in?error=DL741", "")


def test_a_signature_has_to_be_the_providers(world: World, provider: Provider) -> None:
    by_another_key = lambda claims: jwt.encode({"alg": "RS256", "kid": "1"}, claims, provider.other_key)  # noqa: E731
    public = provider.key.as_pem(private=False)
    with_the_public_key = lambda claims: forged("HS256", claims, lambda text: hmac.digest(public, text, "sha256"))  # noqa: E731
    without_any = lambda claims: forged("none", claims, lambda text: b"")  # noqa: E731
    for signing in (by_another_key, with_the_public_key, without_any):
        page = studio(world, provider)
        query = provider.visit(begin(page))
        provider.signing = signing
        assert (come_back(page, query).headers["location"], who(page)) == ("/sign-in?error=DL741", "")


def test_a_link_signs_nobody_in_as_somebody_else(world: World, provider: Provider) -> None:
    attacker, victim = studio(world, provider), studio(world, provider)
    query = provider.visit(begin(attacker))
    begin(victim)

    assert (come_back(victim, query).headers["location"], who(victim)) == ("/sign-in?error=DL730", "")
    assert come_back(attacker, query).headers["location"] == "/sign-in?error=DL730"  # the state was used up


def test_a_state_is_used_once_and_cannot_be_invented(world: World, provider: Provider) -> None:
    page = studio(world, provider)
    query = provider.visit(begin(page))
    locations = [come_back(page, each).headers["location"] for each in ("code=x&state=y", "", "error=access_denied&state=x", query, query)]

    # The answer to the first of them took the browser's cookie away, so that the true one has to begin again.
    assert locations == ["/sign-in?error=DL730"] * 5
    page = studio(world, provider)
    query = provider.visit(begin(page))
    assert [come_back(page, each).headers["location"] for each in (query, query)] == ["/", "/sign-in?error=DL730"]


def test_an_email_address_opens_nobodys_account_and_a_name_is_not_taken_over(world: World, provider: Provider) -> None:
    provider.claims = {"sub": "7", "preferred_username": "OPERATOR", "email": "operator@example.org", "email_verified": True}
    page = studio(world, provider)
    come_back(page, provider.visit(begin(page)))

    assert who(page) == "OPERATOR-2"
    assert page.get("/api/v1/session").json()["user_id"] != world.actors["operator"].user_id


def test_without_an_invitation_nobody_new_is_admitted_unless_all_are(world: World, provider: Provider) -> None:
    made = invitations.invite(world.platform, world.actors["operator"], NewInvitation(project_id=world.mine, role="editor"))
    plain, invited = (studio(world, provider, oidc_admits_everyone=False) for _ in range(2))

    assert come_back(plain, provider.visit(begin(plain))).headers["location"] == "/sign-in?error=DL730"
    assert come_back(invited, provider.visit(begin(invited, invitation=made.token))).headers["location"] == "/"
    assert (who(invited), [project["id"] for project in invited.get("/api/v1/projects").json()["items"]]) == ("zoe", [world.mine])


def test_who_is_locked_out_stays_out(world: World, provider: Provider) -> None:
    page = studio(world, provider)
    come_back(page, provider.visit(begin(page)))
    user_id = page.get("/api/v1/session").json()["user_id"]
    users.change_user(world.platform, Actor.local(), user_id, UserChange(is_active=False))
    again = studio(world, provider)

    assert (who(page), come_back(again, provider.visit(begin(again))).headers["location"]) == ("", "/sign-in?error=DL730")


@pytest.mark.parametrize(
    "page", ["//evil.test", "https://evil.test", "/\\evil.test", "\\\\evil.test", "javascript:alert(1)", "/\t/evil.test", "evil.test", "", "/\n"]
)
def test_a_sign_in_leads_to_no_other_website(page: str) -> None:
    assert local_page(page) == "/"


@pytest.mark.parametrize("page", ["/", "/runs/run_1?tab=log", "/a//b"])
def test_a_sign_in_leads_to_the_page_that_was_asked_for(page: str) -> None:
    assert local_page(page) == page


def test_without_a_provider_it_is_said_so(world: World, provider: Provider) -> None:
    answer = studio(world, provider, oidc_issuer=None).post("/api/v1/session/oidc", json={})

    assert (answer.status_code, answer.json()["code"]) == (502, "DL741")
