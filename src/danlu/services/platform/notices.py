"""Use cases on notices: who is told by webhook or e-mail when runs of a project end.

What is to be sent lies in the database before it is sent, so a kill loses none; a receiver may get one twice (it carries an id).
A webhook is signed: `X-Danlu-Signature: t=SECONDS,v1=HEX`, where HEX is the HMAC-SHA256 with the subscription's secret over
`SECONDS.BODY`.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import Field, field_validator

from danlu.errors import DanluError, RequestError
from danlu.recipe.base import StrictModel
from danlu.services.platform import mail, quotas
from danlu.services.platform.operations import Call, operation
from danlu.services.platform.platform import Platform
from danlu.store import notices
from danlu.store.notices import DELIVERIES, SUBSCRIPTIONS, Delivery, Subscription
from danlu.store.rows import Page

logger = logging.getLogger(__name__)
Channel = Literal["webhook", "email"]
Ending = Literal["succeeded", "failed", "cancelled"]
Post = Callable[[str, bytes, dict[str, str]], int]
MAX_ANSWER_BYTES = 64 * 1024
LEASE_SECONDS = 60.0
DELAYS_SECONDS = (10.0, 60.0, 300.0, 1800.0, 7200.0, 21600.0)
"""Waits between attempts; after the last one the delivery has failed."""


class NewSubscription(StrictModel):
    """An address to tell when runs end."""

    channel: Channel = "webhook"
    """`webhook`: a signed POST to a URL; `email`: a mail, where a mail server is set."""
    address: str = Field(min_length=3, max_length=2000)
    """The URL (http or https) or the e-mail address."""
    states: list[Ending] = Field(default=["succeeded", "failed", "cancelled"], min_length=1, max_length=3)
    """Which ends to tell."""

    @field_validator("address")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        if any(not character.isprintable() or character.isspace() for character in value):
            raise ValueError("an address has no spaces and no control characters")
        return value


class SubscriptionChange(StrictModel):
    """What to change of a subscription; what is left out stays."""

    is_active: bool | None = None
    """Whether anything is sent."""
    states: list[Ending] | None = Field(None, min_length=1, max_length=3)
    """Which ends to tell."""


@dataclass(frozen=True)
class SubscriptionView:
    """A subscription as it is shown."""

    id: str
    project_id: str
    channel: str
    address: str
    states: list[str]
    is_active: bool
    created_by: str | None
    created_at: float
    updated_at: float
    version: int


@dataclass(frozen=True)
class MadeSubscription(SubscriptionView):
    """A new subscription with its secret, which is shown once."""

    secret: str
    """Key of the signatures of a webhook."""


@operation("POST", "/projects/{project_id}/subscriptions", right="admin")
def create_subscription(call: Call, project_id: str, body: NewSubscription) -> MadeSubscription:
    """Tell an address when runs of a project end.

    Raises:
        RequestError: the address is none that something could be sent to.
        ConflictError: no mail server is set.
        QuotaError: the project tells as many addresses as one may.
    """
    quotas.check_subscriptions(call.connection, project_id)
    if body.channel == "webhook":
        _check_url(body.address)
    else:
        mail.check_address(call.platform.settings, body.address)
    made = SUBSCRIPTIONS.insert(
        call.connection,
        project_id=project_id,
        channel=body.channel,
        address=body.address,
        secret=f"whs_{secrets.token_hex(24)}",
        states=sorted(set(body.states)),
        is_active=True,
        seen_until=time.time(),
        created_by=call.actor.user_id,
    )
    return MadeSubscription(**vars(_view(made)), secret=made.secret)


@operation("GET", "/projects/{project_id}/subscriptions", right="admin")
def list_subscriptions(call: Call, project_id: str, limit: int = 50, after: str | None = None) -> Page[SubscriptionView]:
    """Who is told when runs of a project end, newest first."""
    page = SUBSCRIPTIONS.page(call.connection, limit=limit, after=after, project_id=project_id)
    return Page([_view(one) for one in page.items], page.next)


@operation("PATCH", "/subscriptions/{subscription_id}", right="admin")
def change_subscription(call: Call, subscription_id: str, body: SubscriptionChange, version: int | None = None) -> SubscriptionView:
    """Hold a subscription back, or change which ends it tells."""
    return _view(SUBSCRIPTIONS.update(call.connection, subscription_id, version=version, **body.model_dump(exclude_none=True)))


@operation("DELETE", "/subscriptions/{subscription_id}", right="admin")
def delete_subscription(call: Call, subscription_id: str) -> None:
    """Tell an address no more; what was not sent yet is not sent."""
    SUBSCRIPTIONS.delete(call.connection, subscription_id)


@operation("GET", "/subscriptions/{subscription_id}/deliveries", right="admin")
def list_deliveries(call: Call, subscription_id: str, limit: int = 50, after: str | None = None) -> Page[Delivery]:
    """What was sent, is to be sent, or could not be sent, newest first."""
    return DELIVERIES.page(call.connection, limit=limit, after=after, subscription_id=subscription_id)


def deliver(platform: Platform, *, post: Post | None = None, now: Callable[[], float] = time.time) -> int:
    """Look which runs have ended, and send what is due; return how many were sent."""
    post = post or _poster(platform)
    with platform.database.reading() as connection:
        if SUBSCRIPTIONS.find(connection, is_active=True) is None:
            return 0
    with platform.database.writing() as connection:
        notices.collect(connection, now=now())
        due = notices.claim(connection, now=now(), lease_seconds=LEASE_SECONDS)
    if not due:
        return 0
    # All at once: a receiver that takes its time keeps neither the others nor this thread's other chores (the watch on the disk) waiting for long.
    with ThreadPoolExecutor(max_workers=len(due), thread_name_prefix="danlu-notices") as threads:
        return sum(threads.map(lambda delivery: _send(platform, delivery, post, now), due))


def _poster(platform: Platform) -> Post:
    """What sends a webhook: only to public addresses, or those that the administrator allows; redirects are not followed."""

    def post(url: str, body: bytes, headers: dict[str, str]) -> int:
        from danlu.services.platform import outbound

        allow = platform.settings.network.allow_hosts
        return outbound.fetch(url, method="POST", headers=headers, content=body, allow=allow, max_bytes=MAX_ANSWER_BYTES).status

    return post


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None and (parts.port or 1) > 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise RequestError("this is no address of a webhook", why="it must be http or https, with a host and without a name in it", fix="correct the address")


def sign(secret: str, body: bytes, at: int) -> str:
    """Return the value of X-Danlu-Signature."""
    return f"t={at},v1={hmac.new(secret.encode(), f'{at}.'.encode() + body, hashlib.sha256).hexdigest()}"


def _send(platform: Platform, delivery: Delivery, post: Post, now: Callable[[], float]) -> int:
    with platform.database.reading() as connection:
        subscription, run = notices.values_of(connection, delivery)
    told = _told(platform, delivery, run)
    try:
        failure = _by_webhook(subscription, told, post, now) if subscription.channel == "webhook" else mail.send(platform.settings, subscription.address, told)
    except DanluError as error:
        failure = f"{error.what}: {error.why}"
    is_last = delivery.attempts > len(DELAYS_SECONDS)
    if failure is None:
        values: dict[str, Any] = {"state": "sent", "last_error": None}
    elif is_last:
        values = {"state": "failed", "last_error": failure[:500]}
    else:
        values = {"next_at": now() + DELAYS_SECONDS[delivery.attempts - 1], "last_error": failure[:500]}
    with platform.database.writing() as connection:
        DELIVERIES.update(connection, delivery.id, **values)
    if failure is not None:
        logger.warning("notice not delivered", extra={"delivery": delivery.id, "attempt": delivery.attempts, "is_last": is_last})
    return int(failure is None)


def _by_webhook(subscription: Subscription, told: dict[str, Any], post: Post, now: Callable[[], float]) -> str | None:
    body = orjson.dumps(told)
    headers = {
        "Content-Type": "application/json",
        "X-Danlu-Event": told["event"],
        "X-Danlu-Delivery": told["id"],
        "X-Danlu-Signature": sign(subscription.secret, body, int(now())),
    }
    status = post(subscription.address, body, headers)
    return None if 200 <= status < 300 else f"the receiver answered {status}"


def _told(platform: Platform, delivery: Delivery, run: dict[str, Any]) -> dict[str, Any]:
    """What is sent: numbers and names of a run, nothing of its data."""
    error = run["error"] or {}
    named = {name: run[name] for name in ("id", "project_id", "name", "state", "base_model", "verdict", "started_at", "finished_at")}
    url = platform.settings.network.public_url
    return {
        "id": delivery.id,
        "event": "run.ended",
        "at": delivery.ended_at,
        "run": named | {"error": {"code": error["code"], "what": error["what"]} if "code" in error else None},
        "url": f"{url}/runs/{run['id']}" if url else None,
    }


def _view(one: Subscription) -> SubscriptionView:
    return SubscriptionView(**{name: value for name, value in vars(one).items() if name not in ("secret", "seen_until")})
