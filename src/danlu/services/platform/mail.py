"""Mail on the end of a run, through the mail server that the administrator set (DANLU_SMTP_URL)."""

from __future__ import annotations

import re
import smtplib
import ssl
from email.message import EmailMessage
from typing import Any
from urllib.parse import unquote, urlsplit

from danlu.errors import ConflictError, RequestError
from danlu.settings import Settings

TIMEOUT_SECONDS = 20.0
PORTS = {"smtp": 587, "smtps": 465, "smtp+plain": 25}
ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")


def check_address(settings: Settings, address: str) -> None:
    """Refuse an address that no mail could be sent to.

    Raises:
        ConflictError: no mail server is set.
        RequestError: it is no e-mail address.
    """
    if settings.smtp_url is None:
        raise ConflictError("no mail can be sent from here", why="no mail server is set", fix="set DANLU_SMTP_URL and start the studio again, or use a webhook")
    if ADDRESS.fullmatch(address) is None:
        raise RequestError("this is no e-mail address", why="it must look like name@example.org", fix="correct the address")


def send(settings: Settings, address: str, told: dict[str, Any]) -> str | None:
    """Send a notice; return why it could not be sent, or None."""
    if settings.smtp_url is None:
        return "no mail server is set (DANLU_SMTP_URL)"
    try:
        with _server(settings.smtp_url) as server:
            server.send_message(_message(settings, address, told))
    except (OSError, smtplib.SMTPException) as error:
        return f"the mail server refused: {type(error).__name__}"
    return None


def _server(url: str) -> smtplib.SMTP:
    parts = urlsplit(url)
    host, port = parts.hostname or "localhost", parts.port or PORTS.get(parts.scheme, 587)
    if parts.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_SECONDS, context=ssl.create_default_context())
    else:
        server = smtplib.SMTP(host, port, timeout=TIMEOUT_SECONDS)
        if parts.scheme != "smtp+plain":
            server.starttls(context=ssl.create_default_context())
    if parts.username:
        server.login(unquote(parts.username), unquote(parts.password or ""))
    return server


def _message(settings: Settings, address: str, told: dict[str, Any]) -> EmailMessage:
    run = told["run"]
    name = "".join(character if character.isprintable() else " " for character in run["name"])[:120]
    message = EmailMessage()
    message["From"], message["To"] = settings.mail_from, address
    message["Subject"] = f"Danlu: {name or run['id']} {run['state']}"
    message["Message-ID"] = f"<{told['id']}@danlu>"
    lines = [f"Run {run['id']} ({name}) has ended: {run['state']}."]
    lines += [f"Verdict: {run['verdict']}"] if run["verdict"] else []
    lines += [f"{run['error']['code']}: {run['error']['what']}"] if run["error"] else []
    lines += [told["url"]] if told["url"] else []
    message.set_content("\n".join(lines) + "\n")
    return message
