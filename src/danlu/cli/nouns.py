"""`danlu projects`, `danlu jobs`, ...: commands made from operations, on a local home or on a server.

A group is built when one of its commands is used, so that `danlu --help` loads neither the database nor the web framework. A command's
arguments are the ids of the operation's path, its options the operation's own and the fields of its body; its help is their docstrings.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from danlu.services.platform.operations import Operation

NOUNS: dict[str, str] = {
    "audit": "Who did what, and when.",
    "datasets": "Datasets: bring files in, look at their rows, correct them.",
    "engines": "Models that are loaded to answer.",
    "exports": "Runs as files that other tools load, verified.",
    "invitations": "Accounts and new passwords by tokens that can be used once.",
    "jobs": "The queue: look at jobs, hold them back, reorder and cancel them.",
    "keys": "API keys.",
    "models": "The registry of models, and the base models of the machine.",
    "projects": "Projects and their members.",
    "recipes": "Recipes on the platform: check them, see what they would take.",
    "runs": "Runs: those of this home's folders; with a command, those of the platform.",
    "sessions": "Where you are signed in.",
    "storage": "The room that things take.",
    "subscriptions": "Who is told when runs end: webhooks and mail.",
    "system": "How the installation stands.",
    "uploads": "Files that are on their way; `danlu datasets add` does all of it.",
    "users": "Users, and yourself.",
    "votes": "Votes and ratings on answers.",
}
"""Groups of commands; a test compares them with the operations."""
GROUP_NAMES = {
    "chat": "engines",
    "downloads": "runs",
    "notices": "subscriptions",
    "proofs": "runs",
    "rows": "datasets",
    "sweeps": "runs",
    "taking": "runs",
    "views": "users",
    "watching": "runs",
    "workers": "jobs",
}
"""The group of a module of services/platform, where it is not called like it."""
OPERATION_GROUPS = {"download_dataset_version": "datasets", "download_export_file": "exports", "download_model_file": "models"}
"""The group of an operation, where it is not that of its module."""
COMMAND_NAMES = {"end_sessions": "end-all"}
"""Commands that the rule would call like another one."""
SERVER = typer.Option(
    "--server", envvar="DANLU_SERVER", help="Address of a studio; without one, this machine's home folder. The API key is taken from DANLU_TOKEN."
)
JSON = typer.Option("--json", help="Machine-readable: exactly what REST answers.")
PROJECT = typer.Option("--project", "-p", help="Project, by name or id; may be left out where there is only one.")
MEANINGS = {
    "after": "Begin behind this one: what the page before named as its next.",
    "attempt": "Which attempt, counted from 1; the newest by default.",
    "kind": "Only of this kind.",
    "limit": "At most so many.",
    "offset": "Begin at this byte.",
    "state": "Only in this state.",
    "version": "Do it only when nobody has changed it since this version.",
}
"""Help of options that stand in no model."""
SECRET = re.compile("(^|_)(password|secret|token)$")
"""Never words of a command line, which others on the machine can read: asked for, or read from standard input."""


class NounGroup(TyperGroup):
    """A group whose commands are made when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of its commands."""
        self._load()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, or None."""
        self._load()
        return super().get_command(ctx, cmd_name)

    def _load(self) -> None:
        if not self.commands:
            made = typer.main.get_group(group(self.name or ""))
            for name in made.list_commands(typer.Context(made)):
                self.add_command(made.commands[name], name)


def group(name: str) -> typer.Typer:
    """The commands of one group."""
    from danlu.services.platform.operations import load_all

    app = typer.Typer(rich_markup_mode=None)
    app.callback()(lambda: None)  # else a group of one command would be that command
    if name == "datasets":
        from danlu.cli.datasets import add

        app.command("add")(add)
    for operation in load_all().values():
        if group_of(operation) == name:
            app.command(command_name(operation), help=meaning_of(operation))(command(operation))
    return app


def meaning_of(operation: Operation[..., Any]) -> str:
    """What an operation does, without the errors that it raises: those say for themselves what they mean."""
    return (inspect.getdoc(operation.function) or "").partition("\nRaises:")[0].strip()


def group_of(operation: Operation[..., Any]) -> str:
    """The group that holds the command of an operation."""
    return OPERATION_GROUPS.get(operation.name) or GROUP_NAMES.get(operation.noun, operation.noun)


def command_name(operation: Operation[..., Any]) -> str:
    """`list_projects` -> list, `get_project` -> show, `set_member` -> set-member, `list_run_jobs` -> jobs."""
    if operation.name in COMMAND_NAMES:
        return COMMAND_NAMES[operation.name]
    verb, *words = operation.name.split("_")
    group = group_of(operation)
    rest = [word for word in words if word not in (group, group.removesuffix("s"))]
    if verb in ("list", "get", "read") and rest:
        return "-".join(rest)
    return "-".join(["show" if verb == "get" else verb, *rest])


def command(operation: Operation[..., Any]) -> Callable[..., None]:
    """A function whose parameters Typer turns into the command's."""
    parameters = {parameter.name: parameter for parameter in _parameters(operation)}

    def run(**given: Any) -> None:
        from danlu.cli.tables import show, show_saved

        as_json, server, out = given.pop("as_json"), given.pop("server"), given.pop("out", None)
        with studio(server) as opened:
            arguments = dict(_arguments(operation, given))
            if "project_id" in arguments and operation.noun != "projects":
                named = arguments["project_id"]
                arguments["project_id"] = opened.project_id(named) if named is not None or _is_in_path(operation, "project_id") else None
            result = opened.transport.call(operation, **arguments)
            if _is_file(operation):
                show_saved(result, out, as_json=as_json)
            else:
                show(operation, result, as_json=as_json)

    run.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    run.__name__ = operation.name
    return run


