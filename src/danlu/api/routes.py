"""One route for each operation. What REST adds is only how arguments arrive and how the answer is sent."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Query, Request

from danlu.services.platform.access import Actor
from danlu.services.platform.operations import Operation, load_all

GetActor = Callable[[Request], Actor]
ID = Path(max_length=80, pattern="^[0-9a-z_]+$")


def router(get_actor: GetActor) -> APIRouter:
    """Return the routes of every operation; `get_actor` says who asks."""
    made = APIRouter()
    for operation in load_all().values():
        made.add_api_route(
            operation.path,
            _endpoint(operation, get_actor),
            methods=[operation.verb],
            status_code=operation.status,
            operation_id=operation.name,
            tags=[operation.noun],
            summary=(inspect.getdoc(operation.function) or "").splitlines()[0],
            response_model=None if operation.status == 204 else operation.types["return"],
        )
    return made


def _endpoint(operation: Operation[..., Any], get_actor: GetActor) -> Callable[..., Any]:
    def endpoint(request: Request, actor: Actor, **arguments: Any) -> Any:
        return operation(request.app.state.platform, actor, **arguments)

    in_path = set(re.findall(r"{(\w+)}", operation.path))
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("request", keyword, annotation=Request),
        inspect.Parameter("actor", keyword, annotation=Annotated[Actor, Depends(get_actor)]),
    ]
    for parameter in list(inspect.signature(operation.function).parameters.values())[1:]:
        kind = ID if parameter.name in in_path else Body() if parameter.name == operation.body else Query()
        annotation: Any = Annotated[operation.types[parameter.name], kind]
        parameters.append(inspect.Parameter(parameter.name, keyword, annotation=annotation, default=parameter.default))
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    endpoint.__name__ = operation.name
    return endpoint
