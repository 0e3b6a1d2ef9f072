"""Signing in and out as people do it: the first administrator, an invitation, a session that ends and a role that is lost in mid-page."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe import barriers
from studio_server import Served, Window, serve
from test_pages import SCREENSHOTS, TOKENS, look

from danlu.services.platform import datasets, projects, sessions, votes
from danlu.services.platform.access import Actor
from danlu.services.platform.datasets import NewDataset
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.services.platform.sessions import Visitor
from danlu.services.platform.votes import NewVote
from danlu.settings import Settings
from danlu.store import members
from danlu.store import sessions as store
from danlu.store.users import USERS
from identity_provider import CLIENT, SECRET, Provider

pytestmark = pytest.mark.slow
WAIT = 60_000
PASSWORD = "three quiet otters"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """An identity provider."""
    made = Provider()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[Served]:
    """A studio of a team: everybody signs in, here or at the provider."""
    settings = {"ISSUER": provider.url, "CLIENT_ID": CLIENT, "CLIENT_SECRET": SECRET, "NEW_USERS": "1"}
    with team(tmp_path_factory.mktemp("team") / "home", **{f"DANLU_OIDC_{name}": value for name, value in settings.items()}) as served:
        yield served


@contextmanager
def team(home: Path, **settings: str) -> Iterator[Served]:
    """A studio in which everybody signs in, and nobody has an account yet."""
    platform = Platform.open(Settings(home=home))
    project_id = projects.create_project(platform, Actor.local(), NewProject(name="Otters")).id
    platform.close()
    process, url = serve(home, DANLU_AUTH="users", **settings)
    yield Served(url, home, process, project_id, "", "")
    process.terminate()
    process.wait(timeout=60)


@pytest.fixture
def platform(shared: Served) -> Iterator[Platform]:
    opened = Platform.open(Settings(home=shared.home))
    yield opened
    opened.close()


@pytest.fixture
def admin(platform: Platform) -> str:
    """The administrator's name."""
    token = sessions.first_admin_token(platform)
    if token is not None:
        sessions.create_first_admin(platform, token, "ada", PASSWORD, Visitor())
    return "ada"


def enter(window: Window, name: str, *, at: str) -> Any:
    """Sign in on the page that a link leads to."""
    page = window.page
    page.goto(window.studio.url + at)
    page.fill("[name=name]", name)
    page.fill("[name=password]", PASSWORD)
    page.click("[type=submit]")
    return page


def test_the_first_administrator_is_made_with_the_token_and_is_led_to_the_page_that_was_asked_for(browser: Any, tmp_path: Path) -> None:
    with team(tmp_path / "home") as studio:
        platform = Platform.open(Settings(home=studio.home))
        window = Window(browser, studio)
        page = window.page
        for language in ("zh", "en"):
            shows_well(window, f"sign-in?language={language}", f"first-admin-{language}")
        page.goto(f"{studio.url}/queue?x=1")
        assert page.url == f"{studio.url}/sign-in?next=/queue%3Fx%3D1"

        page.fill("[name=token]", "not the token of this server")
        page.fill("[name=name]", "ada")
        page.fill("[name=password]", PASSWORD)
        page.click("[type=submit]")
        page.wait_for_selector("#told:has-text('This token is not valid')", timeout=WAIT)
        page.fill("[name=token]", str(sessions.first_admin_token(platform)))
        page.click("[type=submit]")
        page.wait_for_url("**/queue?x=1", timeout=WAIT)
        page.wait_for_selector("h1:has-text('Queue')", timeout=WAIT)

        page.click("text=Sign out")
        page.wait_for_url("**/sign-in", timeout=WAIT)
        assert [cookie for cookie in window.context.cookies() if cookie["name"] == "danlu"] == []
        window.context.close()
        platform.close()


@pytest.mark.parametrize("next", ["https://evil.example/", "//evil.example", "/\\evil.example", "/\t/evil.example", "javascript:alert(1)"])
def test_a_sign_in_never_leads_elsewhere(shared: Served, admin: str, next: str) -> None:
    with httpx.Client(base_url=shared.url, headers={"origin": shared.url}) as client:
        assert 'data-next="/"' in client.get("/sign-in", params={"next": next}).text
        client.post("/api/v1/session", json={"name": admin, "password": PASSWORD}).raise_for_status()
        assert client.get("/sign-in", params={"next": next}).headers["location"] == "/"


