"""Notices of runs that ended: who wants them (subscriptions), and what was sent or is still to be sent (deliveries)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, exists, func, insert, literal, select, update

from danlu.store import tables
from danlu.store.ids import new_id
from danlu.store.rows import Noun

LATE_SECONDS = 3600.0
"""A run whose end was written down this much later than it says is still seen."""


@dataclass(frozen=True)
class Subscription:
    """An address that is told when runs of a project end."""

    id: str
    project_id: str
    channel: str
    address: str
    secret: str
    """Signs what is sent to a webhook; never shown again."""
    states: list[str]
    is_active: bool
    seen_until: float
    created_by: str | None
    created_at: float
    updated_at: float
    version: int


@dataclass(frozen=True)
class Delivery:
    """One notice for one subscription."""

    id: str
    project_id: str
    subscription_id: str
    run_id: str
    ended_at: float
    state: str
    """`waiting`, `sent` or `failed`."""
    attempts: int
    next_at: float
    last_error: str | None
    created_at: float
    updated_at: float
    version: int


SUBSCRIPTIONS = Noun(tables.subscriptions, Subscription, prefix="sub")
DELIVERIES = Noun(tables.deliveries, Delivery, prefix="dlv")


def num_subscriptions(connection: Connection, project_id: str) -> int:
    """How many addresses a project tells."""
    return connection.execute(select(func.count()).where(tables.subscriptions.c.project_id == project_id)).scalar_one()


def collect(connection: Connection, *, now: float | None = None) -> int:
    """Write down a delivery for every run that ended since a subscription looked, once; return how many."""
    now, made = time.time() if now is None else now, 0
    runs, deliveries = tables.runs, tables.deliveries
    for subscription in SUBSCRIPTIONS.all(connection, is_active=True):
        since = max(subscription.created_at, subscription.seen_until - LATE_SECONDS)
        mine = and_(deliveries.c.subscription_id == subscription.id, deliveries.c.run_id == runs.c.id, deliveries.c.ended_at == runs.c.finished_at)
        ended = (
            select(runs.c.id, runs.c.finished_at)
            .where(runs.c.project_id == subscription.project_id, runs.c.finished_at >= since, runs.c.state.in_(subscription.states))
            .where(~exists(select(literal(1)).where(mine)))
        )
        for run_id, finished_at in connection.execute(ended).all():
            row = {"id": new_id(DELIVERIES.prefix), "project_id": subscription.project_id, "subscription_id": subscription.id, "run_id": run_id}
            row |= {"ended_at": finished_at, "state": "waiting", "attempts": 0, "next_at": now, "created_at": now, "updated_at": now, "version": 1}
            connection.execute(insert(deliveries).values(**row))
            made += 1
        mark = update(tables.subscriptions).where(tables.subscriptions.c.id == subscription.id, tables.subscriptions.c.seen_until < now - LATE_SECONDS / 2)
        connection.execute(mark.values(seen_until=now))
    return made


def claim(connection: Connection, *, now: float, lease_seconds: float, limit: int = 20) -> list[Delivery]:
    """Take deliveries that are due; nobody else gets them for the time of the lease, and a kill gives them back after it."""
    due = select(tables.deliveries).where(tables.deliveries.c.state == "waiting", tables.deliveries.c.next_at <= now)
    due = due.order_by(tables.deliveries.c.next_at).limit(limit).with_for_update(skip_locked=True)
    found = [Delivery(**row) for row in connection.execute(due).mappings()]
    for delivery in found:
        DELIVERIES.update(connection, delivery.id, next_at=now + lease_seconds, attempts=delivery.attempts + 1)
    return [DELIVERIES.get(connection, delivery.id) for delivery in found]


def values_of(connection: Connection, delivery: Delivery) -> tuple[Subscription, dict[str, Any]]:
    """The subscription of a delivery, and the run it is about."""
    run = connection.execute(select(tables.runs).where(tables.runs.c.id == delivery.run_id)).mappings().one()
    return SUBSCRIPTIONS.get(connection, delivery.subscription_id), dict(run)