def studio(server: str | None) -> Any:
    """The studio that a command is about: a server's, or that of this machine's home."""
    import os

    from danlu.client import Studio

    return Studio.connect(server, token=os.environ.get("DANLU_TOKEN") or None) if server else Studio.open()


def _parameters(operation: Operation[..., Any]) -> Iterator[inspect.Parameter]:
    for parameter in list(inspect.signature(operation.function).parameters.values())[1:]:
        name, hint = parameter.name, operation.types[parameter.name]
        if name == "project_id" and operation.noun != "projects":
            yield _keyword(name, Annotated[str | None, PROJECT], None)
        elif _is_in_path(operation, name):
            yield _keyword(name, Annotated[str, typer.Argument(metavar=name.upper(), help=f"Id of the {name.removesuffix('_id').replace('_', ' ')}.")])
        elif name == operation.body:
            for field_name, field in hint.model_fields.items():
                yield _field(field_name, field)
        else:
            shown = _option(name, MEANINGS.get(name, ""), hint)
            yield _keyword(name, Annotated[_typer_type(hint), shown], None if parameter.default is parameter.empty else parameter.default)
    if _is_file(operation):
        yield _keyword(
            "out", Annotated[Path | None, typer.Option("--out", help="File to write; by default named as the studio names it, in this folder.")], None
        )
    yield _keyword("as_json", Annotated[bool, JSON], False)
    yield _keyword("server", Annotated[str | None, SERVER], None)


def _field(name: str, field: FieldInfo) -> inspect.Parameter:
    """The option of a body's field."""
    meaning = " ".join((field.description or "").split())
    if _is_secret(name, field):
        asked = _option(name, meaning + " It is asked for, or read from standard input.")
        return _keyword(name, Annotated[bool, typer.Option(f"--{name.replace('_', '-')}", help=asked.help, hidden=field.is_required())], False)
    if _is_structured(field.annotation):
        meaning += " As JSON, or @FILE."
    required = field.is_required()
    return _keyword(
        name,
        Annotated[_typer_type(field.annotation, is_optional=not required), _option(name, meaning, field.annotation)],
        inspect.Parameter.empty if required else None,
    )


def _option(name: str, meaning: str, hint: Any = None) -> Any:
    words = name.replace("_", "-")
    return typer.Option(f"--{words}/--no-{words}" if bool in _arms(hint) else f"--{words}", help=meaning)


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _is_in_path(operation: Operation[..., Any], name: str) -> bool:
    return f"{{{name}}}" in operation.path


def _is_file(operation: Operation[..., Any]) -> bool:
    from danlu.services.platform.downloads import Download

    return operation.types["return"] is Download


def _arms(hint: Any) -> list[Any]:
    """The types of a union but None, without what Annotated adds."""
    if get_origin(hint) is Annotated:
        return _arms(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return [arm for part in get_args(hint) for arm in _arms(part)]
    return [] if hint is type(None) else [hint]


def _is_structured(hint: Any) -> bool:
    """Whether a value of this type cannot be one word."""
    [first, *others] = _arms(hint)
    is_word = first in (str, int, float, bool) or get_origin(first) is Literal
    return bool(others) or not (is_word or (get_origin(first) is list and _arms(get_args(first)[0])[0] is str))


def _typer_type(hint: Any, *, is_optional: bool = True) -> Any:
    first = str if _is_structured(hint) else _arms(hint)[0]
    return first | None if is_optional else first


def _arguments(operation: Operation[..., Any], given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The arguments of the operation from those of the command."""
    for name in list(inspect.signature(operation.function).parameters)[1:]:
        if name == operation.body:
            yield name, _body(operation.types[name], given)
        elif given[name] is not None or _is_in_path(operation, name):
            yield name, given[name]


def _body(model: type[BaseModel], given: dict[str, Any]) -> BaseModel:
    """The body from the options that were given.

    Raises:
        typer.BadParameter: a value does not fit; every one that does not is told.
    """
    from pydantic import ValidationError

    values = {}
    for name, field in model.model_fields.items():
        value = given[name]
        if _is_secret(name, field):
            if value or field.is_required():
                values[name] = _ask(name)
        elif value is not None and value != []:
            values[name] = _structured(name, value) if _is_structured(field.annotation) else value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        options = ["--" + ".".join(map(str, one["loc"])).replace("_", "-") + ": " if one["loc"] else "" for one in error.errors()]
        told = "; ".join(option + one["msg"].removeprefix("Value error, ") for option, one in zip(options, error.errors(), strict=True))
        raise typer.BadParameter(told) from error


def _structured(name: str, text: str) -> Any:
    import orjson

    from danlu.recipe.load import read_yaml

    if text.startswith("@"):
        return read_yaml(Path(text[1:]))
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f"--{name.replace('_', '-')}: {error}; give JSON, or @FILE") from error


def _is_secret(name: str, field: FieldInfo) -> bool:
    return not field.repr or SECRET.search(name) is not None


def _ask(name: str) -> str:
    if sys.stdin.isatty():
        return str(typer.prompt(name.replace("_", " "), hide_input=True))
    return sys.stdin.readline().rstrip("\r\n")
