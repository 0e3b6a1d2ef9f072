"""Every operation, asked by everybody: who may, who may not, and what those who may not learn from it."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from doors import ROLES, World, application, program, sample
from pydantic import BaseModel
from rights import BEYOND, BODIES_OF_OTHERS, BY_HAND, FREE_BODIES, OTHER_IDS, RIGHTS

from danlu.api.app import describe
from danlu.errors import DanluError, ForbiddenError, NoEffectError, NotFoundError, SignInError, UnknownNameError
from danlu.services.platform.access import OWNED
from danlu.services.platform.operations import Operation, load_all

OPERATIONS = load_all()


@pytest.fixture
def world(still_world: World) -> World:
    """What is asked here is refused or does nothing: one home is enough."""
    return still_world


KEYS = ("admin's key for viewing", "admin's key for the other project", "operator's key for viewing")


def test_the_table_names_every_operation_and_its_right() -> None:
    assert {name: operation.right for name, operation in OPERATIONS.items()} == RIGHTS


def expected(right: str, actor: str, *, is_change: bool) -> type[DanluError] | None:
    """What an operation of this right answers, from the words of the table alone."""
    if right == "anyone" or (actor == "local"):
        return None
    if actor == "anonymous":
        return SignInError
    if right == "person":
        return ForbiddenError if actor in KEYS else None
    if right == "user":
        return ForbiddenError if is_change and actor in KEYS else None
    if right == "operator":
        return None if actor == "operator" else ForbiddenError
    role = {"operator": "admin", "admin's key for viewing": "viewer", "operator's key for viewing": "viewer"}.get(actor, actor)
    if role not in ROLES:
        return NotFoundError
    return None if ROLES.index(role) >= [*ROLES].index(right) else ForbiddenError  # type: ignore[arg-type]


def probe(operation: Operation[..., Any]) -> Operation[..., Any]:
    """The operation with its own check and nothing behind it."""

    @functools.wraps(operation.function)
    def nothing(*args: Any, **kwargs: Any) -> None:
        return None

    return replace(operation, function=nothing)


def arguments(operation: Operation[..., Any], ids: dict[str, str]) -> dict[str, Any]:
    """Its ids from a project; anything for the rest, which the check does not look at."""
    given = list(inspect.signature(operation.function).parameters.values())[1:]
    return {one.name: ids.get(one.name, "x") for one in given if one.default is inspect.Parameter.empty}


@pytest.mark.parametrize("name", RIGHTS)
def test_everybody_asks(world: World, name: str) -> None:
    operation = OPERATIONS[name]
    answers: dict[str, type[DanluError] | None] = {}
    for who, actor in world.actors.items():
        try:
            probe(operation)(world.platform, actor, **arguments(operation, world.ids[world.mine]))
            answers[who] = None
        except (SignInError, ForbiddenError, NotFoundError) as error:
            answers[who] = type(error)

    assert answers == {who: expected(RIGHTS[name], who, is_change=operation.is_change) for who in world.actors}


def test_parameters_that_name_something_are_checked_or_known_to_belong_to_no_project() -> None:
    named = {name for operation in OPERATIONS.values() for name in operation.types if name.endswith("_id")}

    assert named - {"project_id", *OWNED, *OTHER_IDS} == set()


def models(kind: Any) -> Iterator[type[BaseModel]]:
    """A body's model and those inside of it."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from models(field.annotation)
    for inner in getattr(kind, "__args__", ()):
        yield from models(inner)


BODIES = {name: operation.types[operation.body] for name, operation in OPERATIONS.items() if operation.body is not None}


def test_bodies_that_name_something_of_a_project_are_in_the_table() -> None:
    found = {name: {field for model in models(body) for field in model.model_fields if re.search(r"_ids?$", field)} for name, body in BODIES.items()}

    assert [name for name, fields in found.items() if fields - FREE_BODIES.get(name, set()) and name not in BODIES_OF_OTHERS] == []


@pytest.mark.parametrize("name", BODIES_OF_OTHERS)
def test_a_body_cannot_name_what_belongs_to_others_or_a_file_of_the_server(world: World, name: str) -> None:
    operation, model, member = OPERATIONS[name], BODIES[name], world.actors["editor"]
    for change in BODIES_OF_OTHERS[name](world.ids[world.other]):
        body = model.model_validate(sample(model) | change)
        with pytest.raises((NotFoundError, ForbiddenError, UnknownNameError, NoEffectError)):
            operation(world.platform, member, **(arguments(operation, world.ids[world.mine]) | {operation.body: body}))


@pytest.mark.parametrize("name", BEYOND)
def test_a_body_that_asks_for_more_than_its_operation_needs_the_role_for_it(world: World, name: str) -> None:
    operation, model, (role, change) = OPERATIONS[name], BODIES[name], BEYOND[name]
    body = model.model_validate(sample(model) | change)

    for who in [one for one in ROLES if [*ROLES].index(RIGHTS[name]) <= ROLES.index(one) < [*ROLES].index(role)]:  # type: ignore[arg-type]
        with pytest.raises(ForbiddenError, match=f"needs the role {role}"):
            operation(world.platform, world.actors[who], **(arguments(operation, world.ids[world.mine]) | {operation.body: body}))


