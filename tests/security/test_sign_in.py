"""Signing in over REST: cookies, and what a browser and a log get to see."""

from __future__ import annotations

import logging
from http.cookies import SimpleCookie
from typing import Any

import pytest
from doors import PASSWORD, application, browser, program

from danlu.services.platform import sessions
from danlu.services.platform.platform import Platform

NAME = {"name": "ann", "password": PASSWORD}


def first(page: Any, platform: Platform) -> Any:
    """Make the first administrator in a browser."""
    return page.post("/api/v1/session/first-admin", json={"token": sessions.first_admin_token(platform), **NAME})


def flags(answer: Any) -> dict[str, tuple[Any, ...]]:
    """Names and flags of the cookies that an answer sets."""
    cookie = SimpleCookie(answer.headers["set-cookie"])
    return {name: tuple(morsel[flag] for flag in ("httponly", "secure", "samesite", "path", "domain")) for name, morsel in cookie.items()}


def test_the_cookie_is_for_this_host_and_no_script(platform: Platform) -> None:
    plain, secure = application(platform), application(platform, public_url="https://studio.example.org")

    assert flags(first(browser(plain), platform)) == {"danlu": (True, "", "lax", "/", "")}
    page = browser(secure, base_url="https://studio.example.org", address="10.0.0.9")
    assert flags(page.post("/api/v1/session", json=NAME)) == {"__Host-danlu": (True, True, "lax", "/", "")}


def test_over_https_a_cookie_that_plain_http_could_have_set_is_not_taken(platform: Platform) -> None:
    first(browser(application(platform)), platform)
    token = sessions.sign_in(platform, **NAME, visitor=sessions.Visitor()).token
    app = application(platform, public_url="https://studio.example.org")
    answers = {}
    for name in ("danlu", "__Host-danlu"):
        page = program(app, base_url="https://studio.example.org")
        answers[name] = page.get("/api/v1/session", headers={"Cookie": f"{name}={token}"}).json()["is_signed_in"]
    twice = program(app, base_url="https://studio.example.org").get("/api/v1/session", headers={"Cookie": f"__Host-danlu={token}; __Host-danlu=x"})

    assert (answers, twice.json()["is_signed_in"]) == ({"danlu": False, "__Host-danlu": True}, False)


def test_from_the_first_token_to_signing_out(platform: Platform) -> None:
    page = browser(application(platform, auth="users"))
    before = page.get("/api/v1/session").json()
    made = first(page, platform)
    token = page.cookies["danlu"]
    after = page.get("/api/v1/session").json()

    assert (before["needs_first_admin"], before["is_signed_in"], made.status_code) == (True, False, 201)
    assert (after["needs_first_admin"], after["name"], after["is_admin"], after["is_single_user"]) == (False, "ann", True, False)
    assert page.delete("/api/v1/session").status_code == 403
    assert page.delete("/api/v1/session", headers={"X-CSRF-Token": after["csrf_token"]}).status_code == 204
    assert "danlu" not in page.cookies and page.get("/api/v1/session", headers={"Cookie": f"danlu={token}"}).json()["is_signed_in"] is False


def test_a_session_that_was_planted_before_is_worth_nothing_after(platform: Platform) -> None:
    page = browser(application(platform))
    first(page, platform)
    planted = page.cookies["danlu"]
    answer = page.post("/api/v1/session", json=NAME)

    assert answer.status_code == 200 and page.cookies["danlu"] != planted
    assert sessions.actor_of_session(platform, planted, None) is None
    other = browser(application(platform), Cookie=f"danlu={'a' * 43}")
    assert other.post("/api/v1/session", json=NAME).status_code == 200 and other.cookies["danlu"] != "a" * 43


@pytest.mark.parametrize("path", ["", "/first-admin", "/invitation", "/oidc"])
def test_nobody_is_signed_in_by_another_website(platform: Platform, path: str) -> None:
    page = browser(application(platform), Origin="http://evil.test")

    assert page.post(f"/api/v1/session{path}", json={}).status_code == 403


def test_wrong_names_and_passwords_get_the_same_answer(platform: Platform) -> None:
    page = browser(application(platform, auth="users"))
    first(page, platform)
    answers = [page.post("/api/v1/session", json={**NAME, **wrong}) for wrong in ({"password": "wrong password"}, {"name": "nobody"}, {"name": "\U0001f600"})]

    said = [(answer.status_code, {**answer.json(), "request_id": ""}) for answer in answers]
    assert said == [said[0]] * 3 and said[0][0] == 401


def test_the_log_and_the_answers_hold_no_password_and_no_token(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    page = browser(application(platform, auth="users"))
    token = sessions.first_admin_token(platform) or ""
    weak = page.post("/api/v1/session/first-admin", json={"token": token, "name": "ann", "password": "weak-word"})
    made = page.post("/api/v1/session/first-admin", json={"token": token, **NAME})

    assert (weak.status_code, made.status_code) == (409, 201)
    for secret in (token, "weak-word", PASSWORD, page.cookies["danlu"]):
        assert secret not in caplog.text + weak.text + made.text


def test_bodies_of_signing_in_take_no_other_fields(platform: Platform) -> None:
    page = browser(application(platform, auth="users"))

    assert page.post("/api/v1/session", json={**NAME, "is_admin": True}).status_code == 422
    assert page.post("/api/v1/session/first-admin", json={"token": "x" * 43, **NAME, "role": "admin"}).status_code == 422
