"""Use cases on what the studio remembers of each user: how its pages look, and forms that were filled in and not sent.

What a user has chosen stands with the account, so that it is the same on every machine that shares the database. Forms, and the choices
of this machine's owner, who has no account, stand in the home folder, one file for each. No API key comes near it: a key of one project
would read what was entered for others, or fill in what its owner is about to send.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from danlu.errors import ConflictError
from danlu.files import read_json, storage_errors, write_json
from danlu.recipe.base import StrictModel
from danlu.services.platform.operations import Call, operation
from danlu.store import users

MAX_DRAFTS = 20
MAX_DRAFT_CHARS = 100_000


class View(StrictModel):
    """How the studio looks to one user."""

    language: Literal["en", "zh"] | None = None
    """Language of the pages; null follows the browser."""
    theme: Literal["auto", "light", "dark"] = "auto"
    """Colours of the pages; `auto` follows the system."""
    is_advanced: bool = False
    """Whether forms show every setting."""
    has_seen_tour: bool = False
    """Whether the first visit's tour is over."""
    project_id: str | None = None
    """The project that was looked at last."""


class ViewChange(StrictModel):
    """What to change; what is left out stays."""

    language: Literal["en", "zh"] | None = None
    """Language of the pages."""
    theme: Literal["auto", "light", "dark"] | None = None
    """Colours of the pages."""
    is_advanced: bool | None = None
    """Whether forms show every setting."""
    has_seen_tour: bool | None = None
    """Whether the first visit's tour is over."""
    project_id: str | None = Field(None, max_length=80)
    """The project that was looked at last."""


class Draft(StrictModel):
    """A form that was filled in and not sent."""

    values: dict[str, Any] = {}
    """What was entered; empty when there is nothing."""


@operation("GET", "/me/view", right="person")
def get_view(call: Call) -> View:
    """How the studio looks to the user who asks."""
    return _view(_chosen(call))


@operation("PATCH", "/me/view", right="person", is_logged=False)
def change_view(call: Call, body: ViewChange) -> View:
    """Change some of it."""
    chosen = _chosen(call) | body.model_dump(exclude_none=True)
    if call.actor.user_id is None:
        write_json(_path(call), _read(call) | chosen)
    else:
        users.keep_preferences(call.connection, call.actor.user_id, chosen)
    return _view(chosen)


@operation("GET", "/me/drafts/{draft_name}", right="person")
def get_draft(call: Call, draft_name: str) -> Draft:
    """What was entered in a form and not sent."""
    return Draft(values=_read(call).get("drafts", {}).get(draft_name, {}))


@operation("PUT", "/me/drafts/{draft_name}", right="person", is_logged=False)
def save_draft(call: Call, draft_name: str, body: Draft) -> Draft:
    """Keep what was entered in a form; an empty one is forgotten.

    Raises:
        ConflictError: it is too large to be a form.
    """
    if len(str(body.values)) > MAX_DRAFT_CHARS:
        raise ConflictError("this draft is too large to be kept", why=f"it is longer than {MAX_DRAFT_CHARS} characters", fix="shorten it, or send the form")
    stored = _read(call)
    drafts = {name: values for name, values in stored.get("drafts", {}).items() if name != draft_name}
    if body.values:
        drafts[draft_name] = body.values
    # The transaction of the call lets one writer in at a time, so no draft is lost to another tab.
    write_json(_path(call), stored | {"drafts": dict(list(drafts.items())[-MAX_DRAFTS:])})
    return body


def _chosen(call: Call) -> dict[str, Any]:
    if call.actor.user_id is not None:
        return users.preferences_of(call.connection, call.actor.user_id)
    return {name: value for name, value in _read(call).items() if name != "drafts"}


def _view(stored: dict[str, Any]) -> View:
    """What of the stored values this version knows."""
    try:
        return View.model_validate({name: value for name, value in stored.items() if name in View.model_fields})
    except ValidationError:  # written by another version, or by hand
        return View()


def _path(call: Call) -> Path:
    folder = call.platform.home / "studio"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{call.actor.user_id or 'owner'}.json"


def _read(call: Call) -> dict[str, Any]:
    path = _path(call)
    with storage_errors(path):
        return dict(read_json(path)) if path.exists() else {}