@pytest.mark.parametrize("name", BODIES)
def test_no_body_takes_a_field_that_it_does_not_name(world: World, name: str) -> None:
    operation, model = OPERATIONS[name], BODIES[name]
    assert all(inner.model_config.get("extra") == "forbid" for inner in models(model))
    body = sample(model) | {"role": "admin", "is_admin": True, "created_by": "usr_me", "password_hash": "x", "output_dir": "/tmp", "key_role": None}

    answer = ask(world, program(application(world.platform), world.key("operator", role="admin")), operation, json=body)

    assert answer.status_code == 422


def ask(world: World, client: Any, operation: Operation[..., Any], **kwargs: Any) -> Any:
    """Ask by REST, with the ids of the first project in the path."""
    path = re.sub(r"{(\w+)}", lambda found: world.ids[world.mine].get(found[1], "x" if found[1].endswith("_id") else "1"), operation.path)
    if operation.body is not None:
        kwargs.setdefault("json", sample(BODIES[operation.name]))
    if "name" in operation.types and "{name}" not in operation.path:
        kwargs["params"] = {"name": "x"}
    return client.request(operation.verb, f"/api/v1{path}", **kwargs)


def test_by_rest_nobody_gets_anything_without_signing_in(world: World) -> None:
    client = program(application(world.platform))

    answers = {name: ask(world, client, operation).status_code for name, operation in OPERATIONS.items()}

    assert answers == {name: 401 for name in OPERATIONS if RIGHTS[name] != "anyone"} | {name: answers[name] for name in OPERATIONS if RIGHTS[name] == "anyone"}


def test_by_rest_a_stranger_does_not_learn_that_a_project_exists(world: World) -> None:
    client = program(application(world.platform), world.key("stranger", role="admin"))
    in_projects = [operation for name, operation in OPERATIONS.items() if RIGHTS[name] in ROLES]

    assert {operation.name: ask(world, client, operation).status_code for operation in in_projects} == {operation.name: 404 for operation in in_projects}


def test_by_rest_lists_show_a_stranger_nothing_of_the_project(world: World) -> None:
    client = program(application(world.platform), world.key("stranger", role="admin"))
    hidden = [value for name, value in world.ids[world.mine].items()]
    lists = [operation for name, operation in OPERATIONS.items() if operation.verb == "GET" and RIGHTS[name] in ("anyone", "user")]

    for operation in lists:
        for params in ({}, {"project_id": world.mine}):
            text = client.get(f"/api/v1{operation.path}", params={"name": "x", **params}).text
            assert [value for value in hidden if value in text.replace(str(params), "")] == [], operation.name


def test_two_ids_of_different_projects_are_refused(world: World) -> None:
    several = [operation for operation in OPERATIONS.values() if len({*OWNED, "project_id"} & set(operation.types)) > 1]
    for operation in several:
        names = sorted({*OWNED, "project_id"} & set(operation.types))
        mixed = arguments(operation, world.ids[world.mine]) | {name: world.ids[world.mine][name] for name in names}
        with pytest.raises(NotFoundError):
            probe(operation)(world.platform, world.actors["admin"], **(mixed | {names[0]: world.ids[world.other][names[0]]}))


def described() -> Iterator[tuple[str, str, str]]:
    """Operation id, verb and path of every route of REST."""
    for path, verbs in describe()["paths"].items():
        for verb, route in verbs.items():
            yield route["operationId"], verb.upper(), path


def test_every_route_is_an_operation_or_in_the_table_of_those_made_by_hand(world: World) -> None:
    assert {name for name, _, _ in described()} - set(OPERATIONS) == set(BY_HAND)


def test_routes_made_by_hand_ask_for_the_same_rights(world: World) -> None:
    app, answers = application(world.platform), {}
    keys = {"anonymous": None, **{name: world.key(name, role="admin") for name in ("stranger", "viewer")}}
    chunk = {"Content-Type": "application/octet-stream", "X-Content-SHA256": "0" * 64}
    for name, verb, path in described():
        if BY_HAND.get(name, "anyone") == "anyone":
            continue
        path = re.sub(r"{(\w+)}", lambda found: world.ids[world.mine][found[1]], path)
        for who, key in keys.items():
            if (who, BY_HAND[name]) != ("viewer", "viewer"):
                more = {"content": b"x", "headers": chunk, "params": {"offset": 0}} if verb == "PUT" else {}
                answers[name, who] = program(app, key).request(verb, path, **more).status_code

    expected = {(name, who): status for name, right in BY_HAND.items() if right != "anyone" for who, status in (("anonymous", 401), ("stranger", 404))}
    assert answers == expected | {("append_chunk", "viewer"): 403, ("stream_answer", "viewer"): 403}
