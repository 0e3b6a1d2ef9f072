"""Use cases on invitations: an account, or a new password, by a token that can be used once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from danlu.errors import NotFoundError
from danlu.recipe.base import StrictModel
from danlu.services.platform.access import Role
from danlu.services.platform.operations import Call, operation
from danlu.services.platform.tokens import hash_token, new_token
from danlu.services.platform.users import Email
from danlu.store import tokens
from danlu.store.projects import PROJECTS
from danlu.store.tokens import OneTimeToken
from danlu.store.users import USERS


class NewInvitation(StrictModel):
    """An invitation to make."""

    email: Email | None = None
    """Noted with the account."""
    is_admin: bool = False
    """Whether whoever accepts administers the whole installation."""
    project_id: str | None = Field(None, max_length=80)
    """Project to become a member of."""
    role: Role = "viewer"
    """Role in that project."""
    valid_days: int = Field(7, ge=1, le=30)
    """How long it can be accepted."""


@dataclass(frozen=True)
class Invitation:
    """An invitation that waits."""

    id: str
    email: str | None
    is_admin: bool
    project_id: str | None
    role: str | None
    user_id: str | None
    """The user it gives a new password; None when it makes a user."""
    created_by: str | None
    created_at: float
    expires_at: float


@dataclass(frozen=True)
class MadeInvitation:
    """A fresh invitation with its token, which is shown this once."""

    invitation: Invitation
    token: str = field(repr=False)

    @property
    def id(self) -> str:
        """What the audit log names."""
        return self.invitation.id


@operation("POST", "/invitations", right="operator")
def invite(call: Call, body: NewInvitation) -> MadeInvitation:
    """Make a token with which somebody makes an account.

    Raises:
        NotFoundError: there is no such project.
    """
    if body.project_id is not None:
        PROJECTS.get(call.connection, body.project_id)
    fields = {"email": body.email, "is_admin": body.is_admin, "project_id": body.project_id, "role": body.role if body.project_id else None}
    return _make(call, fields, days=body.valid_days)


@operation("POST", "/users/{user_id}/invitation", right="operator")
def invite_again(call: Call, user_id: str) -> MadeInvitation:
    """Make a token with which a user who forgot the password sets a new one; nobody else learns it."""
    user = USERS.get(call.connection, user_id)
    return _make(call, {"email": user.email, "is_admin": user.is_admin, "user_id": user.id}, days=2)


@operation("GET", "/invitations", right="operator")
def list_invitations(call: Call) -> list[Invitation]:
    """Invitations that wait, newest first."""
    return [_view(token) for token in tokens.of_kind(call.connection, "invitation", time.time())]


@operation("DELETE", "/invitations/{invitation_id}", right="operator")
def withdraw_invitation(call: Call, invitation_id: str) -> None:
    """Take an invitation back.

    Raises:
        NotFoundError: there is none.
    """
    if not tokens.remove(call.connection, "invitation", invitation_id):
        raise NotFoundError("there is no such invitation", why="it was accepted, has expired, or was taken back", fix="list the invitations")


def _make(call: Call, fields: dict[str, Any], *, days: int) -> MadeInvitation:
    token, now = new_token(), time.time()
    made = tokens.add(
        call.connection, "invitation", token_hash=hash_token(token), fields=fields, now=now, expires_at=now + days * 86_400, created_by=call.actor.user_id
    )
    return MadeInvitation(_view(made), token)


def _view(token: OneTimeToken) -> Invitation:
    fields = {name: token.fields.get(name) for name in ("email", "project_id", "role", "user_id")}
    return Invitation(
        id=token.id,
        is_admin=bool(token.fields.get("is_admin")),
        created_by=token.created_by,
        created_at=token.created_at,
        expires_at=token.expires_at,
        **fields,
    )
