"""Operations: functions with a right. The four doors are made from them, so that no door can forget to ask.

    @operation("GET", "/runs/{run_id}", right="viewer")
    def get_run(call: Call, run_id: str) -> Run:
        return RUNS.get(call.connection, run_id)

Parameters whose names stand in the path are ids; one that is a pydantic model is the request's body; the others are options
(query parameters). An operation runs in one transaction with its permission check and its line in the audit log; what writes
large files says `own_transaction=True` and opens short ones by itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, get_type_hints

from pydantic import BaseModel

from danlu.services.platform.access import Actor, Right, check
from danlu.services.platform.platform import Platform
from danlu.store import audit
from danlu.store.engine import Connection

P = ParamSpec("P")
R = TypeVar("R")
Verb = Literal["GET", "POST", "PATCH", "PUT", "DELETE"]


class Receipt(Protocol):
    """What makes a repeated request find what the first one did (receipts.py)."""

    def begin(self, connection: Connection) -> None:
        """Raise what tells that it was done, or is being done; else remember that it begins."""

    def end(self, connection: Connection, result: Any) -> None:
        """Remember what came of it, in the transaction that did it."""

    def fail(self, connection: Connection) -> None:
        """Forget that it began: nothing was done."""


@dataclass(frozen=True)
class Call:
    """One use of an operation."""

    platform: Platform
    actor: Actor
    project_id: str | None
    """The project it concerns, when it concerns one."""
    held: Connection | None
    end: Callable[[Connection, Any], None] | None = None

    def settle(self, connection: Connection, result: Any) -> None:
        """In an operation with transactions of its own: write the audit log, and the answer to a repeated request, in the one that does what was asked.

        Call it last in that transaction: a kill then leaves all of it or nothing.
        """
        if self.end is not None:
            self.end(connection, result)

    @property
    def connection(self) -> Connection:
        """The transaction it runs in."""
        assert self.held is not None, "this operation opens its own transactions"
        return self.held


@dataclass(frozen=True)
class Operation(Generic[P, R]):
    """Something that can be done, by whom, and where REST offers it."""

    verb: Verb
    path: str
    right: Right
    function: Callable[Concatenate[Call, P], R]
    status: int
    own_transaction: bool = False
    is_logged: bool = True
    """Whether the audit log gets a line (never for reading)."""
    is_long: bool = False
    """Whether it waits for a model: a door lets it do so where it keeps nobody waiting."""

    def __call__(self, platform: Platform, actor: Actor, *args: P.args, **kwargs: P.kwargs) -> R:
        """Check the right, do it, write the audit log.

        Raises:
            SignInError, ForbiddenError, NotFoundError: the actor may not.
            DanluError: what the operation says.
        """
        return self._carry_out(platform, actor, None, args, kwargs)

    def once(self, receipt: Receipt, platform: Platform, actor: Actor, *args: P.args, **kwargs: P.kwargs) -> R:
        """Do it unless the receipt says that it was done before; the right is checked all the same.

        Raises:
            AlreadyDoneError: it was done; the receipt knows what was answered.
            ConflictError: it is being done.
        """
        return self._carry_out(platform, actor, receipt, args, kwargs)

    def _carry_out(self, platform: Platform, actor: Actor, receipt: Receipt | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        arguments = inspect.signature(self.function).bind(None, *args, **kwargs).arguments
        named = {name: value for name, value in arguments.items() if name.endswith("_id")}
        database = platform.database
        if self.verb == "GET" and not self.own_transaction:
            with database.reading() as connection:
                project_id = check(connection, actor, self.right, named, changes=self.is_change)
                return self.function(Call(platform, actor, project_id, connection), *args, **kwargs)
        if self.own_transaction:
            return self._in_own_transactions(platform, actor, receipt, named, args, kwargs)
        with database.writing() as connection:
            project_id = check(connection, actor, self.right, named, changes=self.is_change)
            if receipt is not None:
                receipt.begin(connection)
            result = self.function(Call(platform, actor, project_id, connection), *args, **kwargs)
            self._log(connection, actor, project_id, named, result)
            if receipt is not None:
                receipt.end(connection, result)
            return result

    def _in_own_transactions(
        self, platform: Platform, actor: Actor, receipt: Receipt | None, named: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> R:
        database = platform.database
        with database.reading() as connection:
            project_id = check(connection, actor, self.right, named, changes=self.is_change)
        if receipt is not None:
            with database.writing() as connection:
                receipt.begin(connection)
        settled: list[Any] = []

        def end(connection: Connection, result: Any) -> None:
            self._log(connection, actor, project_id, named, result)
            if receipt is not None:
                receipt.end(connection, result)
            settled.append(result)

        try:
            result = self.function(Call(platform, actor, project_id, None, end), *args, **kwargs)
        except Exception:
            if receipt is not None:
                with database.writing() as connection:
                    receipt.fail(connection)
            raise
        if self.verb != "GET" and not settled:
            with database.writing() as connection:
                end(connection, result)
        return result

    def _log(self, connection: Connection, actor: Actor, project_id: str | None, named: dict[str, Any], result: Any) -> None:
        if not self.is_logged:
            return
        subject = next((str(value) for name, value in named.items() if name != "project_id"), None) or getattr(result, "id", None) or project_id or ""
        project_id = project_id or getattr(result, "project_id", None)
        by_key = {} if actor.key_id is None else {"key_id": actor.key_id}
        audit.append(connection, user_id=actor.user_id, action=self.name, subject=subject, project_id=project_id, address=actor.address, **by_key)

    @property
    def is_change(self) -> bool:
        """Whether it changes something; what is sent by POST only because it is long to say does not."""
        return self.verb != "GET" and self.is_logged

    @property
    def name(self) -> str:
        """Its name in every door: the REST `operation_id`."""
        return self.function.__name__

    @property
    def noun(self) -> str:
        """The module it stands in: `runs`, `datasets`, ..."""
        return self.function.__module__.rpartition(".")[2]

    @cached_property
    def types(self) -> dict[str, Any]:
        """Type of each parameter, and of the result as `return`."""
        hints = get_type_hints(self.function)
        return {name: hint for name, hint in hints.items() if name != "call"}

    @cached_property
    def body(self) -> str | None:
        """Name of the parameter that is the request's body."""
        return next((name for name, hint in self.types.items() if isinstance(hint, type) and issubclass(hint, BaseModel) and name != "return"), None)


OPERATIONS: dict[str, Operation[..., Any]] = {}
"""Every operation by its name; complete once `load_all` was called."""


def operation(
    verb: Verb, path: str, *, right: Right, status: int | None = None, own_transaction: bool = False, is_logged: bool = True, is_long: bool = False
) -> Callable[[Callable[Concatenate[Call, P], R]], Operation[P, R]]:
    """Make a function an operation."""

    def register(function: Callable[Concatenate[Call, P], R]) -> Operation[P, R]:
        code = status or {"POST": 201, "DELETE": 204}.get(verb, 200)
        made = Operation(verb, path, right, function, code, own_transaction, is_logged, is_long)
        if OPERATIONS.setdefault(made.name, made) is not made:
            raise ValueError(f"two operations are named {made.name}")
        return made

    return register


def load_all() -> dict[str, Operation[..., Any]]:
    """Import every module of this package, and return the operations."""
    import pkgutil
    from importlib import import_module

    package = import_module("danlu.services.platform")
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        import_module(module.name)
    return OPERATIONS
