"""What the tests of attacks share: an application, clients, people in every role, and rows of every noun."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel
from sqlalchemy import Boolean, Float, Integer, Table, insert

from danlu.api import security, sign_in
from danlu.api.routes import router
from danlu.errors import DanluError
from danlu.services.platform import keys, sessions
from danlu.services.platform.access import NOBODY, OWNED, Actor, Role
from danlu.services.platform.keys import NewKey
from danlu.services.platform.platform import Platform
from danlu.services.platform.sessions import Visitor
from danlu.settings import Network
from danlu.store import members
from danlu.store.engine import Connection
from danlu.store.ids import new_id
from danlu.store.projects import PROJECTS
from danlu.store.users import USERS

PASSWORD = "seven green doors"
ROLES: tuple[Role, ...] = ("viewer", "reviewer", "editor", "admin")
CHOSEN = {"state": "queued", "priority": "standard", "role": "viewer"}


def application(platform: Platform, *, host: str = "127.0.0.1", **network: Any) -> FastAPI:
    """The routes of every operation behind the guard."""
    platform = replace(platform, settings=replace(platform.settings, network=Network(**network)))
    app = FastAPI()
    get_actor = security.install(app, platform, host=host)

    @app.exception_handler(DanluError)
    async def _told(request: Request, error: DanluError) -> JSONResponse:
        return JSONResponse(error.to_dict(), error.http_status)

    @app.exception_handler(RequestValidationError)
    async def _mistaken(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"code": "", "places": [list(map(str, found["loc"])) for found in error.errors()]}, 422)

    app.include_router(router(get_actor), prefix="/api/v1")
    app.include_router(sign_in.router(get_actor), prefix="/api/v1")
    return app


def browser(app: FastAPI, *, base_url: str = "http://127.0.0.1", address: str = "127.0.0.1", **headers: str) -> TestClient:
    """A client that sends what the studio's own pages send."""
    own = {"Origin": base_url, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
    return TestClient(app, base_url=base_url, client=(address, 50_000), headers=own | headers)


def program(app: FastAPI, key: str | None = None, *, base_url: str = "http://127.0.0.1", address: str = "127.0.0.1") -> TestClient:
    """A client that is no browser."""
    return TestClient(app, base_url=base_url, client=(address, 50_000), headers={} if key is None else {"Authorization": f"Bearer {key}"})


def add_user(connection: Connection, name: str, *, is_admin: bool = False, password_hash: str | None = None) -> Actor:
    """Make a user without hashing a password."""
    values = {"email": None, "oidc_subject": None, "is_active": True, "preferences": {}, "password_hash": password_hash}
    user = USERS.insert(connection, name=name, name_key=name, is_admin=is_admin, **values)
    return Actor(user_id=user.id, name=name, is_signed_in=True, is_operator=is_admin)


def add_row(connection: Connection, table: Table, project_id: str) -> str:
    """Add a row with something in every column that needs it, and what it refers to; return its key."""
    row: dict[str, Any] = {}
    for column in table.columns:
        references = next(iter(column.foreign_keys), None)
        if references is not None and references.column.table.name == "projects":
            row[column.name] = project_id
        elif column.primary_key and references is None:
            row[column.name] = new_id(table.name[:3])
        elif column.nullable:
            continue
        elif references is not None:
            row[column.name] = add_row(connection, references.column.table, project_id)
        elif column.name in CHOSEN:
            row[column.name] = CHOSEN[column.name]
        elif isinstance(column.type, Boolean | Integer | Float):
            row[column.name] = False if isinstance(column.type, Boolean) else 1
        else:
            row[column.name] = {} if "JSON" in repr(column.type) else new_id(column.name)
    connection.execute(insert(table).values(**row))
    return str(row[next(iter(table.primary_key.columns)).name])


class World:
    """Two projects, with one of everything in each, and people who may do more or less in the first."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        with platform.database.writing() as connection:
            self.mine, self.other = (
                PROJECTS.insert(connection, name=name, description="", created_by=None, is_archived=False).id for name in ("mine", "other")
            )
            self.ids = {project: self._ids(connection, project) for project in (self.mine, self.other)}
            self.actors = {"anonymous": NOBODY, "local": Actor.local(), "operator": add_user(connection, "operator", is_admin=True)}
            self.actors |= {name: add_user(connection, name) for name in (*ROLES, "stranger")}
            for role in ROLES:
                members.set_role(connection, self.mine, self.actors[role].user_id or "", role)
            for name in ("admin", "stranger"):
                members.set_role(connection, self.other, self.actors[name].user_id or "", "admin")
        admin, operator = self.actors["admin"], self.actors["operator"]
        self.actors["admin's key for viewing"] = replace(admin, key_id="key_1", key_role="viewer")
        self.actors["admin's key for the other project"] = replace(admin, key_id="key_2", key_role="admin", key_project_id=self.other)
        self.actors["operator's key for viewing"] = replace(operator, key_id="key_3", key_role="viewer")

    def _ids(self, connection: Connection, project: str) -> dict[str, str]:
        return {"project_id": project} | {name: add_row(connection, noun.table, project) for name, noun in OWNED.items()}

    def token(self, name: str) -> str:
        """Sign somebody in, and return the session's token."""
        with self.platform.database.writing() as connection:
            user = USERS.get(connection, self.actors[name].user_id or "")
            return sessions.begin(connection, user, Visitor()).token

    def key(self, name: str, **values: Any) -> str:
        """Make an API key of somebody, and return it whole."""
        return keys.create_key(self.platform, self.actors[name], NewKey(name="k", **values)).secret


SAMPLES: dict[str, dict[str, Any]] = {"NewUser": {"name": "somebody", "password": PASSWORD}}
"""Bodies that cannot be told from their schema alone."""


def sample(model: type[BaseModel]) -> dict[str, Any]:
    """A body with the fields that are required."""
    schema = model.model_json_schema()
    value = SAMPLES.get(model.__name__) or _sample(schema, schema.get("$defs", {}))
    assert isinstance(value, dict)
    model.model_validate(value)  # else what is refused would be refused for another reason
    return value


def _sample(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    if "$ref" in schema:
        return _sample(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return _sample(schema[several][0], definitions)
    if "enum" in schema or "const" in schema:
        return schema.get("const", next(iter(schema.get("enum", [None]))))
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: _sample(schema["properties"][name], definitions) for name in schema.get("required", [])}
    if kind == "array":
        return [_sample(schema.get("items", {}), definitions)] * schema.get("minItems", 0)
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    return {"string": "a sample word".ljust(schema.get("minLength", 0), "x"), "integer": int(least), "number": least, "boolean": False, "null": None}[kind]
