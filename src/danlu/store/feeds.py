"""What a run tells while it runs, read forward from a position: its events, and its points in the order of steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, func, select

from danlu.store.tables import run_events, run_points

MAX_ITEMS = 500


@dataclass(frozen=True)
class Position:
    """How far somebody has read: everything before event `event`, every point before `step`, and those of `step` of these kinds."""

    event: int = 0
    step: int = -1
    kinds: tuple[str, ...] = ()

    def is_behind(self, item: Item) -> bool:
        """Whether the item has not been read yet."""
        if item.name == "event":
            return item.number >= self.event
        return item.number > self.step or (item.number == self.step and item.kind not in self.kinds)

    def after(self, item: Item) -> Position:
        """The position when the item has been read too."""
        if item.name == "event":
            return replace(self, event=item.number + 1)
        kinds = (*self.kinds, item.kind) if item.number == self.step else (item.kind,)
        return replace(self, step=item.number, kinds=tuple(sorted(kinds)))


@dataclass(frozen=True)
class Item:
    """An event, or what was measured at a step."""

    name: str
    """`event` or `point`."""
    number: int
    """Number of the event, or the step."""
    kind: str
    fields: dict[str, Any]


def end_of(connection: Connection, run_id: str) -> Position:
    """The position of somebody who has read everything there is."""
    last = connection.execute(select(func.max(run_events.c.number)).where(run_events.c.run_id == run_id)).scalar()
    step = connection.execute(select(func.max(run_points.c.step)).where(run_points.c.run_id == run_id)).scalar()
    kinds = (
        () if step is None else tuple(connection.execute(select(run_points.c.kind).where(run_points.c.run_id == run_id, run_points.c.step == step)).scalars())
    )
    return Position(0 if last is None else last + 1, -1 if step is None else step, tuple(sorted(kinds)))


def read_after(connection: Connection, run_id: str, position: Position) -> list[Item]:
    """Up to `MAX_ITEMS` events and as many points that follow a position."""
    events = select(run_events.c.number, run_events.c.kind, run_events.c.fields).where(run_events.c.run_id == run_id, run_events.c.number >= position.event)
    points = select(run_points.c.step, run_points.c.kind, run_points.c["values"]).where(run_points.c.run_id == run_id, run_points.c.step >= position.step)
    items = [Item("event", *row) for row in connection.execute(events.order_by(run_events.c.number).limit(MAX_ITEMS))]
    items += [Item("point", *row) for row in connection.execute(points.order_by(run_points.c.step, run_points.c.kind).limit(MAX_ITEMS))]
    return [item for item in items if position.is_behind(item)]
