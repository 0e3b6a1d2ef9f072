"""Accounts on both databases: the first administrator, signing in, passwords, keys, invitations, names, quotas, the audit log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import update

from danlu.errors import ConflictError, DanluError, ForbiddenError, NotFoundError, QuotaError, SignInError, TooManyRequestsError
from danlu.services.platform import audit, invitations, jobs, keys, names, passwords, projects, runs, sessions, users
from danlu.services.platform.access import Actor
from danlu.services.platform.invitations import NewInvitation
from danlu.services.platform.keys import NewKey
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import Membership, NewProject
from danlu.services.platform.runs import NewRun
from danlu.services.platform.sessions import ABSOLUTE_SECONDS, IDLE_SECONDS, SignedIn, Visitor
from danlu.services.platform.users import NewUser, PasswordChange, UserChange
from danlu.settings import Network, Settings
from danlu.store import sessions as session_store
from danlu.store import tables
from danlu.store.engine import Database
from danlu.store.users import USERS

PASSWORD, OTHER = "seven green doors", "nine blue windows"
HERE = Visitor(address="127.0.0.1", agent="a browser")
LOCAL = Actor.local()


@pytest.fixture
def home(tmp_path: Path, database: Database) -> Platform:
    """An opened home, on each database."""
    return Platform(Settings(home=tmp_path), database)


def first(platform: Platform) -> SignedIn:
    """Make the first administrator."""
    return sessions.create_first_admin(platform, sessions.first_admin_token(platform) or "", "ann", PASSWORD, HERE)


def actor(platform: Platform, signed_in: SignedIn) -> Actor:
    """Who is signed in with a session."""
    found = sessions.actor_of_session(platform, signed_in.token, "127.0.0.1")
    assert found is not None
    return found


def outcome(call: Callable[[], Any]) -> str:
    """`ok`, or the name of the error."""
    try:
        call()
    except DanluError as error:
        return type(error).__name__
    return "ok"


def test_of_two_that_come_with_the_first_token_one_becomes_administrator(home: Platform) -> None:
    token, outcomes, together = sessions.first_admin_token(home) or "", [], threading.Barrier(2)

    def come(name: str) -> None:
        together.wait()
        outcomes.append(outcome(lambda: sessions.create_first_admin(home, token, name, PASSWORD, HERE)))

    threads = [threading.Thread(target=come, args=(name,)) for name in ("ann", "bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["SignInError", "ok"]
    assert len(users.list_users(home, LOCAL).items) == 1
    assert sessions.first_admin_token(home) is None


def test_the_first_token_is_stored_as_a_hash_expires_and_is_replaced_by_the_next_start(home: Platform) -> None:
    old = sessions.first_admin_token(home) or ""
    new = sessions.first_admin_token(home) or ""
    ask = lambda token: outcome(lambda: sessions.create_first_admin(home, token, "ann", PASSWORD, HERE))  # noqa: E731
    with home.database.writing() as connection:
        rows = connection.execute(tables.one_time_tokens.select()).all()
        connection.execute(update(tables.one_time_tokens).values(expires_at=time.time() - 1))

    assert len(rows) == 1 and new not in str(rows)
    assert [ask(old), ask(new), ask(sessions.first_admin_token(home) or "")] == ["SignInError", "SignInError", "ok"]


def test_a_session_is_new_with_each_sign_in_and_is_stored_as_a_hash(home: Platform) -> None:
    one = first(home)
    two = sessions.sign_in(home, "ANN", PASSWORD, replace(HERE, previous_token=one.token))
    with home.database.reading() as connection:
        rows = connection.execute(tables.sessions.select()).all()

    assert len(one.token) >= 43 and one.token != two.token
    assert sessions.actor_of_session(home, one.token, None) is None  # a token that was planted before is worth nothing after
    assert actor(home, two).is_operator
    assert len(rows) == 1 and two.token not in str(rows)
    assert "token" not in repr(two)


def test_signing_out_ends_the_session_and_others_stay(home: Platform) -> None:
    one, two = first(home), sessions.sign_in(home, "ann", PASSWORD, HERE)
    sessions.sign_out(home, one.token, HERE)

    assert sessions.actor_of_session(home, one.token, None) is None
    assert [session.is_current for session in sessions.list_sessions(home, actor(home, two))] == [True]


def test_a_session_ends_when_it_is_idle_and_at_last_in_any_case(home: Platform) -> None:
    token, now = first(home).token, time.time()
    at = lambda moment: sessions.actor_of_session(home, token, None, now=moment) is not None  # noqa: E731

    assert [at(now + IDLE_SECONDS - 60), at(now + 2 * IDLE_SECONDS - 120), at(now + 4 * IDLE_SECONDS)] == [True, True, False]
    with home.database.writing() as connection:
        session_store.touch(connection, session_store.of_user(connection, users.list_users(home, LOCAL).items[0].id)[0].id, now + ABSOLUTE_SECONDS, None)
    assert not at(now + ABSOLUTE_SECONDS + 1)


def test_a_password_change_ends_every_session_and_needs_the_old_password(home: Platform) -> None:
    one, two = first(home), sessions.sign_in(home, "ann", PASSWORD, HERE)
    ann = actor(home, one)
    with pytest.raises(SignInError):
        users.change_password(home, ann, PasswordChange(current=OTHER, new=OTHER))
    assert actor(home, two) == replace(ann, session_id=actor(home, two).session_id)

    users.change_password(home, ann, PasswordChange(current=PASSWORD, new=OTHER))

    assert [sessions.actor_of_session(home, each.token, None) for each in (one, two)] == [None, None]
    assert outcome(lambda: sessions.sign_in(home, "ann", PASSWORD, HERE)) == "SignInError"
    assert sessions.sign_in(home, "ann", OTHER, HERE).user.name == "ann"


def test_a_user_who_is_locked_out_or_deleted_has_no_session_and_no_key(home: Platform) -> None:
    ann = actor(home, first(home))
    bob = users.create_user(home, ann, NewUser(name="bob", password=OTHER))
    signed_in = sessions.sign_in(home, "bob", OTHER, HERE)
    key = keys.create_key(home, actor(home, signed_in), NewKey(name="k")).secret
    valid = lambda: (sessions.actor_of_session(home, signed_in.token, None) is not None, keys.actor_of_key(home, key, None) is not None)  # noqa: E731
    assert valid() == (True, True)

    users.change_user(home, ann, bob.id, UserChange(is_active=False))
    assert valid() == (False, False) and outcome(lambda: sessions.sign_in(home, "bob", OTHER, HERE)) == "SignInError"
    users.change_user(home, ann, bob.id, UserChange(is_active=True))
    assert valid() == (False, True)
    users.delete_user(home, ann, bob.id)
    assert valid() == (False, False)


def test_somebody_always_administers_the_installation(home: Platform) -> None:
    ann = actor(home, first(home))
    ask = [
        lambda: users.change_user(home, ann, ann.user_id or "", UserChange(is_admin=False)),
        lambda: users.change_user(home, ann, ann.user_id or "", UserChange(is_active=False)),
        lambda: users.delete_user(home, ann, ann.user_id or ""),
    ]

    assert [outcome(call) for call in ask] == ["ConflictError"] * 3
    assert users.get_user(home, ann, ann.user_id or "").is_admin


@pytest.mark.usefixtures("still_limits")
def test_guessing_a_password_is_stopped_for_the_guesser_and_not_for_the_user(home: Platform) -> None:
    first(home)
    there = Visitor(address="203.0.113.9")
    guesses = [outcome(lambda: sessions.sign_in(home, "ann", "wrong password", there)) for _ in range(6)]

    assert guesses == ["SignInError"] * 5 + ["TooManyRequestsError"]
    assert outcome(lambda: sessions.sign_in(home, "ann", PASSWORD, there)) == "TooManyRequestsError"
    assert outcome(lambda: sessions.sign_in(home, "\uff21\uff2e\uff2e", "x", there)) == "TooManyRequestsError"  # full-width: the same name
    assert outcome(lambda: sessions.sign_in(home, "ann", PASSWORD, HERE)) == "ok"


@pytest.mark.usefixtures("still_limits")
def test_guessing_one_time_tokens_is_stopped(home: Platform) -> None:
    guesses = [outcome(lambda: sessions.accept_invitation(home, "x" * 43, "bob", PASSWORD, HERE)) for _ in range(21)]

    assert guesses == ["SignInError"] * 20 + ["TooManyRequestsError"]


def test_whether_there_is_such_a_user_cannot_be_told_from_the_answer_or_its_time(home: Platform) -> None:
    first(home)
    said, seconds = {}, {}
    for name in ("warm up", "ann", "nobody"):
        start = time.process_time()
        with pytest.raises(SignInError) as refused:
            sessions.sign_in(home, name, "wrong password", HERE)
        said[name], seconds[name] = str(refused.value), time.process_time() - start

    assert said["ann"] == said["nobody"]
    assert seconds["nobody"] > 0.4 * seconds["ann"]  # without the same hashing it is some hundredths


def test_an_invitation_makes_one_account_with_what_it_promises(home: Platform) -> None:
    ann = actor(home, first(home))
    project = projects.create_project(home, ann, NewProject(name="p"))
    made = invitations.invite(home, ann, NewInvitation(email="bob@example.org", project_id=project.id, role="editor"))
    bob = sessions.accept_invitation(home, made.token, "bob", OTHER, HERE)

    assert [(member.name, member.role) for member in projects.list_members(home, ann, project.id)] == [("ann", "admin"), ("bob", "editor")]
    assert (bob.user.email, bob.user.is_admin) == ("bob@example.org", False)
    assert outcome(lambda: sessions.accept_invitation(home, made.token, "eve", OTHER, HERE)) == "SignInError"
    assert made.token not in repr(made) and invitations.list_invitations(home, ann) == []


def test_an_invitation_can_be_taken_back_and_is_kept_when_the_password_is_refused(home: Platform) -> None:
    ann = actor(home, first(home))
    made, other = invitations.invite(home, ann, NewInvitation()), invitations.invite(home, ann, NewInvitation())
    assert outcome(lambda: sessions.accept_invitation(home, made.token, "bob", "short", HERE)) == "ConflictError"
    assert outcome(lambda: sessions.accept_invitation(home, made.token, "bob", OTHER, HERE)) == "ok"

    invitations.withdraw_invitation(home, ann, other.id)

    assert outcome(lambda: sessions.accept_invitation(home, other.token, "eve", OTHER, HERE)) == "SignInError"


def test_who_forgot_the_password_sets_a_new_one_that_nobody_else_learns(home: Platform) -> None:
    one = first(home)
    ann = actor(home, one)
    made = invitations.invite_again(home, ann, ann.user_id or "")

    again = sessions.accept_invitation(home, made.token, None, OTHER, HERE)

    assert again.user.id == ann.user_id and sessions.actor_of_session(home, one.token, None) is None
    assert sessions.sign_in(home, "ann", OTHER, HERE).user.id == ann.user_id


def test_a_key_is_shown_once_kept_as_a_hash_and_ends(home: Platform) -> None:
    ann = actor(home, first(home))
    made = keys.create_key(home, ann, NewKey(name="robot", role="editor", valid_days=1))
    with home.database.reading() as connection:
        rows = str(connection.execute(tables.api_keys.select()).all())
    secret = made.secret.rpartition("_")[2]

    assert made.secret.startswith(f"{made.key.prefix}_") and len(secret) == 43 and secret not in rows + repr(made) + str(keys.list_keys(home, ann))
    found = keys.actor_of_key(home, made.secret, None)
    assert found is not None and (found.key_role, found.user_id, found.is_key) == ("editor", ann.user_id, True)
    wrong = [made.secret[:-1] + "!", made.secret.replace("dl_", "dk_"), made.key.prefix, f"{made.key.prefix}_", "dl_x_y", ""]
    assert [keys.actor_of_key(home, text, None) for text in wrong] == [None] * len(wrong)
    with home.database.writing() as connection:
        connection.execute(update(tables.api_keys).values(expires_at=time.time() - 1))
    with pytest.raises(SignInError, match="has expired"):
        keys.actor_of_key(home, made.secret, None)
    assert keys.actor_of_key(home, wrong[0], None) is None  # who has not the whole key is not told


def test_a_key_that_was_revoked_is_refused_and_nobody_revokes_those_of_others(home: Platform) -> None:
    ann = actor(home, first(home))
    users.create_user(home, ann, NewUser(name="bob", password=OTHER))
    bob = actor(home, sessions.sign_in(home, "bob", OTHER, HERE))
    made = keys.create_key(home, ann, NewKey(name="k"))
    with pytest.raises(NotFoundError):
        keys.revoke_key(home, bob, made.key.id)
    assert keys.actor_of_key(home, made.secret, None) is not None

    keys.revoke_key(home, ann, made.key.id)

    with pytest.raises(SignInError, match="was revoked"):
        keys.actor_of_key(home, made.secret, None)
    assert [key.revoked_at is not None for key in keys.list_keys(home, ann)] == [True]


def test_a_key_makes_no_keys_and_never_gives_more_than_its_owner_has(home: Platform) -> None:
    ann = actor(home, first(home))
    users.create_user(home, ann, NewUser(name="bob", password=OTHER))
    bob = actor(home, sessions.sign_in(home, "bob", OTHER, HERE))
    project = projects.create_project(home, ann, NewProject(name="p"))
    projects.set_member(home, ann, project.id, bob.user_id or "", Membership(role="viewer"))
    robot = keys.actor_of_key(home, keys.create_key(home, bob, NewKey(name="k", role="admin")).secret, None)
    assert robot is not None

    assert projects.get_project(home, robot, project.id) == project
    with pytest.raises(ForbiddenError):
        runs.submit_run(home, robot, project.id, NewRun(recipe={}))
    with pytest.raises(ForbiddenError):
        users.list_users(home, robot)
    with pytest.raises(ForbiddenError):
        keys.create_key(home, robot, NewKey(name="another", role="admin"))


def test_nobody_ends_the_sessions_of_others(home: Platform) -> None:
    one = first(home)
    ann = actor(home, one)
    users.create_user(home, ann, NewUser(name="bob", password=OTHER))
    bob = actor(home, sessions.sign_in(home, "bob", OTHER, HERE))

    with pytest.raises(NotFoundError):
        sessions.end_session(home, bob, ann.session_id or "")
    sessions.end_sessions(home, bob)

    assert actor(home, one) == ann


@pytest.mark.parametrize("name", ["ANN", "\uff41nn", "\u0430nn", " ann ", "ann\u200b", "a\u0301nn\u0301\u0323\u0301", "ann\n", "\u202eann", "a" * 65, "", " "])
def test_a_name_that_looks_like_another_is_refused(home: Platform, name: str) -> None:
    ann = actor(home, first(home))

    with pytest.raises((ConflictError, ValidationError)):
        users.create_user(home, ann, NewUser(name=name, password=OTHER))


@pytest.mark.parametrize(
    "name", ["\u5f20\u4e09", "Jos\u00e9 O'Neil", "bob@example.org", "\u0418\u0432\u0430\u043d", "\u738bWang-7", "\u05d3\u05df", "\u0430\u043d\u043d\u0430"]
)
def test_names_of_all_languages_are_taken(name: str) -> None:
    assert names.tidy(name) == name and names.key_of(name) == names.key_of(name.upper())


@pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaa", "Password123", "passw0rd!!", "ann-ann-12", "1234567890", "danlu12345", "changeme1!", "x" * 257])
def test_a_password_that_is_soon_guessed_is_refused(password: str) -> None:
    with pytest.raises(ValueError, match="password"):
        passwords.check(password, name="ann-ann")


def test_a_password_is_the_same_however_its_characters_were_typed() -> None:
    assert passwords.verify("caf\u00e9 au lait", passwords.hash_of("cafe\u0301 au lait"))
    assert not passwords.verify("caf\u00e9 au lait", None)


def test_nothing_secret_is_written_anywhere(tmp_path: Path, home: Platform, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = [PASSWORD, "wrong password", sessions.first_admin_token(home) or ""]
    signed_in = sessions.create_first_admin(home, secrets[2], "ann", PASSWORD, HERE)
    outcome(lambda: sessions.sign_in(home, "ann", "wrong password", HERE))
    secrets += [signed_in.token, keys.create_key(home, actor(home, signed_in), NewKey(name="k")).secret]
    with home.database.reading() as connection:
        stored = "".join(str(connection.execute(table.select()).all()) for table in tables.metadata.sorted_tables)

    written = stored + caplog.text + str(audit.list_audit(home, LOCAL).items)
    assert [secret for secret in secrets if secret in written] == []


def test_the_audit_log_tells_who_did_what_from_where_and_only_operators_read_it(home: Platform) -> None:
    signed_in = first(home)
    ann = actor(home, signed_in)
    project = projects.create_project(home, ann, NewProject(name="secret name"))
    outcome(lambda: sessions.sign_in(home, "ann", "wrong password", Visitor(address="203.0.113.9")))
    outcome(lambda: sessions.sign_in(home, "nobody", "wrong password", HERE))
    key = keys.create_key(home, ann, NewKey(name="k", role="admin"))
    robot = keys.actor_of_key(home, key.secret, "198.51.100.7")
    assert robot is not None
    projects.set_member(home, robot, project.id, ann.user_id or "", Membership(role="admin"))

    lines = [(line.action, line.subject, line.address) for line in audit.list_audit(home, ann, user_id=ann.user_id).items]
    assert lines == [
        ("set_member", ann.user_id, "198.51.100.7"),
        ("create_key", key.key.id, "127.0.0.1"),
        ("sign_in_failed", ann.user_id, "203.0.113.9"),
        ("create_project", project.id, "127.0.0.1"),
        ("sign_in", ann.user_id, "127.0.0.1"),
        ("create_first_admin", ann.user_id, "127.0.0.1"),
    ]
    assert [line.action for line in audit.list_project_audit(home, ann, project.id).items] == ["set_member"]
    assert audit.list_audit(home, ann, action="set_member").items[0].fields == {"key_id": key.key.id}
    assert "secret name" not in str(audit.list_audit(home, ann))


def test_the_audit_log_is_paged_and_filtered_by_time(home: Platform) -> None:
    for number in range(5):
        projects.create_project(home, LOCAL, NewProject(name=str(number)))
    one = audit.list_audit(home, LOCAL, limit=2)
    two = audit.list_audit(home, LOCAL, limit=2, after=one.next)
    three = audit.list_audit(home, LOCAL, limit=2, after=two.next)

    assert ([len(page.items) for page in (one, two, three)], three.next) == ([2, 2, 1], None)
    assert audit.list_audit(home, LOCAL, since=one.items[0].at + 1).items == audit.list_audit(home, LOCAL, after="1; drop table audit_log").items == []
    assert len(audit.list_audit(home, LOCAL, until=one.items[0].at + 1).items) == 5


def test_a_project_may_not_fill_the_queue(home: Platform) -> None:
    home = replace(home, settings=replace(home.settings, network=Network(max_waiting_jobs=2)))
    mine, other = (projects.create_project(home, LOCAL, NewProject(name=name)) for name in "ab")
    run = NewRun(recipe={"base_model": "danlu/tiny", "dataset": "zhangjiajie"})
    submitted = [runs.submit_run(home, LOCAL, mine.id, run) for _ in range(2)]
    with pytest.raises(QuotaError, match="2 jobs"):
        runs.submit_run(home, LOCAL, mine.id, run)

    runs.submit_run(home, LOCAL, other.id, run)
    jobs.cancel_job(home, LOCAL, runs.list_run_jobs(home, LOCAL, submitted[0].id)[0].id)

    assert runs.submit_run(home, LOCAL, mine.id, run).state == "queued"


def test_users_are_found_by_their_whole_name_only(home: Platform) -> None:
    ann = actor(home, first(home))
    users.create_user(home, ann, NewUser(name="bob", password=OTHER))
    bob = actor(home, sessions.sign_in(home, "bob", OTHER, HERE))

    assert [users.find_person(home, bob, name) for name in ("an", "", "%", "a_n")] == [[], [], [], []]
    assert [(person.id, person.name) for person in users.find_person(home, bob, "Ann")] == [(ann.user_id, "ann")]


def test_what_administrators_see_of_a_user_has_no_hash(home: Platform) -> None:
    ann = actor(home, first(home))
    with home.database.reading() as connection:
        stored = USERS.get(connection, ann.user_id or "")

    assert stored.password_hash is not None and stored.password_hash.startswith("$argon2id$")
    assert stored.password_hash not in str(users.get_user(home, ann, stored.id)) + repr(stored)


@pytest.mark.usefixtures("still_limits")
def test_the_password_change_counts_wrong_attempts(home: Platform) -> None:
    ann = actor(home, first(home))
    wrong = PasswordChange(current="wrong password", new=OTHER)
    for _ in range(5):
        with pytest.raises(SignInError):
            users.change_password(home, ann, wrong)

    with pytest.raises(TooManyRequestsError):
        users.change_password(home, ann, PasswordChange(current=PASSWORD, new=OTHER))