def shows_well(window: Window, path: str, name: str) -> None:
    """A page without the frame fits, has its colours and no barriers; what it looks like is kept."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page = window.page
    page.goto(f"{window.studio.url}/{path}")
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == TOKENS[scheme]
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
            page.screenshot(path=SCREENSHOTS / f"{name}-{scheme}-{width}.png")
    page.set_viewport_size({"width": 1280, "height": 900})


@pytest.mark.parametrize("language", ["en", "zh"])
def test_pages_for_strangers_show_well(browser: Any, shared: Served, admin: str, language: str) -> None:
    window = Window(browser, shared, language=language)
    for name in ("sign-in", "sign-in?error=DL730", "invitation", "invitation?reset=1", "signed-in", "no-such-page"):
        shows_well(window, name, f"{name.replace('?', '-')}-{language}")
        if language == "zh":
            assert set(re.findall("[A-Za-z]{3,}", window.page.inner_text("main"))) <= {"English"}
    assert [text for text in window.said if "404" not in text] == []
    window.context.close()


def test_pages_of_accounts_show_well_and_none_has_a_serious_barrier(browser: Any, shared: Served, admin: str) -> None:
    window = Window(browser, shared)
    found = {}
    for name in ("sign-in", "invitation", "invitation?reset=1", "no-such-page"):
        window.page.goto(f"{shared.url}/{name}")
        found[name] = barriers(window.page)
    enter(window, admin, at="/sign-in").wait_for_url(f"{shared.url}/", timeout=WAIT)
    proof = proof_of(window)
    try:
        for language in ("zh", "en"):
            window.context.request.patch(f"{shared.url}/api/v1/me/view", data={"language": language}, headers=proof)
            for name in ("account", "people"):
                look(window, f"{name}-signed-in", f"/settings/{name}", language=language)
                found[name] = barriers(window.page)
    finally:  # the other tests read English, whatever came of this one
        window.context.request.patch(f"{shared.url}/api/v1/me/view", data={"language": "en"}, headers=proof)
        window.context.close()
    assert {name: serious for name, serious in found.items() if serious} == {}


def proof_of(window: Window) -> dict[str, str]:
    """What a request that changes something carries."""
    return {"x-csrf-token": window.context.request.get(f"{window.studio.url}/api/v1/session").json()["csrf_token"], "origin": window.studio.url}


def test_a_stranger_who_asks_for_what_is_not_there_costs_the_server_no_page(shared: Served) -> None:
    found = httpx.get(f"{shared.url}/wp-login.php", headers={"accept": "text/html", "accept-language": "zh"})
    other = httpx.get(f"{shared.url}/no-such-file.js", headers={"accept": "*/*"})

    assert (found.status_code, other.status_code) == (404, 404)
    assert "没有这个页面" in found.text and "socket.io" not in found.text
    assert other.headers["content-type"] == "application/json"
    elsewhere = httpx.get(f"{shared.url}//example.org/x", headers={"accept": "text/html"})
    assert elsewhere.status_code == 404 and "example.org" not in elsewhere.text


def test_what_goes_wrong_at_the_provider_is_told_in_the_readers_language(shared: Served, admin: str) -> None:
    told = httpx.get(f"{shared.url}/sign-in?error=DL730&language=zh").text
    other = httpx.get(f"{shared.url}/sign-in?error=DL741<script>").text

    assert "登录无法继续" in told and "organisation&#39;s sign-in did not go through" in other and "<script>" not in other.replace("<script src", "")


def test_somebody_signs_in_at_the_identity_provider_or_is_told_that_it_refused(browser: Any, shared: Served, admin: str, provider: Provider) -> None:
    window, other = Window(browser, shared, language="zh"), Window(browser, shared)
    window.page.goto(f"{shared.url}/sign-in?next=/help")
    window.page.click("#provider")
    window.page.wait_for_url(f"{shared.url}/help", timeout=WAIT)
    window.page.wait_for_selector(".dl-navfoot >> text=zoe", timeout=WAIT)

    provider.refuses = True
    other.page.goto(f"{shared.url}/sign-in")
    other.page.click("#provider")
    other.page.wait_for_selector("#told:has-text('This sign-in cannot go on')", timeout=WAIT)
    provider.refuses = False
    assert window.said == other.said == []
    for opened in (window, other):
        opened.context.close()


def test_an_invited_colleague_joins_the_project_in_the_role(browser: Any, shared: Served, admin: str, platform: Platform) -> None:
    window, colleague = Window(browser, shared), Window(browser, shared, language="zh")
    page = enter(window, admin, at="/sign-in?next=/settings/people")
    window.ready()
    page.click("main .dl-btn.primary:has-text('Invite')")
    link = page.inner_text("#link", timeout=WAIT)
    assert "/invitation#" in link

    other = colleague.page
    other.goto(link)
    assert "#" not in other.evaluate("location.href") and link.rpartition("#")[2] == other.input_value("[name=token]")
    other.fill("[name=name]", "bo")
    other.fill("[name=password]", "short")
    other.fill("[name=password]", PASSWORD)
    other.click("[type=submit]")
    other.wait_for_selector(".dl-navfoot >> text=bo", timeout=WAIT)
    with platform.database.reading() as connection:
        bo = USERS.find(connection, name_key="bo")
        assert bo is not None and members.role_of(connection, shared.project_id, bo.id) == "editor"
    for opened in (window, colleague):
        opened.context.close()


def test_a_session_that_ends_in_mid_page_costs_nothing_that_was_typed(browser: Any, shared: Served, admin: str, platform: Platform) -> None:
    window = Window(browser, shared)
    page = enter(window, admin, at="/sign-in?next=/settings/account")
    window.ready()
    page.fill("[aria-label='What the key is for']", "每晚")
    with platform.database.writing() as connection:
        user = USERS.find(connection, name_key=admin)
        assert user is not None
        store.end_all(connection, user.id)

    page.click("text=Make a key")
    page.wait_for_selector("dialog:has-text('Nothing you entered is lost')", timeout=WAIT)
    with window.context.expect_page() as opened:
        page.click("dialog a")
    again = opened.value
    again.fill("[name=name]", admin)
    again.fill("[name=password]", PASSWORD)
    again.click("[type=submit]")
    again.wait_for_selector("text=You are signed in", timeout=WAIT)
    page.wait_for_selector("dialog", state="detached", timeout=WAIT)
    assert page.input_value("[aria-label='What the key is for']") == "每晚"
    page.click("text=Make a key")
    secret = page.inner_text("#secret", timeout=WAIT)
    assert httpx.get(f"{shared.url}/api/v1/me", headers={"authorization": f"Bearer {secret}"}).json()["name"] == admin
    window.reload()
    page.wait_for_selector("text=每晚", timeout=WAIT)
    assert secret not in page.content()
    window.context.close()


def test_a_reviewer_is_offered_what_a_reviewer_may_do_and_told_what_the_rest_needs(browser: Any, shared: Served, admin: str, platform: Platform) -> None:
    with platform.database.writing() as connection:
        ada = USERS.find(connection, name_key=admin)
        assert ada is not None
        more: dict[str, Any] = {
            "email": None,
            "password_hash": ada.password_hash,
            "oidc_subject": None,
            "is_admin": False,
            "is_active": True,
            "preferences": {},
        }
        kim = USERS.insert(connection, name="kim", name_key="kim", **more)
        members.set_role(connection, shared.project_id, kim.id, "reviewer")
    answers = [{"model": "danlu/tiny", "text": text} for text in ("by cable car", "no idea")]
    asked = [{"role": "user", "content": "How do I get there?"}]
    vote = NewVote.model_validate({"messages": asked, "answers": answers, "winner": 0})
    votes.create_vote(platform, Actor.local(), shared.project_id, vote)
    dataset = datasets.create_dataset(platform, Actor.local(), shared.project_id, NewDataset(example="danlu/product-json"))
    window = Window(browser, shared)
    enter(window, "kim", at="/sign-in?next=/compare").wait_for_selector("text=Newest votes", timeout=WAIT)

    page = window.page
    page.click("text=Newest votes")
    page.wait_for_selector("text=How do I get there?", timeout=WAIT)
    assert page.locator(".dl-composer").count() == 1 and page.locator("main >> text=Download as JSONL").count() == 1
    told = {}
    for path in ("/compare", "/datasets", f"/datasets/{dataset.id}", "/models", "/queue", "/new-run?dataset=danlu/product-json", "/sweeps/new"):
        page.goto(shared.url + path)
        page.wait_for_selector("main h1", timeout=WAIT)
        page.wait_for_function("window.socket?.connected", timeout=WAIT)
        refused = "Delete|Rename|Make a dataset of them|Pause|Train on it|Put right" + ("" if path == "/compare" else "|Stop")
        found = [text for text in page.locator("main .dl-btn:not([aria-disabled])").all_inner_texts() if re.search(refused, text)]
        told[path.partition("?")[0]] = (found, "needs the role editor" in page.inner_text("main"))
    rest = {name: told.pop(name) for name in ("/datasets", "/sweeps/new")}
    assert rest == {"/datasets": ([], True), "/sweeps/new": ([], True)}
    assert all(not found for found, _ in told.values()), told
    window.context.close()


def test_a_role_that_is_lost_in_mid_page_is_told_and_the_form_stays(browser: Any, shared: Served, admin: str, platform: Platform) -> None:
    with platform.database.writing() as connection:
        ada = USERS.find(connection, name_key=admin)
        assert ada is not None
        other = USERS.insert(
            connection, name="eve", name_key="eve", email=None, password_hash=None, oidc_subject=None, is_admin=True, is_active=True, preferences={}
        )
    window = Window(browser, shared)
    page = enter(window, admin, at="/sign-in?next=/settings/people")
    window.ready()
    page.fill("[aria-label='E-mail (optional)']", "kim@example.org", timeout=WAIT)
    with platform.database.writing() as connection:
        USERS.update(connection, ada.id, is_admin=False)
    page.click("main .dl-btn.primary:has-text('Invite')")
    page.wait_for_selector("text=What you entered is still here", timeout=WAIT)
    assert page.input_value("[aria-label='E-mail (optional)']") == "kim@example.org"
    with platform.database.writing() as connection:
        USERS.update(connection, ada.id, is_admin=True)
        USERS.delete(connection, other.id)
    window.context.close()
