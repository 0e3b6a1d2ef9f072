"""The client with users: keys, roles, and what it says when it may not."""

import io
import sys
import time

import httpx
import pytest
from sqlalchemy import update

from danlu import Studio
from danlu.cli.main import main
from danlu.errors import ForbiddenError, SignInError
from danlu.services.platform import keys, users
from danlu.services.platform.access import Actor, Role
from danlu.services.platform.keys import NewKey
from danlu.services.platform.platform import Platform
from danlu.services.platform.users import NewUser
from danlu.store import tables

PASSWORD = "correct horse battery"


@pytest.fixture
def ann(platform: Platform) -> Actor:
    """The administrator of a server with users."""
    made = users.create_user(platform, Actor.local(), NewUser.model_validate({"name": "ann", "password": PASSWORD, "is_admin": True}))
    return Actor(user_id=made.id, name="ann", is_signed_in=True, is_operator=True)


def danlu(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run a command; its exit code."""
    monkeypatch.setattr(sys, "argv", ["danlu", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def secret(platform: Platform, ann: Actor, role: Role) -> str:
    return keys.create_key(platform, ann, NewKey(name=role, role=role)).secret


def test_a_key_opens_the_server_as_far_as_its_role_goes(platform: Platform, ann: Actor, url: str) -> None:
    with Studio.connect(url, token=secret(platform, ann, "editor")) as studio:
        made = studio.projects.create("p")
        assert studio.users.me().name == "ann" and [project.id for project in studio.projects.all()] == [made.id]
    with Studio.connect(url, token=secret(platform, ann, "viewer")) as studio, pytest.raises(ForbiddenError) as caught:
        studio.runs.submit({"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"}, project=made.id)

    assert caught.value.exit_code == 11 and "editor" in caught.value.what


@pytest.mark.parametrize("token", [None, "dl_key_nonsense"])
def test_without_a_valid_key_it_says_so(ann: Actor, url: str, token: str | None) -> None:
    with Studio.connect(url, token=token) as studio, pytest.raises(SignInError):
        studio.projects.list()


@pytest.mark.parametrize(("column", "said"), [("expires_at", "has expired"), ("revoked_at", "was revoked")])
def test_a_key_that_has_ended_says_so_at_every_door(
    platform: Platform, ann: Actor, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], column: str, said: str
) -> None:
    key = secret(platform, ann, "viewer")
    with platform.database.writing() as connection:
        connection.execute(update(tables.api_keys).values({column: time.time() - 86_400}))
    monkeypatch.setenv("DANLU_TOKEN", key)
    monkeypatch.setenv("DANLU_LANG", "en")

    by_rest = httpx.get(f"{url}/api/v1/projects", headers={"Authorization": f"Bearer {key}"})
    with Studio.connect(url, token=key) as studio, pytest.raises(SignInError) as caught:
        studio.projects.list()
    codes = [danlu(monkeypatch, *words, "--server", url) for words in (["projects", "list"], ["queue"], ["logs", "job_1", "--follow"])]

    out, err = capsys.readouterr()
    assert (by_rest.status_code, codes) == (401, [11, 11, 11]) and said in by_rest.json()["detail"] and said in caught.value.what and err.count(said) == 3
    assert time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86_400)) in err and key not in out + err + by_rest.text + str(caught.value)


def test_commands_take_the_key_from_the_environment_and_never_show_it(
    platform: Platform, ann: Actor, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = secret(platform, ann, "viewer")
    monkeypatch.setenv("DANLU_SERVER", url)
    assert danlu(monkeypatch, "projects", "list", "--json") == 11
    monkeypatch.setenv("DANLU_TOKEN", key)
    assert danlu(monkeypatch, "projects", "list", "--json") == 0

    out, err = capsys.readouterr()
    assert '"items": []' in out and key not in out + err


def test_a_password_is_read_from_standard_input_and_is_no_word_of_the_command(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DANLU_HOME", str(platform.home))
    monkeypatch.setattr(sys, "stdin", io.StringIO(PASSWORD + "\n"))
    assert danlu(monkeypatch, "users", "create", "--name", "ann", "--is-admin", "--json") == 0

    assert '"name": "ann"' in capsys.readouterr().out
    assert danlu(monkeypatch, "users", "create", "--name", "bob", "--password", PASSWORD) == 2
