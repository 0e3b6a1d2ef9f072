"""What the studio remembers of each user: choices, and forms that were not sent."""

import pytest

from danlu.errors import ConflictError, SignInError
from danlu.services.platform import users, views
from danlu.services.platform.access import NOBODY, Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.users import NewUser
from danlu.services.platform.views import Draft, View, ViewChange

OWNER = Actor.local()
ANN = Actor(user_id="usr_ann", name="ann", is_signed_in=True)


def test_choices_stay_until_they_are_changed_and_are_everyones_own(platform: Platform) -> None:
    views.change_view(platform, OWNER, ViewChange(language="zh"))
    views.change_view(platform, OWNER, ViewChange(theme="dark"))

    views.save_draft(platform, OWNER, "project", Draft(values={"name": "n"}))

    assert views.get_view(platform, OWNER) == View(language="zh", theme="dark")
    assert views.get_view(platform, ANN) == View()
    with pytest.raises(SignInError):
        views.get_view(platform, NOBODY)


def test_a_users_choices_stand_with_the_account_and_are_no_change_of_it(platform: Platform) -> None:
    made = users.create_user(platform, OWNER, NewUser(name="ann", password="three quiet otters", is_admin=True))
    ann = Actor(user_id=made.id, name="ann", is_signed_in=True, is_operator=True)

    views.change_view(platform, ann, ViewChange(language="zh"))
    views.change_view(platform, ann, ViewChange(is_advanced=True))

    assert views.get_view(platform, ann) == View(language="zh", is_advanced=True)
    assert (users.get_user(platform, ann, made.id), views.get_view(platform, OWNER)) == (made, View())


def test_a_draft_is_kept_until_an_empty_one_replaces_it(platform: Platform) -> None:
    views.save_draft(platform, ANN, "new_run", Draft(values={"step": "model"}))
    views.save_draft(platform, ANN, "project", Draft(values={"name": "n"}))

    assert views.get_draft(platform, ANN, "new_run").values == {"step": "model"}
    assert views.get_draft(platform, OWNER, "new_run").values == {}
    views.save_draft(platform, ANN, "new_run", Draft())
    assert (views.get_draft(platform, ANN, "new_run").values, views.get_draft(platform, ANN, "project").values) == ({}, {"name": "n"})


def test_drafts_have_an_end(platform: Platform) -> None:
    for number in range(views.MAX_DRAFTS + 5):
        views.save_draft(platform, OWNER, f"draft-{number}", Draft(values={"n": number}))

    assert views.get_draft(platform, OWNER, "draft-0").values == {}
    assert views.get_draft(platform, OWNER, f"draft-{views.MAX_DRAFTS + 4}").values == {"n": views.MAX_DRAFTS + 4}
    with pytest.raises(ConflictError, match="too large"):
        views.save_draft(platform, OWNER, "long", Draft(values={"text": "x" * views.MAX_DRAFT_CHARS}))


def test_what_another_version_wrote_is_not_in_the_way(platform: Platform) -> None:
    (platform.home / "studio").mkdir()
    (platform.home / "studio" / "owner.json").write_text('{"theme": "sepia", "unknown": 1}')

    assert views.get_view(platform, OWNER) == View()
