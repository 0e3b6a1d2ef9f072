"""What every noun needs: make, get, page, change, remove. A noun is a table plus a frozen dataclass; adding one takes ten lines.

RUNS = Noun(tables.runs, Run, prefix="run")
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Select, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from danlu.errors import ConflictError, NotFoundError, OutdatedError
from danlu.store.ids import new_id

T = TypeVar("T")
MAX_PAGE = 200
MAX_PAGE_CHARS = 8_000_000
"""Of a noun whose rows can be large: a page has fewer of them, instead of filling the memory of who asks and who answers."""
READ_AT_ONCE = 10


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some of the rows, newest first, and where the next ones begin."""

    items: list[T]
    next: str | None
    """Give it as `after` for the next page; None at the end."""


@dataclass(frozen=True)
class Noun(Generic[T]):
    """Rows of one table as frozen objects whose fields are its columns."""

    table: Table
    make: Callable[..., T]
    prefix: str
    weigh: Callable[[T], int] | None = None
    """About how many characters a row has, where people decide how many."""

    def __post_init__(self) -> None:
        names = {field.name for field in fields(self.make)}  # type: ignore[arg-type]
        assert names == set(self.table.columns.keys()), (self.table.name, names ^ set(self.table.columns.keys()))

    def insert(self, connection: Connection, **values: Any) -> T:
        """Add one and return it.

        Raises:
            ConflictError: its name is taken.
        """
        now = time.time()
        row = {"id": new_id(self.prefix), "created_at": now, "updated_at": now, "version": 1, **values}
        try:
            connection.execute(insert(self.table).values(**row))
        except IntegrityError as error:
            raise self._conflict(values, error) from error
        return self.get(connection, row["id"])

    def get(self, connection: Connection, id: str) -> T:
        """Return one.

        Raises:
            NotFoundError: there is none with this id.
        """
        found = self.find(connection, id=id)
        if found is None:
            noun = self.table.name.rstrip("s").replace("_", " ")
            raise NotFoundError(
                f"there is no {noun} {id[:80]!r}", why="the id is mistyped, or it was deleted", fix=f"list the {noun}s and take an id from there"
            )
        return found

    def find(self, connection: Connection, **where: Any) -> T | None:
        """Return the one with these values, or None."""
        row = connection.execute(select(self.table).where(*self._equal(where)).limit(1)).mappings().first()
        return None if row is None else self.make(**row)

    def all(self, connection: Connection, **where: Any) -> list[T]:
        """Return all with these values, oldest first; for what is known to be few."""
        rows = connection.execute(select(self.table).where(*self._equal(where)).order_by(self.table.c.id)).mappings()
        return [self.make(**row) for row in rows]

    def each(self, connection: Connection, *, batch: int = 50, **where: Any) -> Iterator[T]:
        """All with these values, oldest first, read in batches: however many there are, few are in memory."""
        query = select(self.table).where(*self._equal(where)).order_by(self.table.c.id).limit(batch)
        rows = connection.execute(query).mappings().all()
        while rows:
            yield from (self.make(**row) for row in rows)
            rows = connection.execute(query.where(self.table.c.id > rows[-1]["id"])).mappings().all() if len(rows) == batch else []

    def page(self, connection: Connection, *, limit: int = 50, after: str | None = None, **where: Any) -> Page[T]:
        """Return up to `limit` of those with these values, newest first; a value that is a list means any of it.

        A page of large rows ends earlier, when it has `MAX_PAGE_CHARS`.
        """
        limit = max(1, min(limit, MAX_PAGE))
        query = select(self.table).where(*self._equal(where)).order_by(self.table.c.id.desc())
        if after is not None:
            query = query.where(self.table.c.id < after)
        if self.weigh is not None:
            return self._light_page(connection, query, limit, self.weigh)
        items = [self.make(**row) for row in connection.execute(query.limit(limit + 1)).mappings()]
        return Page(items[:limit], items[limit - 1].id if len(items) > limit else None)  # type: ignore[attr-defined]

    def _light_page(self, connection: Connection, query: Select[Any], limit: int, weigh: Callable[[T], int]) -> Page[T]:
        items: list[Any] = []
        chars = 0
        while True:
            older = query.where(self.table.c.id < items[-1].id) if items else query
            found = [self.make(**row) for row in connection.execute(older.limit(READ_AT_ONCE)).mappings()]
            for item in found:
                chars += weigh(item)
                if items and (len(items) == limit or chars > MAX_PAGE_CHARS):
                    return Page(items, items[-1].id)
                items.append(item)
            if len(found) < READ_AT_ONCE:
                return Page(items, None)

    def update(self, connection: Connection, id: str, *, version: int | None = None, **values: Any) -> T:
        """Change one and return it.

        Raises:
            NotFoundError: there is none with this id.
            OutdatedError: it was changed since `version` was read.
            ConflictError: its new name is taken.
        """
        statement = update(self.table).where(self.table.c.id == id)
        if version is not None:
            statement = statement.where(self.table.c.version == version)
        try:
            changed = connection.execute(statement.values(**values, updated_at=time.time(), version=self.table.c.version + 1)).rowcount
        except IntegrityError as error:
            raise self._conflict(values, error) from error
        found = self.get(connection, id)
        if not changed:
            raise OutdatedError(
                f"{id} was changed by someone else",
                why=f"you changed version {version}, it is at version {found.version} now",  # type: ignore[attr-defined]
                fix="load it again and repeat your change",
            )
        return found

    def delete(self, connection: Connection, id: str) -> None:
        """Remove one.

        Raises:
            NotFoundError: there is none with this id.
            ConflictError: something still refers to it.
        """
        self.get(connection, id)
        try:
            connection.execute(delete(self.table).where(self.table.c.id == id))
        except IntegrityError as error:
            raise ConflictError(f"{id} is still used", why="something that must be kept refers to it", fix="delete what uses it first") from error

    def _equal(self, where: Mapping[str, Any]) -> Sequence[Any]:
        columns = self.table.columns
        return [columns[name].in_(value) if isinstance(value, list | tuple) else columns[name] == value for name, value in where.items()]

    def _conflict(self, values: Mapping[str, Any], error: IntegrityError) -> ConflictError:
        reason = str(error.orig).strip().splitlines()[0]
        if "FOREIGN KEY" in reason.upper():
            return ConflictError(f"what this {self.table.name.rstrip('s')} refers to does not exist", why=reason, fix="check the ids it names")
        named = values.get("name") or values.get("id") or "it"
        return ConflictError(f"{str(named)[:80]!r} exists already", why=reason, fix="choose another name")
