"""Contract of the doors: every operation can be done by REST, by Python and by the command line, with the same name and types."""

import inspect
from collections import Counter
from typing import Any

import pytest
import typer
from fastapi import FastAPI, Request

from danlu.api.routes import router
from danlu.cli import nouns
from danlu.cli.main import app
from danlu.client import studio
from danlu.client.transport import Noun, covered
from danlu.services.platform.access import NOBODY
from danlu.services.platform.operations import Operation, load_all

OPERATIONS = load_all()
WITHOUT_METHOD: dict[str, str] = {}
"""Operations that make no sense in Python, each with its reason."""
WITHOUT_COMMAND: dict[str, str] = {}
"""Operations that make no sense on the command line, each with its reason."""


def methods() -> dict[str, list[str]]:
    """`projects.list` and so on, by operation."""
    found: dict[str, list[str]] = {}
    for noun in Noun.__subclasses__():
        for operation, method in covered(noun):
            found.setdefault(operation, []).append(f"{noun.__name__.lower()}.{method}")
    return found


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.name)
def test_an_operation_has_a_python_method(operation: Operation[..., Any]) -> None:
    there = methods().get(operation.name, [])

    line = f"{nouns.command_name(operation)} = Method({operation.noun}.{operation.name})"
    assert len(there) == 1 or operation.name in WITHOUT_METHOD, f"{operation.name} has {len(there)} methods {there}; one line in danlu/client, e.g. `{line}`"


def test_every_method_stands_for_an_operation_and_every_noun_is_in_the_studio() -> None:
    assert set(methods()) <= set(OPERATIONS)
    source = inspect.getsource(studio.Studio.__init__)
    assert [noun.__name__ for noun in Noun.__subclasses__() if f"= {noun.__name__}(self)" not in source] == []


def test_every_operation_has_a_rest_operation_id() -> None:
    served = FastAPI()

    def get_actor(request: Request) -> Any:
        return NOBODY

    served.include_router(router(get_actor))
    ids = [route["operationId"] for path in served.openapi()["paths"].values() for route in path.values()]

    assert Counter(ids) == Counter(list(OPERATIONS))


def commands(path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Every command as its words."""

    def walk(command: Any, words: tuple[str, ...]) -> set[tuple[str, ...]]:
        context = typer.Context(command)
        names = command.list_commands(context) if hasattr(command, "list_commands") else []
        return {words}.union(*(walk(command.get_command(context, name), (*words, name)) for name in names))

    return walk(typer.main.get_command(app), path)


def test_every_operation_has_a_command_of_its_own() -> None:
    wanted = {name: (nouns.group_name(operation.noun), nouns.command_name(operation)) for name, operation in OPERATIONS.items() if name not in WITHOUT_COMMAND}
    there = commands()

    assert {name: " ".join(words) for name, words in wanted.items() if words not in there} == {}, "a new noun needs a line in danlu.cli.nouns.NOUNS"
    assert [words for words, count in Counter(wanted.values()).items() if count > 1] == []
    assert set(nouns.NOUNS) == {operation.noun for operation in OPERATIONS.values() if operation.name not in WITHOUT_COMMAND}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.name)
def test_a_command_takes_everything_that_its_operation_takes(operation: Operation[..., Any]) -> None:
    taken = set(inspect.signature(nouns.command(operation)).parameters)

    wanted = set(operation.types) - {"return"}
    if operation.body:
        wanted = (wanted - {operation.body}) | set(operation.types[operation.body].model_fields)
    assert taken == wanted | {"as_json", "server"}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.name)
def test_an_operation_says_what_it_does(operation: Operation[..., Any]) -> None:
    assert (inspect.getdoc(operation.function) or "").split("\n")[0].endswith(".")


def test_exceptions_are_of_operations_that_exist() -> None:
    assert set(WITHOUT_METHOD) | set(WITHOUT_COMMAND) <= set(OPERATIONS)
    assert all([*WITHOUT_METHOD.values(), *WITHOUT_COMMAND.values()])
