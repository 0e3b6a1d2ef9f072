"""Use cases on what a user prefers in the studio, and on forms that are not sent yet.

They are kept beside the user; on a machine without users, in `studio.json` of the home folder.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError

from danlu.errors import ConflictError
from danlu.files import read_json, storage_errors, write_json
from danlu.recipe.base import StrictModel
from danlu.services.platform.operations import Call, operation
from danlu.store import preferences

MAX_DRAFTS = 20
MAX_DRAFT_CHARS = 100_000


class Preferences(StrictModel):
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


class PreferencesChange(StrictModel):
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


@operation("GET", "/preferences", right="user")
def get_preferences(call: Call) -> Preferences:
    """What the user prefers."""
    return _preferences(_read(call))


@operation("PATCH", "/preferences", right="user", is_logged=False)
def change_preferences(call: Call, body: PreferencesChange) -> Preferences:
    """Change some of it."""
    stored = _read(call)
    stored |= body.model_dump(exclude_none=True)
    _write(call, stored)
    return _preferences(stored)


@operation("GET", "/drafts/{draft_name}", right="user")
def get_draft(call: Call, draft_name: str) -> Draft:
    """What was entered in a form and not sent."""
    return Draft(values=_read(call).get("drafts", {}).get(draft_name, {}))


@operation("PUT", "/drafts/{draft_name}", right="user", is_logged=False)
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
    _write(call, stored | {"drafts": dict(list(drafts.items())[-MAX_DRAFTS:])})
    return body


def _preferences(stored: dict[str, Any]) -> Preferences:
    """What of the stored values this version knows."""
    known = {name: value for name, value in stored.items() if name in Preferences.model_fields}
    try:
        return Preferences.model_validate(known)
    except ValidationError:  # written by another version, or by hand
        return Preferences()


def _read(call: Call) -> dict[str, Any]:
    if call.actor.user_id is not None:
        return preferences.read(call.connection, call.actor.user_id)
    path = call.platform.home / "studio.json"
    with storage_errors(path):
        return dict(read_json(path)) if path.exists() else {}


def _write(call: Call, stored: dict[str, Any]) -> None:
    if call.actor.user_id is not None:
        preferences.write(call.connection, call.actor.user_id, stored)
    else:
        write_json(call.platform.home / "studio.json", stored)  # the transaction of the call lets one writer in at a time
