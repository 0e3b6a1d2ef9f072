"""What carries a call to where it is done, and how an operation becomes a method.

    class Projects(Noun):
        list = Method(projects.list_projects)

is all that a new operation needs here: the method has its parameters, its result and its docstring, and works on a home folder and on
a server alike. What reads better written by hand says which operation it stands for: `@covers(runs.submit_run)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Protocol, TypeVar, overload

from danlu.client.events import Happening
from danlu.services.platform.operations import Operation
from danlu.store.uploads import Upload

if TYPE_CHECKING:
    from danlu.client.studio import Studio

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class Transport(Protocol):
    """Carries operations to a home folder or a server."""

    @property
    def where(self) -> str:
        """The home folder or the server's address, for people."""

    @property
    def patience_seconds(self) -> float:
        """How long what waits for a run bears that nothing is answered: a server that starts again must not end it."""

    def call(self, operation: Operation[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Carry out an operation.

        Raises:
            DanluError: what the operation raises, the same here and there.
            ServerError: the server cannot be reached.
        """

    def append(self, upload_id: str, offset: int, chunk: bytes, sha256: str) -> Upload:
        """Add a chunk to an upload; it is on disk when this returns.

        Raises:
            ConflictError: the upload stands elsewhere.
        """

    def follow(self, noun: Literal["runs", "jobs"], id: str, position: str | None = None) -> Iterator[Happening]:
        """What happens to a run, or in the log of a job, after a position, until it is over."""

    def wake(self) -> None:
        """See to it that queued jobs are worked on."""

    def close(self) -> None:
        """Close files and connections."""


@dataclass(frozen=True)
class Method(Generic[P, R]):
    """An operation as a method of a noun."""

    operation: Operation[P, R]

    @overload
    def __get__(self, instance: None, owner: type) -> Method[P, R]: ...

    @overload
    def __get__(self, instance: Noun, owner: type) -> Callable[P, R]: ...

    def __get__(self, instance: Noun | None, owner: type) -> Method[P, R] | Callable[P, R]:
        if instance is None:
            return self
        transport, operation = instance.transport, self.operation

        def method(*args: P.args, **kwargs: P.kwargs) -> R:
            return transport.call(operation, *args, **kwargs)

        method.__doc__, method.__name__ = inspect.getdoc(operation.function), operation.name
        signature = inspect.signature(operation.function)
        method.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
        return method


class Noun:
    """The methods of one kind of thing: `studio.projects`, `studio.runs`, ..."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    @property
    def transport(self) -> Transport:
        """What carries the calls."""
        return self.studio.transport


def covers(*operations: Operation[..., Any]) -> Callable[[F], F]:
    """Say for which operations a method written by hand stands."""

    def mark(function: F) -> F:
        function.__dict__["covers"] = tuple(operation.name for operation in operations)
        return function

    return mark


def covered(noun: type[Noun]) -> Iterator[tuple[str, str]]:
    """Yield (operation, method) of a noun's class."""
    for cls in noun.__mro__:
        for name, value in vars(cls).items():
            if isinstance(value, Method):
                yield value.operation.name, name
            for operation in getattr(value, "__dict__", {}).get("covers", ()):
                yield operation, name


__all__ = ["Method", "Noun", "Transport", "covered", "covers"]
