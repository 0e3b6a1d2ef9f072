"""The parts of the settings."""

from __future__ import annotations

from danlu.web.components.elements import Text, box, link
from danlu.web.session import Session

PARTS = {"/settings": "settings.tab", "/settings/account": "account.tab", "/settings/people": "people.tab"}


def settings_head(s: Session) -> None:
    """Title and parts of the settings; the part in the address is marked."""
    Text(s.t("settings.title"), "h1")
    with box("dl-tabs", "nav") as made:
        made._props["aria-label"] = s.t("settings.title")
        for href, key in PARTS.items():
            part = link(s.t(key), href)
            if href == s.request.url.path:
                part.props("aria-current=page")
