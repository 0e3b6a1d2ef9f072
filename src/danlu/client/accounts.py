"""`studio.users`, `studio.keys`, `studio.sessions`, `studio.invitations`, `studio.audit`."""

from __future__ import annotations

from danlu.client.transport import Method, Noun
from danlu.services.platform import audit, invitations, keys, sessions, users, views


class Users(Noun):
    """Users of the installation, and oneself."""

    list = Method(users.list_users)
    create = Method(users.create_user)
    get = Method(users.get_user)
    change = Method(users.change_user)
    delete = Method(users.delete_user)
    find = Method(users.find_person)
    me = Method(users.get_me)
    change_password = Method(users.change_password)
    view = Method(views.get_view)
    change_view = Method(views.change_view)
    draft = Method(views.get_draft)
    save_draft = Method(views.save_draft)


class Keys(Noun):
    """API keys."""

    create = Method(keys.create_key)
    list = Method(keys.list_keys)
    revoke = Method(keys.revoke_key)
    list_all = Method(keys.list_all_keys)
    revoke_any = Method(keys.revoke_any_key)


class Sessions(Noun):
    """Sessions of oneself."""

    list = Method(sessions.list_sessions)
    end = Method(sessions.end_session)
    end_all = Method(sessions.end_sessions)


class Invitations(Noun):
    """Accounts and new passwords by tokens that can be used once."""

    invite = Method(invitations.invite)
    invite_again = Method(invitations.invite_again)
    list = Method(invitations.list_invitations)
    withdraw = Method(invitations.withdraw_invitation)


class Audit(Noun):
    """Who did what, and when."""

    list = Method(audit.list_audit)
    of_project = Method(audit.list_project_audit)
